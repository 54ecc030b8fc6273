"""The journal: one flush per save, a replay that loses nothing, and files that follow."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.domain.json_codec import encode
from seline.domain.shared_ends import shared_ends
from seline.errors import UnsupportedFormat
from seline.storage.volume import files
from seline.storage.volume.commit.staging import Staged, Staging
from seline.storage.volume.journal import pending
from seline.storage.volume.journal.codec import (
    BLOCK_BYTES,
    FIRST_BATCH_AT,
    Batch,
    Header,
    JournalChange,
    batches,
    change_of,
    decode_header,
    encode_batch,
    encode_header,
    has_gap,
)
from seline.storage.volume.journal.replaying import DocumentHistory
from tests.faults.injection import store_of

JOURNAL_BYTES = 256 << 10
NAMES = ("journal-a", "journal-b")
KILLED = """
import os, sys
from seline.blocking import open_seline
seline = open_seline(
    sys.argv[1], storage__journal_bytes=JOURNAL_BYTES, storage__publish_within_ms=int(sys.argv[2])
)
for number in range(40):
    seline.data.save_json(f"{number % 4}.json", {"n": number, "filler": "x" * 5000})
seline.data.save_json("secret.json", {"token": "hunter2" * 40})
os.kill(os.getpid(), 9)
""".replace("JOURNAL_BYTES", str(JOURNAL_BYTES))


def opened(
    directory: Path, journal_bytes: int = JOURNAL_BYTES, within_ms: int = 50, **settings: object
) -> Seline:
    """Open a volume with a journal."""
    return open_seline(
        directory, lock_wait_s=0, storage__journal_bytes=journal_bytes,
        storage__publish_within_ms=within_ms, storage__settle_s=0.01, **settings,
    )  # fmt: skip


@pytest.fixture
def killed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a volume whose process was killed with changes in the journal."""
    within_ms = getattr(request, "param", 10_000)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(within_ms)], check=False
    )
    assert done.returncode == -9
    (tmp_path / "killed" / ".seline" / "control.sock").unlink(missing_ok=True)
    return tmp_path / "killed"


def writing(seline: Seline) -> str:
    """Return what health shows about changes."""
    return next(str(one["detail"]) for one in seline.health()["checks"] if one["name"] == "writing")


def values(seline: Seline) -> dict[str, object]:
    """Return every document's value."""
    return {info.name: seline.data.load_json(info.name) for info in seline.data.documents()}


def bytes_of_journal(volume: Path) -> bytes:
    """Return what both files hold."""
    return b"".join((volume / ".seline" / name).read_bytes() for name in NAMES)


# the format


def test_a_batch_is_read_as_it_was_written_and_not_if_a_byte_of_it_changed() -> None:
    change = JournalChange(
        space="", name="a.json", at_ns=1, before=None, after="0" * 64, data=b"x" * 9000
    )
    written = encode_batch(Batch(changes=(change,)), epoch=7, number=1)
    data = bytearray(bytes(FIRST_BATCH_AT) + written)

    assert [read.batch.changes for read in batches(bytes(data), after_epoch=6)] == [(change,)]
    assert list(batches(bytes(data), after_epoch=7)) == []
    data[FIRST_BATCH_AT + 5000] ^= 1
    assert list(batches(bytes(data), after_epoch=6)) == []


def test_a_journal_that_ends_within_a_batch_is_read_up_to_it() -> None:
    change = JournalChange(
        space="", name="a.json", at_ns=1, before=None, after="0" * 64, data=b"x" * 5000
    )
    first, second = (encode_batch(Batch(changes=(change,)), epoch=1, number=n) for n in (1, 2))
    data = bytes(FIRST_BATCH_AT) + first + second

    for size in range(FIRST_BATCH_AT + len(first), FIRST_BATCH_AT + len(first) + 5000):
        assert [one.number for one in batches(data[:size], after_epoch=0)] == [1]


def test_a_batch_that_was_damaged_before_a_whole_one_is_noticed() -> None:
    change = JournalChange(space="", name="a.json", at_ns=1, before=None, after=None)
    batch = Batch(changes=(change,))
    blocks = [encode_batch(batch, epoch=1, number=number) for number in (4, 5, 6)]
    whole = bytes(FIRST_BATCH_AT) + b"".join(blocks)
    second = FIRST_BATCH_AT + BLOCK_BYTES
    damaged = whole[:second] + bytes(BLOCK_BYTES) + whole[second + BLOCK_BYTES :]

    assert not has_gap(list(batches(whole, after_epoch=0)))
    assert has_gap(list(batches(damaged, after_epoch=0)))
    assert has_gap(list(batches(whole, after_epoch=0)), 8)


