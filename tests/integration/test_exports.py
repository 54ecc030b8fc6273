"""Test export folders: complete or absent, verified, skipped when unchanged, imported again."""

import asyncio
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from seline import __version__, open_seline
from seline.domain.manifest import MANIFEST_NAME, decode_manifest, volume_of_export
from seline.errors import (
    ExportDamaged,
    ExportFailed,
    ImportRefused,
    SettingsError,
    UnsupportedFormat,
)
from seline.folders.export import find_export, import_body, read_export
from seline.library import Seline
from seline.manager import DataManager
from seline.operations.export_folders import MARKER_NAME, ExportFolders
from seline.operations.exports import Exporter
from seline.operations.own_exports import read_back
from seline.operations.packs import members_of
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from seline.settings import load_settings
from tests.command_line import Line, line_at, served
from tests.faults.test_damage import flip
from tests.integration.test_operations import SettableClock
from tests.stores import open_managed

NAME = "user_profile.json"


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path / "data") as opened:
        for number in range(3):
            await opened.data.save_json(NAME, {"userName": "Zoé", "n": number})
        await opened.data.save_json("list.json", [1, 2])
        yield opened


def exporting(seline: Seline, *folders: Path, keep: int = 7) -> Exporter:
    destinations = [
        Target(Folder(folder.name, str(folder)), keep, same_disk=True) for folder in folders
    ]
    return Exporter(seline.store, destinations, version=__version__)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MARKER_NAME)


async def next_second() -> None:
    """Wait until an export gets a new name, which contains the second."""
    await asyncio.sleep(1.01)


async def test_an_export_contains_documents_and_backups_and_can_be_read_back(
    seline: Seline, tmp_path: Path
) -> None:
    nas = tmp_path / "nas"
    detail = await exporting(seline, nas).run()
    [name] = entries(nas)
    assert name in detail
    manifest = await read_back(ExportFolders(Folder("nas", str(nas))), name)
    assert [(document.name, len(document.backups)) for document in manifest.documents] == [
        ("list.json", 0), (NAME, 2),
    ]  # fmt: skip
    [pack] = manifest.packs
    members = dict(members_of(pack, (nas / name / pack.name).read_bytes()))
    assert json.loads(members[f"documents/{NAME}"]) == {"userName": "Zoé", "n": 2}
    assert [
        json.loads(data)["n"] for member, data in sorted(members.items()) if "backups" in member
    ]
    assert entries(nas / name) == [MANIFEST_NAME, pack.name]
    assert (await seline.health())["export_age_s"] is not None


async def test_a_new_export_is_written_only_after_a_change(seline: Seline, tmp_path: Path) -> None:
    export = exporting(seline, tmp_path / "nas")
    await export.run()
    assert "nothing changed" in await export.run()
    await seline.data.save_json(NAME, {"n": 9})
    await next_second()
    await export.run()
    assert len(entries(tmp_path / "nas")) == 2


async def test_old_exports_are_deleted_and_foreign_folders_are_kept(
    seline: Seline, tmp_path: Path
) -> None:
    nas = tmp_path / "nas"
    foreign = {"photos", "seline-20200101T000000Z", "seline-20200101T000000Z-ffffffff"}
    for name in foreign:
        (nas / name).mkdir(parents=True)
    export = exporting(seline, nas, keep=1)
    await export.run()
    [first] = set(entries(nas)) - foreign
    leftover = nas / f"seline-20200101T000000Z-{volume_of_export(first)}"
    leftover.mkdir()
    await next_second()
    await seline.data.save_json(NAME, {"n": 1})
    await export.run()
    assert set(entries(nas)) > foreign
    assert len(entries(nas)) == len(foreign) + 1
    assert first not in entries(nas)
    assert not leftover.exists(), "a folder of this volume without a manifest is a leftover"


