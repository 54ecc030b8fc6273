"""One suite for every document store: what the port promises, each backend keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline.domain.backup import Backup
from seline.domain.document import ABSENT, BOT, SELINE, Content, DocumentKey
from seline.domain.json_codec import decode, encode
from seline.domain.retention import RetentionPlan, RetentionPolicy, plan_retention
from seline.domain.verdict import Verdict
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    NotAnObject,
    RevisionMismatch,
    StoreClosed,
)
from seline.manager import changes
from seline.manager.encoding import Encoding
from seline.ports.store import Atom, Change, Current, Decision, DocumentStore, Leave, Put, Remove
from tests.clocks import FakeClock
from tests.contract.memory_store import MemoryStore
from tests.stores import open_store

KEY = DocumentKey(BOT, "user_profile.json")
OTHER = DocumentKey(BOT, "lessons_learned.json")
ENCODING = Encoding(document_bytes_max=1 << 20, depth_max=200)


@pytest.fixture(params=["memory", "volume"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[DocumentStore]:
    opened: DocumentStore
    if request.param == "memory":
        opened = MemoryStore(clock=clock)
    else:
        opened = open_store(tmp_path, clock, strict=True)
    yield opened
    opened.close()


def content(value: object) -> Content:
    return Content.of(encode(value))


def retain_five(backups: list[Backup], _current: str | None) -> RetentionPlan:
    return plan_retention(backups, RetentionPolicy())


def save(key: DocumentKey, value: object, **options: object) -> Change:
    decide = changes.save(content(value), **options)  # type: ignore[arg-type]
    return Change(key, decide, retain=retain_five)  # type: ignore[arg-type]


def put(store: DocumentStore, key: DocumentKey, value: object, **options: object) -> None:
    store.submit(Atom((save(key, value, **options),))).result(10)


def value_of(store: DocumentStore, key: DocumentKey) -> object:
    judged, _ = store.look(key)
    return None if judged.content is None else decode(judged.content.data)


def test_what_was_saved_is_read(store: DocumentStore) -> None:
    put(store, KEY, {"userName": "Alex"})
    assert value_of(store, KEY) == {"userName": "Alex"}
    assert store.peek(KEY) == content({"userName": "Alex"})


def test_a_document_that_does_not_exist_is_missing(store: DocumentStore) -> None:
    assert store.peek(KEY) is Verdict.MISSING
    assert store.look(KEY)[0].verdict is Verdict.MISSING
    with pytest.raises(DocumentNotFound):
        store.raw(KEY)


def test_the_content_before_becomes_the_newest_backup(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    put(store, KEY, {"n": 2})
    [backup] = store.backups(KEY)
    assert decode(store.read_backup(KEY, backup.name).content.data) == {"n": 1}  # type: ignore[union-attr]
    assert store.read_backup(KEY, backup.name).verdict is Verdict.SOUND


def test_backup_false_skips_only_the_backup(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    put(store, KEY, {"n": 2}, backup=False)
    assert list(store.backups(KEY)) == []
    assert value_of(store, KEY) == {"n": 2}


def test_equal_bytes_write_nothing(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    [outcome] = store.submit(Atom((save(KEY, {"n": 1}),))).result(10)
    assert not outcome.changed
    assert list(store.backups(KEY)) == []


def test_rotation_is_done_when_the_save_returns(store: DocumentStore) -> None:
    for number in range(9):
        put(store, KEY, {"n": number})
        assert len(store.backups(KEY)) <= 5
    kept = [decode(store.read_backup(KEY, b.name).content.data)["n"] for b in store.backups(KEY)]  # type: ignore[union-attr,index,call-overload]
    assert kept == [7, 6, 5, 4, 3]


def test_nine_saves_within_one_second_keep_five_backups_in_order(store: DocumentStore) -> None:
    for number in range(9):
        put(store, KEY, {"n": number})
    names = [backup.name for backup in store.backups(KEY)]
    assert names[0] == "user_profile_20250106_143022_07.json"


def test_a_clock_set_back_does_not_change_the_order(store: DocumentStore, clock: FakeClock) -> None:
    for number in range(4):
        put(store, KEY, {"n": number})
        clock.set_back(3600)
    kept = [decode(store.read_backup(KEY, b.name).content.data)["n"] for b in store.backups(KEY)]  # type: ignore[union-attr,index,call-overload]
    assert kept == [2, 1, 0]


def test_an_atom_changes_all_of_its_documents(store: DocumentStore) -> None:
    store.submit(Atom((save(KEY, {"a": 1}), save(OTHER, {"b": 2})))).result(10)
    assert value_of(store, KEY) == {"a": 1}
    assert value_of(store, OTHER) == {"b": 2}


def test_an_atom_with_one_refusal_changes_nothing(store: DocumentStore) -> None:
    put(store, KEY, {"a": 1})
    stale = save(OTHER, {"b": 2}, if_match="0" * 64)
    with pytest.raises(RevisionMismatch):
        store.submit(Atom((save(KEY, {"a": 9}), stale))).result(10)
    assert value_of(store, KEY) == {"a": 1}
    assert value_of(store, OTHER) is None


def test_absent_creates_only(store: DocumentStore) -> None:
    put(store, KEY, {"a": 1}, if_match=ABSENT)
    with pytest.raises(RevisionMismatch):
        put(store, KEY, {"a": 2}, if_match=ABSENT)


def test_a_refused_change_does_not_stop_the_others(store: DocumentStore) -> None:
    put(store, KEY, [1, 2])
    update = changes.update_field("x", 1, ENCODING)
    refused = store.submit(Atom((Change(KEY, update, retain=retain_five),)))  # type: ignore[arg-type]
    accepted = store.submit(Atom((save(OTHER, {"b": 2}),)))
    with pytest.raises(NotAnObject):
        refused.result(10)
    assert accepted.result(10)[0].changed


def test_a_delete_leaves_the_content_as_newest_backup(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    [outcome] = store.submit(
        Atom((Change(KEY, changes.delete(), retain=retain_five),))  # type: ignore[arg-type]
    ).result(10)
    assert store.peek(KEY) is Verdict.MISSING
    assert outcome.backup == store.backups(KEY)[0].name
    assert store.backup_counts(BOT) == {KEY.name: 1}


def test_a_purge_leaves_nothing(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    put(store, KEY, {"n": 2})
    store.submit(Atom((Change(KEY, lambda _: Remove(purge=True)),))).result(10)
    assert store.peek(KEY) is Verdict.MISSING
    assert list(store.backups(KEY)) == []


def test_concurrent_changes_of_one_document_lose_none(store: DocumentStore) -> None:
    def add(current: Current) -> Decision:
        value = decode(current.content.data) if current.content else {"n": 0}
        return Put(content=content({"n": value["n"] + 1}))  # type: ignore[index,call-overload]

    def work() -> None:
        for _ in range(20):
            store.submit(Atom((Change(KEY, add, retain=retain_five),))).result(20)  # type: ignore[arg-type]

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(store, KEY) == {"n": 160}


def test_order_of_submission_is_order_of_effect(store: DocumentStore) -> None:
    seen: list[int] = []

    def note(number: int) -> Change:
        def decide(_: Current) -> Decision:
            seen.append(number)
            return Leave()

        return Change(KEY, decide)

    futures = [store.submit(Atom((note(number),))) for number in range(50)]
    for future in futures:
        future.result(10)
    assert sorted(set(seen)) == list(range(50))
    assert [n for i, n in enumerate(seen) if n not in seen[:i]] == list(range(50))


def test_a_future_cannot_be_cancelled(store: DocumentStore) -> None:
    future = store.submit(Atom((save(KEY, {"n": 1}),)))
    future.cancel()
    assert future.result(10)[0].changed


def test_a_snapshot_holds_the_instant(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    put(store, OTHER, {"n": 2})
    with store.snapshot(BOT).result(10) as snapshot:
        put(store, KEY, {"n": 3})
        store.submit(Atom((Change(OTHER, changes.delete()),))).result(10)
        read = {name: decode(b"".join(snapshot.open(name))) for name in snapshot.names}
    assert read == {KEY.name: {"n": 1}, OTHER.name: {"n": 2}}


def test_the_same_name_of_another_space_is_another_document(store: DocumentStore) -> None:
    put(store, DocumentKey(SELINE, KEY.name), {"state": True})
    assert store.peek(KEY) is Verdict.MISSING
    assert store.documents(BOT) == []


def test_documents_are_listed_by_name(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    put(store, OTHER, {"n": 1})
    assert [info.name for info in store.documents(BOT)] == [OTHER.name, KEY.name]
    assert store.documents(BOT)[0].revision == content({"n": 1}).revision


def test_a_backup_that_is_not_there_is_not_found(store: DocumentStore) -> None:
    put(store, KEY, {"n": 1})
    with pytest.raises(BackupNotFound):
        store.read_backup(KEY, "user_profile_20200101_000000.json")


def test_documents_whose_names_start_alike_never_share_backups(store: DocumentStore) -> None:
    short = DocumentKey(BOT, "user.json")
    for number in range(3):
        put(store, short, {"n": number})
        put(store, KEY, {"profile": number})
    assert len(store.backups(short)) == len(store.backups(KEY)) == 2
    assert {backup.document for backup in store.backups(short)} == {"user.json"}


def test_watchers_hear_of_durable_changes_alone(store: DocumentStore) -> None:
    heard: list[str] = []
    stop = store.watch(lambda key, _outcome: heard.append(key.name))
    put(store, KEY, {"n": 1})
    put(store, KEY, {"n": 1})
    stop()
    put(store, KEY, {"n": 2})
    assert heard == [KEY.name]


def test_a_closed_store_says_so(store: DocumentStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.submit(Atom((save(KEY, {"n": 1}),)))
    with pytest.raises(StoreClosed):
        store.peek(KEY)
