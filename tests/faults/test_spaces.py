"""Spaces: a third space has its own directories, recovery, quarantine and retention."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from seline.domain.backup import Backup
from seline.domain.document import BOT, SELINE, Content, DocumentKey, Revision
from seline.domain.json_codec import encode
from seline.domain.retention import RetentionPlan, RetentionPolicy, plan_retention
from seline.domain.verdict import Verdict
from seline.errors import TooManyDocuments, VolumeFailed, VolumeFull
from seline.manager import changes
from seline.ports.store import Atom, Change, Remove
from seline.storage.volume.store import VolumeStore
from tests.faults.forms import each_form_at_once
from tests.stores import open_store

pytestmark = each_form_at_once

KEY = DocumentKey("alice", "user_profile.json")
BOTS = DocumentKey(BOT, KEY.name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VolumeStore]:
    opened = open_store(tmp_path, strict=True, storage__settle_s=0.0)
    yield opened
    opened.close()


def save(store: VolumeStore, key: DocumentKey, value: object) -> None:
    content = Content.of(encode(value))
    store.submit(Atom((Change(key, changes.save(content), retain=retain),))).result(10)


def retain(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return plan_retention(backups, RetentionPolicy())


def value_of(store: VolumeStore, key: DocumentKey) -> object:
    content = store.look(key)[0].content
    return None if content is None else json.loads(content.data)


def flip(path: Path) -> bytes:
    """Change one byte and keep the mtime, as a failing disk does; return the broken bytes."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b'"n"') + 1] = ord("m")
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return bytes(data)


def test_a_space_has_readable_files_in_a_directory_of_its_own(
    store: VolumeStore, tmp_path: Path
) -> None:
    save(store, KEY, {"n": 1})
    save(store, KEY, {"n": 2})

    assert json.loads((tmp_path / "spaces/alice" / KEY.name).read_text()) == {"n": 2}
    [backup] = (tmp_path / "spaces/alice/backups").iterdir()
    assert json.loads(backup.read_text()) == {"n": 1}
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_volume_without_other_spaces_has_no_directory_for_them(
    store: VolumeStore, tmp_path: Path
) -> None:
    save(store, BOTS, {"n": 1})
    assert store.peek(KEY) is Verdict.MISSING
    assert list(store.backups(KEY)) == []

    assert not (tmp_path / "spaces").exists()


def test_the_next_opening_finds_the_spaces(store: VolumeStore, tmp_path: Path) -> None:
    save(store, KEY, {"n": 1})
    save(store, KEY, {"n": 2})
    store.close()

    again = open_store(tmp_path)

    assert value_of(again, KEY) == {"n": 2}
    assert [info.name for info in again.documents("alice")] == [KEY.name]
    assert len(again.backups(KEY)) == 1
    with again.snapshot("alice").result(10) as snapshot:
        assert json.loads(b"".join(snapshot.open(KEY.name))) == {"n": 2}
    again.close()


def test_a_broken_document_is_recovered_within_its_space(
    store: VolumeStore, tmp_path: Path
) -> None:
    for key in (KEY, BOTS):
        save(store, key, {"n": 1})
        save(store, key, {"n": 2})
    store.close()
    broken = flip(tmp_path / "spaces/alice" / KEY.name)

    again = open_store(tmp_path, storage__settle_s=0.0)
    [outcome] = again.submit(Atom((Change(KEY, changes.look),))).result(10)

    assert outcome.content == Content.of(encode({"n": 1}))
    [item] = again.medium.quarantine()
    assert item.document == "alice+user_profile.json"
    assert again.medium.read_quarantine(item.name) == broken
    assert value_of(again, BOTS) == {"n": 2}
    again.close()


def test_a_purge_erases_only_the_document_of_its_space(store: VolumeStore) -> None:
    keys = [DocumentKey(space, KEY.name) for space in (BOT, SELINE, "alice", "bob")]
    for key in keys:
        save(store, key, {"n": 1})
        save(store, key, {"n": 2})

    store.submit(Atom((Change(KEY, lambda _: Remove(purge=True)),))).result(10)

    assert [value_of(store, key) for key in keys] == [{"n": 2}, {"n": 2}, None, {"n": 2}]
    assert [len(store.backups(key)) for key in keys] == [1, 1, 0, 1]


def test_usage_and_the_limit_of_documents_cover_every_space(tmp_path: Path) -> None:
    store = open_store(tmp_path, storage__documents_max=2)
    save(store, KEY, {"n": 1})
    save(store, BOTS, {"n": 1})
    save(store, DocumentKey(SELINE, "state.json"), {"n": 1})

    with pytest.raises(TooManyDocuments, match="2 documents"):
        save(store, DocumentKey("bob", KEY.name), {"n": 1})
    store.close()

    again = open_store(tmp_path, storage__documents_max=2)
    assert again.medium.usage().documents_bytes == 2 * 4096
    with pytest.raises(TooManyDocuments, match="2 documents"):
        save(again, DocumentKey("bob", KEY.name), {"n": 1})
    again.close()


def test_old_backups_of_every_space_make_room(
    store: VolumeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (KEY, BOTS):
        for number in range(4):
            save(store, key, {"n": number})
    monkeypatch.setattr(store.medium.batches.disk_usage, "usage", lambda **_: _full(store))

    with pytest.raises(VolumeFull):
        save(store, DocumentKey(BOT, "more.json"), {"more": "x" * 5000})

    assert [len(store.backups(key)) for key in (KEY, BOTS)] == [1, 1]


def _full(store: VolumeStore) -> object:
    usage = type(store.medium.batches.disk_usage).usage(store.medium.batches.disk_usage)
    return replace(usage, capacity_bytes=100, used_bytes=100, available_bytes=0)


def test_foreign_files_in_spaces_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spaces/theirs").mkdir(parents=True)
    (tmp_path / "spaces/theirs/notes.json").write_text("{}")
    (tmp_path / "spaces/linked").symlink_to(tmp_path)
    store = open_store(tmp_path)
    assert store.documents("theirs") == []
    assert store.documents("linked") == []
    store.close()

    assert sorted(path.name for path in (tmp_path / "spaces/theirs").iterdir()) == ["notes.json"]


def test_a_file_named_spaces_refuses_other_spaces_only(tmp_path: Path) -> None:
    (tmp_path / "spaces").write_text("the bot's own file")
    store = open_store(tmp_path)
    save(store, BOTS, {"n": 1})

    with pytest.raises(VolumeFailed, match="spaces"):
        save(store, KEY, {"n": 1})

    save(store, BOTS, {"n": 2})
    store.close()
    assert (tmp_path / "spaces").read_text() == "the bot's own file"


def test_a_space_removed_by_hand_is_made_again(store: VolumeStore, tmp_path: Path) -> None:
    save(store, KEY, {"n": 1})
    shutil.rmtree(tmp_path / "spaces")

    save(store, KEY, {"n": 2})

    assert value_of(store, KEY) == {"n": 2}
    assert "remade" in [incident.kind for incident in store.medium.incidents()]