@pytest.mark.prove
async def test_two_volumes_in_one_folder_never_touch_each_others_exports(
    seline: Seline, tmp_path: Path
) -> None:
    """Both write at the same instant, keep one export each, and neither is taken for the other."""
    nas = tmp_path / "nas"
    async with open_seline(tmp_path / "other") as other:
        both = seline, other
        for number in range(3):
            for bot in both:
                await bot.data.save_json(
                    NAME, {"of": str(bot.store.settings.data_dir), "n": number}
                )
            await asyncio.gather(*(exporting(bot, nas, keep=1).run() for bot in both))
            await next_second()
    manifests = [
        await read_back(ExportFolders(Folder("nas", str(nas))), name) for name in entries(nas)
    ]
    assert {manifest.place for manifest in manifests} == {
        str(tmp_path / "data"), str(tmp_path / "other"),
    }  # fmt: skip
    assert [manifest.sequence for manifest in manifests] == [3, 3]
    with pytest.raises(ImportRefused, match="exports of 2 volumes") as refused:
        find_export(str(nas))
    assert all(manifest.place in refused.value.message for manifest in manifests)
    for manifest in manifests:  # the next step that the error names
        assert find_export(str(nas / manifest.name)) == str(nas / manifest.name)
        body = import_body(read_export(str(nas / manifest.name))[0])
        assert json.loads(body)["files"][NAME] == {"of": manifest.place, "n": 2}


async def test_the_export_written_last_is_the_last_one_under_any_clock(tmp_path: Path) -> None:
    clock = SettableClock()
    store, nas = open_managed(tmp_path / "data", clock), tmp_path / "nas"
    export = Exporter(store, [Target(Folder("nas", str(nas)), 3)], version=__version__)
    for number, days in enumerate((0, 31, -30, 0, 0, 0)):
        clock.instant += timedelta(days=days, hours=1)
        await DataManager(store).save_json(NAME, {"n": number})
        await export.run()
        last = find_export(str(nas))
        assert last is not None
        assert json.loads(read_export(last)[0][NAME]) == {"n": number}
    assert len(entries(nas)) == 3
    assert max(entries(nas)) == Path(last).name, "the export from the future has been rotated"
    await store.close()


async def test_a_pack_that_is_lost_when_the_manifest_is_written_fails_the_export(
    seline: Seline, tmp_path: Path
) -> None:
    class LosesPacks(Folder):
        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            await super().put(key, data, replace=replace)
            if key.endswith(MANIFEST_NAME):
                (tmp_path / "nas" / key).with_name("pack-0001.tar.zst").unlink()

    target = LosesPacks("nas", str(tmp_path / "nas"))
    with pytest.raises(ExportFailed, match="pack-0001"):
        await Exporter(seline.store, [Target(target, 7)], version=__version__).run()
    assert entries(tmp_path / "nas") == [], "an export that fails verification is deleted"