def test_a_header_of_a_newer_format_is_refused() -> None:
    block = encode_header(Header(1, 2, is_clean=True))

    assert decode_header(block) == Header(1, 2, is_clean=True)
    assert decode_header(bytes(BLOCK_BYTES)) is None
    assert decode_header(block[:8] + b"\xff" + block[9:]) is None


def test_the_difference_of_two_contents_gives_the_later_one_back() -> None:
    chance = random.Random(1)
    for _ in range(500):
        before = chance.randbytes(chance.randint(0, 60))
        cut, end = sorted((chance.randint(0, len(before)), chance.randint(0, len(before))))
        after = before[:cut] + chance.randbytes(chance.randint(0, 9)) + before[end:]
        prefix, suffix = shared_ends(before, after)
        middle = after[prefix : len(after) - suffix]

        assert before[:prefix] + middle + before[len(before) - suffix :] == after


def test_a_change_of_a_part_is_journaled_as_that_part_of_the_content_before() -> None:
    """It is compared with the content that it was made from, or with an earlier one."""
    chance, key = random.Random(3), DocumentKey("", "a.json")
    contents = [Content.of(chance.randbytes(9000))]
    for number in range(300):
        at, size = chance.randrange(contents[-1].size_bytes - 600), chance.randint(0, 500)
        end, new = at + size, chance.randbytes(chance.randint(0, 2 * size))
        contents.append(contents[-1].spliced(at, end, new, 0))
        before = contents[-1 - chance.randint(1, min(3, number + 1))]

        change = change_of(key, before, contents[-1], number, with_image=True)

        history = DocumentHistory(change)
        history.add(change)
        assert history.content_of(contents[-1].revision) == contents[-1]
        assert contents[-1] == Content.of(contents[-1].data)
        if before is contents[-2]:
            assert len(change.data) <= len(new)


def test_of_a_part_that_hardly_changed_the_journal_has_what_changed() -> None:
    before = Content.of(b"[" + b"x" * 9000 + b"]")
    part = b"x" * 4000 + b"y" + b"x" * 3000
    after = before.spliced(1, 1 + len(part), part, 1)

    change = change_of(DocumentKey("", "a.json"), before, after, 1, with_image=False)

    assert (change.prefix, change.data) == (1 + 4000, b"y")


def test_every_version_of_a_large_document_is_made_from_the_few_that_are_held() -> None:
    chance = random.Random(2)
    contents = [Content.of(chance.randbytes(9000))]
    changes = list[JournalChange]()
    for number in range(300):
        data = contents[-1].data
        at, end = sorted(chance.choices(range(len(data)), k=2))
        contents.append(Content.of(data[:at] + chance.randbytes(9) + data[end:] + bytes(end - at)))
        key = DocumentKey("", "a.json")
        changes.append(change_of(key, *contents[-2:], number, with_image=number == 0))
    history = DocumentHistory(changes[0])
    for change in changes:
        history.add(change)

    assert all(history.content_of(content.revision) == content for content in contents)
    assert len(history.versions._whole) < 9
    assert set(history.versions.values()) == {content.data for content in contents}


# one flush, and the files


@pytest.mark.parametrize(
    ("size", "form"), [(64 << 10, "by a journal"), (0, "each change is synced in its files")]
)
def test_health_names_the_form_of_the_commit(tmp_path: Path, size: int, form: str) -> None:
    with opened(tmp_path, journal_bytes=size) as seline:
        assert writing(seline) == f"changes are taken ({form})"


def test_a_save_is_one_flush(tmp_path: Path) -> None:
    with opened(tmp_path, within_ms=10_000) as seline:
        seline.data.save_json("a.json", {"n": 0})
        before = files.flushes()
        for number in range(1, 11):
            seline.data.save_json("a.json", {"n": number})

        assert files.flushes() - before == 10


