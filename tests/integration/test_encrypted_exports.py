"""Test encrypted exports: only the key reads them, and they are rotated as others are."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from seline import open_seline
from seline.domain.export_summary import SUMMARY_NAME
from seline.domain.manifest import (
    KEY_NAME,
    LIST_NAME,
    MANIFEST_NAME,
    decode_manifest,
    encode_manifest,
)
from seline.errors import ExportDamaged, KeyMissing
from seline.folders.export import find_export, read_export
from seline.manager import DataManager
from seline.operations.exports import Exporter
from seline.operations.packs import file_entry
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.command_line import Line, line_at
from tests.faults.test_damage import flip
from tests.integration.test_exports import entries
from tests.integration.test_operations import SettableClock
from tests.stores import open_managed

NAME = "user_profile.json"
PASSPHRASE = "correct horse battery staple"
KEY = new_key()


class Bot:
    """A volume whose exports go to `nas`, each a minute after the one before."""

    def __init__(self, folder: Path, sealer: Sealer, keep: int = 2) -> None:
        self._clock = SettableClock()
        self._clock.instant += timedelta(minutes=len(list(folder.glob("nas/*"))))
        self._store = open_managed(folder / "data", self._clock)
        self.data = DataManager(self._store)
        nas = Target(Folder("nas", str(folder / "nas")), keep, same_disk=True)
        self._exports = Exporter(self._store, [nas], version="1", sealer=sealer)

    async def export(self) -> str:
        self._clock.instant += timedelta(minutes=1)
        return await self._exports.run()

    async def close(self) -> None:
        await self._store.close()


WITH_KEY = AgeSealer(identities=[KEY.identity])


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    return tmp_path / "nas"


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """Yield a volume that encrypts for a recipient, and cannot decrypt."""
    bot = Bot(tmp_path, AgeSealer([KEY.recipient]))
    for number in range(3):
        await bot.data.save_json(NAME, {"userName": "Zoé", "n": number})
    await bot.data.save_json("list.json", [1, 2])
    yield bot
    await bot.close()


def newest(nas: Path) -> Path:
    found = find_export(str(nas))
    assert found is not None
    return Path(found)


async def test_only_the_identity_reads_an_encrypted_export(bot: Bot, nas: Path) -> None:
    await bot.export()
    folder = newest(nas)
    documents, manifest = read_export(str(folder), WITH_KEY)

    assert json.loads(documents[NAME]) == {"userName": "Zoé", "n": 2}
    assert [(item.name, len(item.backups)) for item in manifest.documents] == [
        ("list.json", 0), (NAME, 2),
    ]  # fmt: skip
    sealed = [LIST_NAME, MANIFEST_NAME, "pack-0001.tar.zst.age", SUMMARY_NAME]
    assert entries(folder) == sealed
    for sealer in (
        UNSEALED,
        AgeSealer([KEY.recipient]),
        AgeSealer(identities=[new_key().identity]),
        AgeSealer(passphrase=PASSPHRASE),
    ):
        with pytest.raises(KeyMissing):
            read_export(str(folder), sealer)


async def test_without_the_key_an_export_shows_no_name_and_no_content(
    tmp_path: Path, bot: Bot, nas: Path
) -> None:
    await bot.data.save_json("broken.json", {"lost": True})
    await bot.close()
    flip(tmp_path / "data" / "broken.json", 3)
    again = Bot(tmp_path, AgeSealer([KEY.recipient]))
    assert "it lacks broken.json" in await again.export()
    await again.close()

    files = {file.name: file.read_bytes() for file in newest(nas).iterdir()}
    for shown in (b"user_profile", b"list.json", b"broken", b"userName", "Zoé".encode()):
        assert not [name for name, data in files.items() if shown in data]
    manifest = decode_manifest(files[MANIFEST_NAME])
    assert (manifest.encrypted, manifest.documents, manifest.unrecoverable) == (True, (), ())
    assert read_export(str(newest(nas)), WITH_KEY)[1].unrecoverable == ("broken.json",)


async def test_the_next_export_is_written_only_after_a_change_in_any_process(
    tmp_path: Path, bot: Bot, nas: Path
) -> None:
    await bot.export()
    assert "nothing changed" in await bot.export()
    await bot.close()

    again = Bot(tmp_path, AgeSealer([KEY.recipient]))
    assert "nothing changed" in await again.export()
    await again.data.save_json(NAME, {"n": 9})
    assert "nothing changed" not in await again.export()
    assert len(entries(nas)) == 2
    await again.close()


@pytest.mark.parametrize("file", [LIST_NAME, "pack-0001.tar.zst.age"])
async def test_an_encrypted_export_that_was_altered_is_written_again(
    bot: Bot, nas: Path, file: str
) -> None:
    await bot.export()
    before = newest(nas)
    flip(before / file, 8 * 300)

    assert "nothing changed" not in await bot.export()
    read_export(str(newest(nas)), WITH_KEY)
    with pytest.raises(ExportDamaged):
        read_export(str(before), WITH_KEY)


async def test_an_encrypted_file_that_is_gone_or_of_another_kind_is_damage(
    bot: Bot, nas: Path
) -> None:
    await bot.export()
    folder = newest(nas)
    stored = (folder / MANIFEST_NAME).read_bytes()
    manifest = decode_manifest(stored)
    [listed] = manifest.files

    for files in ((), (replace(listed, name="../key"),)):
        (folder / MANIFEST_NAME).write_bytes(encode_manifest(replace(manifest, files=files)))
        with pytest.raises(ExportDamaged):
            read_export(str(folder), WITH_KEY)
    sealed = AgeSealer([KEY.recipient]).seal(b"neither zstd nor JSON")
    (folder / LIST_NAME).write_bytes(sealed)
    files = (file_entry(LIST_NAME, sealed),)
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(replace(manifest, files=files)))
    with pytest.raises(ExportDamaged, match="cannot be unpacked"):
        read_export(str(folder), WITH_KEY)
    (folder / MANIFEST_NAME).write_bytes(stored)
    (folder / LIST_NAME).unlink()
    with pytest.raises(ExportDamaged, match="is missing"):
        read_export(str(folder), WITH_KEY)


async def test_encryption_that_is_set_later_applies_to_the_next_export(
    tmp_path: Path, bot: Bot, nas: Path
) -> None:
    await bot.close()
    names: list[list[str]] = []
    for sealer in (UNSEALED, AgeSealer(passphrase=PASSPHRASE), UNSEALED):
        again = Bot(tmp_path, sealer)
        assert "nothing changed" not in await again.export()
        assert "nothing changed" in await again.export()
        names.append(entries(newest(nas)))
        documents, _ = read_export(str(newest(nas)), sealer)
        assert json.loads(documents[NAME]) == {"userName": "Zoé", "n": 2}
        await again.close()

    sealed = [LIST_NAME, MANIFEST_NAME, "pack-0001.tar.zst.age", KEY_NAME, SUMMARY_NAME]
    assert names == [[MANIFEST_NAME, "pack-0001.tar.zst"], sealed, names[0]]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("sealer", "kept"), [("recipient", 4), ("passphrase", 2)])
async def test_an_export_with_a_document_that_the_store_has_lost_is_kept(
    tmp_path: Path, nas: Path, sealer: str, kept: int
) -> None:
    """Where the documents cannot be listed, each export may be the one, and is kept."""
    sealing = AgeSealer([KEY.recipient] if kept == 4 else [], PASSPHRASE if kept == 2 else "")
    bot = Bot(tmp_path, sealing, keep=1)
    await bot.data.save_json(NAME, {"n": 1})
    await bot.export()
    holding = newest(nas)
    await bot.close()
    flip(tmp_path / "data" / NAME, 3)

    bot = Bot(tmp_path, sealing, keep=1)
    for number in range(3):
        await bot.data.save_json("other.json", [number])
        await bot.export()
    await bot.close()

    assert holding.name in entries(nas)
    assert len(entries(nas)) == kept


async def test_health_shows_what_the_encryption_is_worth(tmp_path: Path) -> None:
    shown: list[str] = []
    nas = [{"name": "nas", "url": f"file://{tmp_path}/nas", "same_disk": True}]
    for encryption in (
        {},
        {"exports__encrypt_to": [KEY.recipient]},
        {"exports__passphrase": PASSPHRASE},
    ):
        async with open_seline(tmp_path / "data", exports__destinations=nas, **encryption) as bot:
            await bot.load()
            checks = (await bot.health())["checks"]
            assert isinstance(checks, list)
            [check] = [
                item for item in checks if isinstance(item, dict) and item["name"] == "exports"
            ]
            shown.append(str(check["detail"]))

    assert "encrypted" not in shown[0]
    assert shown[1].endswith("encrypted: this service cannot read them")
    assert "encrypted with a passphrase" in shown[2]


# the command line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a command line whose exports go to `nas`."""
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "same_disk": True}
    return line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([nas]))