async def test_a_failing_destination_does_not_stop_the_others(
    seline: Seline, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(ExportFailed, match="broken"):
        await exporting(seline, tmp_path / "file" / "broken", tmp_path / "nas").run()
    assert len(entries(tmp_path / "nas")) == 1


async def test_a_destination_that_loses_bytes_fails_the_export(
    seline: Seline, tmp_path: Path
) -> None:
    class Lossy(Folder):
        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            await super().put(key, data[:-1], replace=replace)

    lossy = Target(Lossy("lossy", str(tmp_path / "nas")), 7)
    export = Exporter(seline.store, [lossy], version=__version__)
    with pytest.raises(ExportFailed, match="does not give"):
        await export.run()
    assert entries(tmp_path / "nas") == [], "an export that fails verification is deleted"


async def test_an_interrupted_export_is_ignored_and_deleted_later(
    seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Folder):
        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            if key.endswith(MANIFEST_NAME):
                raise asyncio.CancelledError
            await super().put(key, data, replace=replace)

    nas = tmp_path / "nas"
    export = Exporter(seline.store, [Target(Interrupted("nas", str(nas)), 7)], version=__version__)
    with pytest.raises(asyncio.CancelledError):
        await export.run()
    target = ExportFolders(Folder("nas", str(nas)))
    assert (list(await target.complete()), len(await target.leftovers())) == ([], 1)
    await next_second()
    await exporting(seline, nas).run()
    assert (len(await target.complete()), len(await target.leftovers())) == (1, 1), (
        "the other export may still be running"
    )
    monkeypatch.setattr("seline.operations.own_exports.LEFT_BEHIND_AFTER", timedelta(0))
    await exporting(seline, nas).run()
    assert (len(await target.complete()), list(await target.leftovers())) == (1, [])


@pytest.mark.usefixtures("files_at_once")
async def test_an_export_names_the_broken_document_that_it_lacks(
    seline: Seline, tmp_path: Path
) -> None:
    await seline.data.save_json("bad.json", {"n": 1}, backup=False)
    path = tmp_path / "data" / "bad.json"
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seline.store.opened.current_documents.inspector.cache.clear()  # type: ignore[union-attr]
    assert "it lacks bad.json" in await exporting(seline, tmp_path / "nas").run()


@pytest.mark.prove
def test_an_export_names_what_it_took_from_a_backup_and_from_when(line: Line) -> None:
    flip(line.data / NAME, 3)
    taken = line("backups", NAME, "--json").value()["backups"][0]
    when = f"is from its backup of {taken['taken_at'][:19].replace('T', ' ')} UTC"
    path = line.data / NAME
    broken, mtime_ns = path.read_bytes(), path.stat().st_mtime_ns
    attribute = os.getxattr(path, "user.seline")

    def again() -> None:
        """Break it again: the export before has recovered it."""
        path.write_bytes(broken)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        os.setxattr(path, "user.seline", attribute)

    nas = line.folder / "nas"
    table = json.dumps([{"name": "nas", "url": f"file://{nas}"}])
    assert when in line("jobs", "run", "export", SELINE_EXPORTS__DESTINATIONS=table).out
    [export] = [path for path in nas.iterdir() if path.is_dir()]
    manifest = decode_manifest((export / MANIFEST_NAME).read_bytes())
    assert manifest.from_backups == {NAME: taken["name"]}
    assert when in line("import", str(export), "--dry-run").err
    again()
    assert when in line("export", "folder/").err
    again()
    ran = line("export")
    assert when in ran.err
    assert ran.value()["data"]["from_backups"] == {NAME: taken["name"]}
    assert line("import", "-", "--yes", stdin=ran.out).code == 0


@pytest.mark.prove
async def test_large_documents_fill_several_packs_of_bounded_size(
    seline: Seline, tmp_path: Path
) -> None:
    for number in range(3):
        await seline.data.save_json(f"big{number}.json", os.urandom(5 << 20).hex(), backup=False)
    await exporting(seline, tmp_path / "nas").run()
    [name] = entries(tmp_path / "nas")
    manifest = decode_manifest((tmp_path / "nas" / name / MANIFEST_NAME).read_bytes())
    assert len(manifest.packs) > 1
    assert all(pack.size_bytes <= 16 << 20 for pack in manifest.packs)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = line_at(tmp_path)
    for number in range(3):
        assert line("save", NAME, stdin=json.dumps({"n": number, "é": "è"})).code == 0
    return line


@pytest.mark.one_in(2)
@pytest.mark.parametrize("with_server", [False, True])
def test_an_export_folder_is_written_and_imported_again(line: Line, with_server: bool) -> None:
    if with_server:
        with served(line):
            ran = line("export", "out")
    else:
        ran = line("export", "out/")
    assert ran.code == 0, ran.err
    assert "1 document, 2 backups" in ran.err
    folder = ran.out.strip()
    assert line("save", NAME, stdin='{"n": "later"}').code == 0
    for source in (folder, "out"):
        ran = line("import", source, "--yes")
        assert ran.code == 0
        assert f"at {line.data}:" in ran.err, "it says whose the export is"
        assert "ANOTHER" not in ran.err
        assert line("load", NAME).value() == {"n": 2, "é": "è"}
        assert line("save", NAME, stdin='{"n": "again"}').code == 0
    unpacked = subprocess.run(
        ["tar", "--zstd", "-tf", "pack-0001.tar.zst"],
        cwd=line.folder / folder,
        check=False,
        capture_output=True,
    )
    assert unpacked.returncode != 0 or f"documents/{NAME}".encode() in unpacked.stdout


@pytest.mark.prove
def test_an_export_folder_names_the_deleted_documents_whose_backups_it_lacks(line: Line) -> None:
    for name in ("gone.json", "kept.json"):
        for value in ("1", "2"):
            line("save", name, stdin=value)
    line("delete", "gone.json", "--yes")

    done = line("export", "out")

    assert done.code == 0, done.err
    assert "has every document and was read back: 2 documents, 3 backups." in done.err
    assert "Not in the export: 2 backups of deleted documents: gone.json." in done.err
    line("delete", "gone.json", "--purge", "--yes")
    assert "deleted documents" not in line("export", "again").err


@pytest.mark.prove
@pytest.mark.parametrize("exported", [False, True], ids=["new", "exported"])
def test_the_export_of_another_volume_is_imported_only_on_request(
    line: Line, tmp_path: Path, exported: bool
) -> None:
    (tmp_path / "b").mkdir()
    other = line_at(tmp_path / "b")
    assert other("save", NAME, stdin='"of the other"').code == 0
    folder = f"b/{other('export', 'out/').out.strip()}"
    volume = volume_of_export(Path(folder).name)
    if exported:
        line("export", "out/")
    own = (line.data / ".seline/volume.json").exists()
    for arguments, code in (("--dry-run", 0), ("--json", 2)):
        ran = line("import", folder, arguments)
        assert ran.code == code
        assert "ANOTHER volume" in ran.err
        assert f"of the volume {volume} at {other.data}" in ran.err
    with served(line) as server:
        url, body = f"{server.url}/api/v1/data-admin/import", {"files": {NAME: 1}}
        head = {"Authorization": f"Bearer {line('token', 'create').out.strip()}"}
        answers = [
            requested(f"{url}?volume={volume}{more}", body, head)
            for more in ("", "&foreign=false", "&dry_run=true", f"&volume={volume}")
        ]
    assert [status for status, _ in answers] == [422, 422, 200, 422]
    assert answers[0][1]["code"] == "import_refused"
    assert volume in answers[0][1]["detail"]
    assert answers[2][1]["foreign"] is True
    assert line("load", NAME).value()["n"] == 2
    assert (line.data / ".seline/volume.json").exists() is own, "a refusal writes nothing"
    assert line("import", folder, "--yes").code == 0
    assert line("load", NAME).value() == "of the other"


def requested(url: str, body: object, headers: dict[str, str]) -> tuple[int, Any]:
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_damaged_export_is_refused_and_changes_nothing(line: Line) -> None:
    folder = line("export", "out/").out.strip()
    pack = line.folder / folder / "pack-0001.tar.zst"
    intact = pack.read_bytes()
    flip(pack, 300)
    ran = line("import", folder, "--yes")
    assert (ran.code, "pack-0001.tar.zst" in ran.err) == (3, True)
    pack.unlink()
    assert "is missing" in line("import", folder, "--yes").err
    pack.write_bytes(intact)
    manifest = line.folder / folder / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("pack-0001", "../pack"))
    assert line("import", folder, "--yes").code == 3
    assert line("load", NAME).value()["n"] == 2