def test_a_change_of_a_large_document_takes_its_part_of_the_journal(tmp_path: Path) -> None:
    """Fifteen contents of 50 KB would fill a file of 256 KiB three times over."""
    with opened(tmp_path, within_ms=10_000) as seline:
        seline.data.save_json("a.json", {"n": 0, "items": ["x" * 50] * 800})
        seline.data.update_field("a.json", "n", 1)
        before = files.flushes()
        for number in range(2, 17):
            seline.data.update_field("a.json", "n", number)

        assert files.flushes() - before == 15


def test_the_backups_of_a_document_that_goes_on_changing_follow_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is written every other change, and its five backups once in a second."""
    now_s, written = [0.0], list[str]()

    def copy(self: Staging, staged: Staged, content: Content, backup: Backup) -> Staged:
        written.append(backup.name)
        return real(self, staged, content, backup)

    real = Staging.copy
    with opened(tmp_path) as seline:
        seline.data.save_json("a.json", {"n": 0})
        monkeypatch.setattr(Clock, "monotonic", lambda _: now_s[0])
        monkeypatch.setattr(Staging, "copy", copy)
        for number in range(1, 101):
            now_s[0] += 0.03
            seline.data.save_json("a.json", {"n": number})

        assert json.loads((tmp_path / "a.json").read_bytes())["n"] > 90
        assert len(written) <= 5 * 4
        assert [
            seline.data.read_backup("a.json", b.name) for b in seline.data.backups("a.json")
        ] == [{"n": number} for number in range(99, 94, -1)]


@pytest.mark.parametrize(("kept", "is_written"), [(3, False), (20, True)])
def test_the_versions_that_wait_for_their_files_take_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, is_written: bool
) -> None:
    """Above the bound those that retention drops are forgotten, then the others are written."""
    bound = 5 * 50_000
    monkeypatch.setattr(pending, "EARLIER_BYTES_MAX", bound)
    with opened(tmp_path, within_ms=10_000, backups__keep_newest=kept) as seline:
        for number in range(12):
            seline.data.save_json("a.json", {"n": number, "filler": "x" * 50_000})
            waiting = store_of(seline).batches.committer._pending.documents  # type: ignore[attr-defined]
            assert sum(document.earlier_bytes for document in waiting) <= bound + 51_000

        assert (tmp_path / "a.json").exists() == is_written
        names = [backup.name for backup in seline.data.backups("a.json")]
        versions = [seline.data.read_backup("a.json", name)["n"] for name in names]
        assert versions == list(range(10, -1, -1))[:kept]


def test_an_acknowledged_change_is_read_before_its_file_is_written(tmp_path: Path) -> None:
    with opened(tmp_path, within_ms=10_000) as seline:
        seline.data.save_json("a.json", {"n": 1})

        assert not (tmp_path / "a.json").exists()
        assert seline.data.load_json("a.json") == {"n": 1}
        assert [info.name for info in seline.data.documents()] == ["a.json"]
        assert (tmp_path / "a.json").read_bytes() == encode({"n": 1})


def test_a_clean_stop_leaves_every_file_written_and_nothing_to_replay(tmp_path: Path) -> None:
    with opened(tmp_path, within_ms=10_000) as seline:
        for number in range(8):
            seline.data.save_json("a.json", {"n": number})

    found = bytes_of_journal(tmp_path)
    headers = [decode_header(found[at : at + BLOCK_BYTES]) for at in (0, BLOCK_BYTES)]
    assert (tmp_path / "a.json").read_bytes() == encode({"n": 7})
    assert all(header is not None and header.is_clean for header in headers)
    assert len(list((tmp_path / "backups").iterdir())) == 5


def test_many_changes_fill_the_journal_and_are_all_there_after_a_kill(tmp_path: Path) -> None:
    body = KILLED.replace("range(40)", "range(400)")
    subprocess.run([sys.executable, "-c", body, str(tmp_path), "50"], check=False)

    with opened(tmp_path) as seline:
        assert [seline.data.load_json(f"{name}.json")["n"] for name in range(4)] == [
            396, 397, 398, 399,
        ]  # fmt: skip


def test_a_hand_edit_in_the_window_is_kept_as_a_backup(tmp_path: Path) -> None:
    with opened(tmp_path, within_ms=10_000) as seline:
        seline.data.save_json("a.json", {"n": 1})
        seline.data.documents()
        seline.data.save_json("a.json", {"n": 2})
        (tmp_path / "a.json").write_text('{"by": "hand"}')
        seline.data.documents()

        kept = [seline.data.read_backup("a.json", b.name) for b in seline.data.backups("a.json")]
        assert seline.data.load_json("a.json") == {"n": 2}
        assert {"by": "hand"} in kept
        assert {"n": 1} in kept


def test_a_purge_leaves_no_byte_in_the_journal(tmp_path: Path) -> None:
    with opened(tmp_path) as seline:
        seline.data.save_json("secret.json", {"token": "hunter2"})
        seline.data.save_json("a.json", {"n": 1})
        seline.data.delete("secret.json", purge=True)

        assert b"hunter2" not in bytes_of_journal(tmp_path)
        assert seline.data.load_json("a.json") == {"n": 1}


# after a kill


@pytest.mark.one_in(2)
@pytest.mark.parametrize("killed", [0, 10_000], indirect=True)
def test_a_replay_gives_the_same_each_time(killed: Path) -> None:
    again = shutil.copytree(killed, killed.with_name("again"))
    with opened(killed) as seline:
        first = values(seline), {n: seline.data.backups(n) for n in ("0.json", "3.json")}
    with opened(killed) as seline:
        second = values(seline), {n: seline.data.backups(n) for n in ("0.json", "3.json")}
    with opened(again, journal_bytes=0) as seline:
        third = values(seline)

    assert first == second
    assert third == first[0]
    assert first[0]["3.json"] == {"n": 39, "filler": "x" * 5000}
    assert "secret.json" in first[0]
    assert not (again / ".seline" / "journal-a").exists()


def test_random_damage_of_the_journal_is_never_served(killed: Path, tmp_path: Path) -> None:
    """Each document has one of the contents that were saved, or does not exist; nothing else."""
    chance = random.Random(5)
    saved = {f"{n % 4}.json": set[str]() for n in range(4)}
    for number in range(40):
        saved[f"{number % 4}.json"].add(str({"n": number, "filler": "x" * 5000}))
    for round_ in range(12):
        volume = shutil.copytree(killed, tmp_path / f"round-{round_}")
        path = volume / ".seline" / "journal-a"
        data = bytearray(path.read_bytes())
        for _ in range(3):
            data[chance.randrange(len(data) // 2)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with opened(volume) as seline:
            found = values(seline)
            for name, value in found.items():
                assert name == "secret.json" or str(value) in saved[name]
            seline.data.save_json("0.json", {"after": 1})


def test_a_document_that_a_person_wrote_after_the_kill_stays(killed: Path) -> None:
    (killed / "0.json").write_text('{"by": "hand"}')
    with opened(killed) as seline:
        assert seline.data.load_json("0.json") == {"by": "hand"}
        kept = [seline.data.read_backup("0.json", b.name) for b in seline.data.backups("0.json")]
        assert kept[0]["n"] == 36


# with and without


@pytest.mark.parametrize(("limit_mb", "sizes"), [(256, [8 << 20] * 2), (255, [])])
def test_a_volume_has_a_journal_by_default_unless_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_mb: int, sizes: list[int]
) -> None:
    monkeypatch.delenv("SELINE_STORAGE__JOURNAL_BYTES")
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=limit_mb) as seline:
        seline.data.save_json("a.json", {"n": 1})

        made = [path for name in NAMES if (path := tmp_path / ".seline" / name).exists()]
        assert [path.stat().st_size for path in made] == sizes
        assert (tmp_path / "a.json").exists() == (not sizes)


def test_an_older_seline_refuses_a_volume_with_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path):
        pass
    monkeypatch.setattr("seline.storage.volume.directory.VOLUME_FORMAT", 1)

    with pytest.raises(UnsupportedFormat, match="has format 2"):
        opened(tmp_path)


def test_a_volume_goes_back_to_the_first_form(tmp_path: Path) -> None:
    with opened(tmp_path) as seline:
        seline.data.save_json("a.json", {"n": 1})
    with opened(tmp_path, journal_bytes=0) as seline:
        assert seline.data.load_json("a.json") == {"n": 1}

    assert (tmp_path / ".seline" / "format").read_text() == "1\n"
    assert not [name for name in NAMES if (tmp_path / ".seline" / name).exists()]


def test_a_journal_that_cannot_be_made_is_reported_and_saves_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("seline.storage.volume.files.allocate", refused)
    with opened(tmp_path) as seline:
        seline.data.save_json("a.json", {"n": 1})

        assert (tmp_path / "a.json").read_bytes() == encode({"n": 1})
        assert "there is no journal: ENOSPC" in writing(seline)