def exported(line: Line, **encryption: str) -> None:
    for value in ("[1]", "[2]"):
        assert line("save", "a.json", stdin=value).code == 0
    done = line("jobs", "run", "export", **encryption)
    assert done.code == 0, done.err
    assert line("delete", "a.json", "--purge", "--yes").code == 0


@pytest.mark.prove
def test_an_import_takes_the_file_that_key_new_wrote(line: Line) -> None:
    made = line("key", "new", "--output", "key.txt")
    recipient = made.out.strip()
    assert (line.folder / "key.txt").stat().st_mode & 0o777 == 0o600
    exported(line, SELINE_EXPORTS__ENCRYPT_TO=recipient)

    refused = line("import", "nas", "--yes")
    assert (refused.code, "the key for it is not here" in refused.err) == (8, True)
    line("key", "new", "--output", "other.txt")
    refused = line("import", "nas", "--yes", "--identity", "other.txt")
    assert (refused.code, "for another key than the one that was given" in refused.err) == (8, True)
    assert line("import", "nas", "--yes", "--identity", "key.txt").code == 0
    assert line("load", "a.json").value() == [2]


@pytest.mark.prove
def test_an_import_takes_the_passphrase_of_the_settings(line: Line) -> None:
    exported(line, SELINE_EXPORTS_PASSPHRASE=PASSPHRASE)

    wrong = line("import", "nas", "--yes", SELINE_EXPORTS_PASSPHRASE=f"{PASSPHRASE}s")
    assert wrong.code == 8
    assert line("import", "nas", "--yes", SELINE_EXPORTS_PASSPHRASE=PASSPHRASE).code == 0
    assert line("load", "a.json").value() == [2]