def test_a_newer_or_broken_manifest_is_refused() -> None:
    with pytest.raises(UnsupportedFormat):
        decode_manifest(b'{"format": 2, "what": "ever"}')
    for broken in (b"", b"{}", b'{"format": 1}', b"[]", b'{"a": "\xff"}'):
        with pytest.raises(ExportDamaged):
            decode_manifest(broken)


@pytest.mark.parametrize(
    "value",
    [
        '[{"name": "x", "url": "gopher://bucket"}]',
        '[{"name": "x", "url": "file://host/path"}]',
        '[{"name": "x", "url": "file:///x", "encrypt_to": "age1…"}]',
        '[{"name": "x", "url": "file:///x"}, {"name": "x", "url": "file:///y"}]',
        '[{"name": "", "url": "file:///x"}]',
        '[{"name": "x", "url": "file:///x", "keep": 0}]',
        '{"name": "x"}',
        "nonsense",
    ],
)
def test_an_invalid_destination_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"exports\.destinations"):
        load_settings(environ={"SELINE_EXPORTS__DESTINATIONS": value})


def test_a_destination_inside_the_volume_is_refused(tmp_path: Path) -> None:
    value = json.dumps([{"name": "x", "url": f"file://{tmp_path}/data/exports"}])
    with pytest.raises(SettingsError, match="inside the data directory"):
        load_settings(
            environ={
                "SELINE_EXPORTS__DESTINATIONS": value, "SELINE_DATA_DIR": f"{tmp_path}/data",
            }
        )  # fmt: skip
