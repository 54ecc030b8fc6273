"""Test the `DocumentStore` port: every store passes the same tests, in two spaces."""

import threading
from collections.abc import Callable

import pytest

from seline.domain.document import ABSENT, BOT, SELINE, Content, DocumentKey
from seline.domain.json_codec import decode
from seline.domain.retention import RetentionPolicy
from seline.domain.verdict import Verdict
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    InvalidDocumentName,
    NotAnObject,
    RevisionMismatch,
    StoreClosed,
)
from seline.manager import changes
from seline.ports.store import (
    AddedBackup,
    Atom,
    Change,
    Current,
    Decision,
    DocumentStore,
    Leave,
    Put,
    Remove,
    keys_with_backups,
)
from seline.settings import Storage
from tests.clocks import FakeClock
from tests.contract.saving import content, drop_all, put, retain, retain_five, save, value_of

EARLIER = "user_profile_20240101_000000"
LIMITS = Storage(document_bytes_max=1 << 20, depth_max=200)


def test_what_was_saved_is_read(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"userName": "Alex"})
    assert value_of(store, key) == {"userName": "Alex"}
    assert store.peek(key) == content({"userName": "Alex"})


def test_a_document_that_does_not_exist_is_missing(store: DocumentStore, key: DocumentKey) -> None:
    assert store.peek(key) is Verdict.MISSING
    assert store.look(key)[0].verdict is Verdict.MISSING


def test_the_content_before_becomes_the_newest_backup(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    [backup] = store.backups(key)
    assert decode(store.read_backup(key, backup.name).content.data) == {"n": 1}  # type: ignore[union-attr]
    assert store.read_backup(key, backup.name).verdict is Verdict.SOUND


def test_backup_false_skips_only_the_backup(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2}, backup=False)
    assert list(store.backups(key)) == []
    assert value_of(store, key) == {"n": 2}