def test_a_key_is_shown_once_and_never_written_beside_the_data(line: Line) -> None:
    shown = line("key", "new")
    [identity] = re.findall("^AGE-SECRET-KEY-1[0-9A-Z]{58}$", shown.out, re.MULTILINE)
    [recipient] = re.findall("^# public key: (age1[0-9a-z]{58})$", shown.out, re.MULTILINE)
    sealed = AgeSealer([recipient]).seal(b"x")
    assert AgeSealer(identities=[identity]).open(sealed) == b"x"
    assert identity not in shown.err
    assert identity not in line("key", "new").out

    line.data.mkdir()
    for output in ("data/key.txt", "data/./../data/key.txt", str(line.data / "key.txt")):
        refused = line("key", "new", "--output", output)
        assert (refused.code, "in the data directory" in refused.err) == (2, True)
    (line.folder / "link").symlink_to("data")
    assert line("key", "new", "--output", "link/key.txt").code == 2
    done = subprocess.run(
        f"'{sys.executable}' -m seline key new > data/key.txt",
        shell=True, cwd=line.folder, env=dict(line.environ), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert [file.read_bytes() for file in line.data.iterdir()] == [b""], "the shell made it"

    (line.folder / "key.txt").write_text("another key")
    again = line("key", "new", "--output", "key.txt")
    assert (again.code, "never replaced" in again.err) == (2, True)
    assert (line.folder / "key.txt").read_text() == "another key"


def test_a_key_as_json(line: Line) -> None:
    shown = line("key", "new", "--json").value()
    assert set(shown) == {"created", "recipient", "identity"}
    written = line("key", "new", "--json", "--output", "key.txt").value()
    assert set(written) == {"created", "recipient", "file"}
    assert written["recipient"] in (line.folder / "key.txt").read_text()


def test_a_secret_where_a_recipient_belongs_is_refused_and_not_shown(line: Line) -> None:
    for name, value in (
        ("SELINE_EXPORTS__ENCRYPT_TO", KEY.identity),
        ("SELINE_EXPORTS__ENCRYPT_TO", f"{KEY.recipient[:-1]},{KEY.identity}"),
        ("SELINE_EXPORTS_PASSPHRASE", KEY.identity),
        ("SELINE_EXPORTS_PASSPHRASE", "too short"),
    ):
        refused = line("config", "show", **{name: value})
        assert refused.code == 2
        assert value not in refused.err
        assert KEY.identity not in refused.err
    shown = line("config", "show", SELINE_EXPORTS_PASSPHRASE=PASSPHRASE)
    assert (shown.code, PASSPHRASE in shown.out) == (0, False)


# by hand


@pytest.mark.prove
@pytest.mark.usefixtures("installed")
def test_age_tar_and_zstd_read_an_encrypted_export(line: Line) -> None:
    line("key", "new", "--output", "key.txt")
    recipient = line("key", "new", "--output", "key.txt.2").out.strip()
    exported(line, SELINE_EXPORTS__ENCRYPT_TO=recipient)
    folder = newest(line.folder / "nas")
    script = """
        for pack in "$1"/pack-*.tar.zst.age; do age -d -i key.txt.2 "$pack" | tar --zstd -x; done
        age -d -i key.txt.2 "$1"/documents.json.zst.age | zstd -d
    """

    done = subprocess.run(
        ["sh", "-ec", script, "sh", str(folder)],
        cwd=line.folder, capture_output=True, check=True,
    )  # fmt: skip

    assert json.loads((line.folder / "documents" / "a.json").read_bytes()) == [2]
    assert [item["name"] for item in json.loads(done.stdout)["documents"]] == ["a.json"]


async def test_an_export_for_another_key_is_written_though_nothing_changed(tmp_path: Path) -> None:
    first = Bot(tmp_path, AgeSealer([KEY.recipient]))
    await first.data.save_json(NAME, {"n": 1})
    await first.export()
    assert "nothing changed" in await first.export()
    await first.close()
    second = Bot(tmp_path, AgeSealer([new_key().recipient]))
    assert "nothing changed" not in await second.export()
    assert "nothing changed" in await second.export()
    await second.close()
