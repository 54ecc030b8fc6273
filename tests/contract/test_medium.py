"""Test the `Medium` port: every store's medium passes the same tests."""

import pytest

from seline.domain.document import DocumentKey
from seline.domain.incident import Incident, IncidentKind
from seline.domain.json_codec import encode
from seline.domain.metadata import FIELDS
from seline.errors import DocumentNotFound
from seline.ports.medium import Medium
from seline.ports.store import Change, DocumentStore, Remove
from tests.contract.saving import content, put


def test_the_place_is_a_name_for_people(store: DocumentStore) -> None:
    assert store.medium.place


def test_usage_counts_documents_and_backups(store: DocumentStore, key: DocumentKey) -> None:
    before = store.medium.usage()
    put(store, key, {"n": 1, "filler": "x" * 5000})
    put(store, key, {"n": 2, "filler": "x" * 5000})
    store.backups(key)  # has what is only in a journal written
    after = store.medium.usage()
    assert after.documents_bytes - before.documents_bytes >= 5000
    assert after.backups_bytes - before.backups_bytes >= 5000
    assert 0 < after.available_bytes <= after.capacity_bytes


def test_backups_are_counted_by_space_deleted_documents_included(
    store: DocumentStore, key: DocumentKey, other: DocumentKey
) -> None:
    for number in range(3):
        put(store, key, {"n": number})
    put(store, other._replace(space="bob"), {"n": 1})
    assert store.medium.backup_count(key.space) == 2
    assert store.medium.backup_count("bob") == 0
    assert store.medium.backup_count("nobody") == 0


def test_the_reserve_exists_on_a_volume_with_room(store: DocumentStore) -> None:
    assert store.medium.has_reserve()


def test_a_medium_with_room_has_room_for_a_small_change(store: DocumentStore) -> None:
    assert store.medium.has_room_for(1)


def test_no_backup_of_the_store_is_foreign(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    assert store.medium.foreign_backup_count(key.space) == 0


def test_a_store_of_documents_alone_leaves_nothing_out(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    assert store.medium.left_out() == []


def test_an_available_medium_takes_writes_and_is_not_busy(store: DocumentStore) -> None:
    assert store.medium.unavailable() is None
    assert list(store.medium.unpublished()) == []
    assert store.medium.busy_s() == 0


def test_each_capability_says_what_it_means(store: DocumentStore) -> None:
    assert all(found.name and found.detail for found in store.medium.capabilities())


def test_durable_changes_are_counted(store: DocumentStore, key: DocumentKey) -> None:
    before = store.medium.counters().changes
    put(store, key, {"n": 1})
    put(store, key, {"n": 1})
    assert store.medium.counters().changes == before + 1


def test_a_store_without_damage_has_no_incident(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    assert list(store.medium.incidents()) == []


def test_a_refusal_that_never_was_does_not_last(store: DocumentStore) -> None:
    at = store.medium.held_since
    never = Incident(kind=IncidentKind.ACCESS_REFUSED, document="", at=at, summary="")
    assert not store.medium.lasts(never)


def test_pins_are_asked_for_only_before_shedding(store: DocumentStore, key: DocumentKey) -> None:
    asked: list[DocumentKey] = []
    store.medium.protect_pins(lambda key, backups: asked.append(key) or backups)
    put(store, key, {"n": 1})
    assert asked == []


def test_an_empty_quarantine_has_no_item(store: DocumentStore) -> None:
    assert list(store.medium.quarantine()) == []
    with pytest.raises(DocumentNotFound):
        store.medium.read_quarantine("user_profile_20250106_143022.json")
    with pytest.raises(DocumentNotFound):
        store.medium.read_quarantine("../user_profile.json")


def test_raw_bytes_are_the_documents(store: DocumentStore, key: DocumentKey) -> None:
    put(store, key, {"n": 1})
    assert store.medium.raw(key) == encode({"n": 1})
    with pytest.raises(DocumentNotFound):
        store.medium.raw(key._replace(name="missing.json"))


def test_a_rescue_returns_the_current_sound_content(store: DocumentStore, key: DocumentKey) -> None:
    assert store.medium.rescue(key) is None
    put(store, key, {"n": 1})
    assert store.medium.rescue(key) == content({"n": 1})


def test_memory_has_the_content_that_was_saved_last(store: DocumentStore, key: DocumentKey) -> None:
    assert not store.medium.remembers(key)
    put(store, key, {"n": 1})
    assert store.medium.remembers(key)


def test_what_seline_wrote_and_removed_is_not_changed_outside(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    assert list(store.medium.changed_outside()) == []
    store.submit((Change(key, lambda _current: Remove()),)).result()
    assert list(store.medium.changed_outside()) == []


def test_a_read_from_the_disk_finds_the_same_content(
    store: DocumentStore, key: DocumentKey
) -> None:
    put(store, key, {"n": 1})
    put(store, key, {"n": 2})
    [backup] = store.backups(key)
    store.medium.read_from_disk(key)
    store.medium.read_from_disk(key, backup.name)
    store.medium.read_from_disk(key._replace(space="nobody"))
    assert store.look(key)[0].content == content({"n": 2})
    assert store.read_backup(key, backup.name).content == content({"n": 1})


def test_a_report_is_read_as_it_was_written(store: DocumentStore) -> None:
    assert store.medium.read_report() is None
    for writes in (1, 2):
        report = encode(dict.fromkeys(FIELDS) | {"total_writes": writes})
        store.medium.write_report(report).result(10)
        assert store.medium.read_report() == report


def test_an_announcement_never_fails_and_changes_no_time(store: DocumentStore) -> None:
    since = store.medium.held_since
    store.medium.announce(address="http://127.0.0.1:8080")
    assert store.medium.held_since == since


def test_every_method_of_the_port_has_a_test() -> None:
    tested = {
        "place", "usage", "has_reserve", "backup_count", "protect_pins", "capabilities",
        "unavailable", "busy_s", "counters", "incidents", "quarantine", "read_quarantine", "raw",
        "rescue", "remembers", "read_from_disk", "write_report", "read_report", "announce",
        "foreign_backup_count", "has_room_for", "left_out", "changed_outside", "held_since",
        "lasts", "unpublished",
    }  # fmt: skip
    assert {name for name in vars(Medium) if not name.startswith("_")} == tested