def test_equal_bytes_write_nothing(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    [outcome] = store.submit(Atom((save(key, {"n": 1}),))).result(10)
    assert not outcome.changed
    assert list(store.backups(key)) == []


def test_rotation_is_done_when_the_save_returns(store: DocumentStore, key: DocumentKey) -> None:
    for number in range(9):
        put(store, key, {"n": number})
        assert len(store.backups(key)) <= 5
    kept = [decode(store.read_backup(key, b.name).content.data)["n"] for b in store.backups(key)]  # type: ignore[union-attr,index,call-overload]
    assert kept == [7, 6, 5, 4, 3]


def test_nine_saves_within_one_second_keep_five_backups_in_order(
    store: DocumentStore, key: DocumentKey
) -> None:
    for number in range(9):
        put(store, key, {"n": number})
    names = [backup.name for backup in store.backups(key)]
    assert names[0] == "user_profile_20250106_143022_07.json"


def test_a_clock_set_back_does_not_change_the_order(
    store: DocumentStore, clock: FakeClock, key: DocumentKey
) -> None:
    for number in range(4):
        put(store, key, {"n": number})
        clock.set_back(3600)
    kept = [decode(store.read_backup(key, b.name).content.data)["n"] for b in store.backups(key)]  # type: ignore[union-attr,index,call-overload]
    assert kept == [2, 1, 0]


def test_an_atom_changes_all_of_its_documents(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    store.submit(Atom((save(key, {"a": 1}), save(other, {"b": 2})))).result(10)
    assert value_of(store, key) == {"a": 1}
    assert value_of(store, other) == {"b": 2}


def test_an_atom_with_one_refusal_changes_nothing(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    put(store, key, {"a": 1})
    stale = save(other, {"b": 2}, if_match="0" * 64)
    with pytest.raises(RevisionMismatch):
        store.submit(Atom((save(key, {"a": 9}), stale))).result(10)
    assert value_of(store, key) == {"a": 1}
    assert value_of(store, other) is None


def test_absent_creates_only(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"a": 1}, if_match=ABSENT)
    with pytest.raises(RevisionMismatch):
        put(store, key, {"a": 2}, if_match=ABSENT)


def test_a_refused_change_does_not_stop_the_others(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    put(store, key, [1, 2])
    update = changes.update_field("x", 1, LIMITS)
    refused = store.submit(Atom((Change(key, update, retain=retain_five),)))
    accepted = store.submit(Atom((save(other, {"b": 2}),)))
    with pytest.raises(NotAnObject):
        refused.result(10)
    assert accepted.result(10)[0].changed


def test_a_delete_leaves_the_content_as_newest_backup(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    [outcome] = store.submit(Atom((Change(key, changes.delete(), retain=retain_five),))).result(10)
    assert store.peek(key) is Verdict.MISSING
    assert outcome.backup == store.backups(key)[0].name
    assert list(store.documents(key.space)) == []
    [deleted] = store.documents(key.space, deleted=True)
    assert (deleted.name, deleted.verdict, deleted.backup_count) == (key.name, "missing", 1)
    assert deleted.updated_at == store.backups(key)[0].taken_at


def test_a_purge_leaves_nothing(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    store.submit(Atom((Change(key, lambda _: Remove(purge=True)),))).result(10)
    assert store.peek(key) is Verdict.MISSING
    assert list(store.backups(key)) == []


def test_concurrent_changes_of_one_document_lose_none(
    store: DocumentStore, key: DocumentKey
) -> None:
    def add(current: Current) -> Decision:
        value = decode(current.content.data) if current.content else {"n": 0}
        return Put(content=content({"n": value["n"] + 1}))  # type: ignore[index,call-overload]

    def work() -> None:
        for _ in range(20):
            store.submit(Atom((Change(key, add, retain=retain_five),))).result(20)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(store, key) == {"n": 160}


def test_order_of_submission_is_order_of_effect(store: DocumentStore, key: DocumentKey) -> None:
    seen: list[int] = []

    def note(number: int) -> Change:
        def decide(_: Current) -> Decision:
            seen.append(number)
            return Leave()

        return Change(key, decide)

    futures = [store.submit(Atom((note(number),))) for number in range(50)]
    for future in futures:
        future.result(10)
    assert sorted(set(seen)) == list(range(50))
    assert [n for i, n in enumerate(seen) if n not in seen[:i]] == list(range(50))


def test_a_future_cannot_be_cancelled(store: DocumentStore, key: DocumentKey) -> None:
    future = store.submit(Atom((save(key, {"n": 1}),)))
    future.cancel()
    assert future.result(10)[0].changed


def test_a_snapshot_holds_the_instant(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, other, {"n": 2})
    with store.snapshot(key.space).result(10) as snapshot:
        put(store, key, {"n": 3})
        store.submit(Atom((Change(other, changes.delete()),))).result(10)
        pieces = {name: b"".join(snapshot.open(name)) for name in snapshot.names}
        read = {name: snapshot.read(name) for name in snapshot.names}
    assert read == {name: Content.of(pieces[name]) for name in pieces}
    assert {name: decode(content.data) for name, content in read.items()} == {
        key.name: {"n": 1},
        other.name: {"n": 2},
    }


def test_a_snapshot_does_not_have_what_was_purged_since(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, other, {"n": 2})
    with store.snapshot(key.space).result(10) as snapshot:
        store.submit(Atom((Change(key, lambda _: Remove(purge=True)),))).result(10)
        put(store, key, {"n": "another one"})
        with pytest.raises(DocumentNotFound):
            snapshot.read(key.name)
        with pytest.raises(DocumentNotFound):
            snapshot.open(key.name)
        assert decode(snapshot.read(other.name).data) == {"n": 2}


@pytest.mark.parametrize("space", [SELINE, "bob"])
def test_the_same_name_in_another_space_is_another_document(
    store: DocumentStore, key: DocumentKey, space: str
) -> None:
    put(store, DocumentKey(space, key.name), {"state": True})
    assert store.peek(key) is Verdict.MISSING
    assert store.documents(key.space) == []


def test_an_atom_changes_documents_of_several_spaces(
    store: DocumentStore, key: DocumentKey
) -> None:
    keys = [DocumentKey(space, key.name) for space in (BOT, SELINE, "alice", "bob")]
    store.submit(Atom(tuple(save(one, {"in": one.space}) for one in keys))).result(10)
    assert [value_of(store, one) for one in keys] == [{"in": one.space} for one in keys]


def test_a_space_without_documents_is_empty(store: DocumentStore) -> None:
    nobody = DocumentKey("nobody", "user_profile.json")
    assert store.peek(nobody) is Verdict.MISSING
    assert list(store.backups(nobody)) == []
    assert list(store.documents("nobody")) == []
    with store.snapshot("nobody").result(10) as snapshot:
        assert list(snapshot.names) == []


@pytest.mark.parametrize("space", ["..", "a/b", ".hidden", "x" * 96, "a+b"])
def test_a_space_of_an_invalid_name_is_refused(store: DocumentStore, space: str) -> None:
    with pytest.raises(InvalidDocumentName):
        put(store, DocumentKey(space, "user_profile.json"), {"n": 1})


def test_documents_are_listed_by_name(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, other, {"n": 1})
    assert [info.name for info in store.documents(key.space)] == [other.name, key.name]
    assert store.documents(key.space)[0].revision == content({"n": 1}).revision


def test_a_backup_that_is_not_there_is_not_found(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    with pytest.raises(BackupNotFound):
        store.read_backup(key, "user_profile_20200101_000000.json")


def test_documents_whose_names_start_alike_never_share_backups(
    store: DocumentStore, key: DocumentKey
) -> None:
    short = DocumentKey(key.space, "user.json")
    for number in range(3):
        put(store, short, {"n": number})
        put(store, key, {"profile": number})
    assert len(store.backups(short)) == len(store.backups(key)) == 2
    assert {backup.document for backup in store.backups(short)} == {"user.json"}


def test_a_watcher_is_called_after_each_durable_change_until_it_is_stopped(
    store: DocumentStore, key: DocumentKey
) -> None:
    notified: list[str] = []
    stop = store.watch(lambda key, _outcome: notified.append(key.name))
    put(store, key, {"n": 1})
    put(store, key, {"n": 1})
    stop()
    put(store, key, {"n": 2})
    assert notified == [key.name]


def test_a_rotation_discards_what_the_plan_drops_and_returns_it(
    store: DocumentStore, key: DocumentKey
) -> None:
    for number in range(4):
        put(store, key, {"n": number})
    dropped = store.rotate(key, retain(RetentionPolicy(keep_newest=2))).result(10)
    assert len(dropped) == 1
    assert dropped[0].name not in {backup.name for backup in store.backups(key)}
    assert len(store.backups(key)) == 2


def test_a_rotation_keeps_the_newest_sound_backup(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    dropped = store.rotate(key, drop_all).result(10)
    assert list(dropped) == []
    assert len(store.backups(key)) == 1


def test_a_backup_is_added_under_its_name_unless_it_is_there(
    store: DocumentStore, key: DocumentKey
) -> None:
    added = [_added(key, EARLIER, 1), _added(key, EARLIER, 2), _added(key, EARLIER, 1)]
    put(store, key, {"n": 3})

    assert store.add_backups(added).result(10) == [True, True, False]
    assert store.add_backups(added[:2]).result(10) == [False, False]
    assert store.add_backups(()).result(10) == []

    kept = {backup.name: backup for backup in store.backups(key)}
    assert set(kept) == {f"{EARLIER}.json", f"{EARLIER}_01.json"}
    assert kept[f"{EARLIER}.json"].revision == content({"n": 1}).revision
    assert store.read_backup(key, f"{EARLIER}_01.json").content == content({"n": 2})
    assert value_of(store, key) == {"n": 3}


def test_an_added_backup_is_rotated_as_others_are(store: DocumentStore, key: DocumentKey) -> None:
    for number in range(3):
        put(store, key, {"n": number})
    store.add_backups([_added(key, EARLIER, 9)]).result(10)

    [dropped] = store.rotate(key, retain(RetentionPolicy(keep_newest=2))).result(10)

    assert dropped.name == f"{EARLIER}.json"


def test_a_backup_of_a_deleted_document_is_added(store: DocumentStore, key: DocumentKey) -> None:
    assert store.add_backups([_added(key, EARLIER, 1)]).result(10) == [True]
    assert [info.name for info in store.documents(key.space, deleted=True)] == [key.name]


@pytest.mark.parametrize("name", ["user_profile.json", "other_20240101_000000.json", "x", ""])
def test_another_name_than_a_backups_is_refused(
    store: DocumentStore, key: DocumentKey, name: str
) -> None:
    wrong = AddedBackup(key=key, name=name, content=content(1))
    with pytest.raises(InvalidDocumentName):
        store.add_backups([_added(key, EARLIER, 1), wrong]).result(10)


def test_the_instant_of_a_remembered_content_is_that_of_its_file(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    before = store.peek(key)
    assert isinstance(before, Content)
    assert store.remembered_at(key, before) == store.look(key)[1]

    put(store, key, {"n": 2})
    assert store.remembered_at(key, before) is None


def _added(key: DocumentKey, stem: str, number: int) -> AddedBackup:
    return AddedBackup(key=key, name=f"{stem}.json", content=content({"n": number}))


def test_every_document_with_backups_is_listed_once(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    for document in (key, other, key._replace(name="new.json")):
        put(store, document, {"n": 1})
    put(store, other, {"n": 2})
    store.submit(Atom((Change(key, changes.delete(), retain=retain_five),))).result(10)
    assert keys_with_backups(store, key.space) == [other, key]


CALLS: dict[str, Callable[[DocumentStore, DocumentKey], object]] = {
    "peek": lambda store, key: store.peek(key),
    "look": lambda store, key: store.look(key),
    "documents": lambda store, key: store.documents(key.space),
    "backups": lambda store, key: store.backups(key),
    "read_backup": lambda store, key: store.read_backup(key, f"{key.name[:-5]}_20250106_143022"),
    "submit": lambda store, key: store.submit(Atom((save(key, {"n": 1}),))),
    "rotate": lambda store, key: store.rotate(key, retain_five),
    "add_backups": lambda store, key: store.add_backups([_added(key, EARLIER, 1)]),
    "snapshot": lambda store, key: store.snapshot(key.space),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_store_refuses_every_call(
    store: DocumentStore, key: DocumentKey, call: str
) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        CALLS[call](store, key)


def test_every_method_of_the_port_is_tested_after_close() -> None:
    methods = {name for name in vars(DocumentStore) if not name.startswith("_")}
    assert methods == {*CALLS, "remembered_at", "medium", "watch", "close"}
