"""Test the port `ObjectStore`: every kind of destination passes the same tests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline.errors import ExportFailed
from seline.ports.destinations import Listed, ObjectMissing, ObjectStore, ObjectTooLarge
from tests.destinations.kinds import KINDS, kinds

EXPORT = "seline-20250106T143022Z-1a2b3c4d"


@pytest.fixture(params=kinds())
async def unmade(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """Yield a destination that was not made yet."""
    async with KINDS[request.param].opened(tmp_path) as store:
        yield store


@pytest.fixture
async def store(unmade: ObjectStore) -> ObjectStore:
    await unmade.make()
    return unmade


async def test_an_object_is_returned_and_listed_as_it_was_put(store: ObjectStore) -> None:
    await store.put(f"{EXPORT}/manifest.json", b"{}")

    assert await store.get(f"{EXPORT}/manifest.json") == b"{}"
    assert await store.list(EXPORT) == [Listed("manifest.json", 2)]


async def test_a_listing_has_one_level(store: ObjectStore) -> None:
    await store.put("marker", b"1")
    await store.put("mirror/heads/1.json", b"12")
    await store.put("mirror/objects/0a/1.json.zst", b"123")

    assert sorted(await store.list("")) == [Listed("marker", 1), Listed("mirror", None)]
    assert sorted(await store.list("mirror")) == [Listed("heads", None), Listed("objects", None)]
    assert await store.list("mirror/objects/0a") == [Listed("1.json.zst", 3)]


async def test_an_object_is_replaced(store: ObjectStore) -> None:
    await store.put("heads/1.json", b"the first one, longer")
    await store.put("heads/1.json", b"the second one")

    assert await store.get("heads/1.json") == b"the second one"
    assert await store.list("heads") == [Listed("1.json", 14)]


@pytest.mark.parametrize("size_bytes", [0, 1, 3 << 20])
async def test_an_object_of_any_size_is_whole(store: ObjectStore, size_bytes: int) -> None:
    data = bytes(range(256)) * (size_bytes // 256) or b"x" * size_bytes
    await store.put("pack", data)

    assert await store.get("pack") == data
    assert await store.list("") == [Listed("pack", size_bytes)]


async def test_an_object_that_is_larger_than_the_caller_takes_is_refused(
    store: ObjectStore,
) -> None:
    await store.put("heads/1.json", b"x" * 70_000)

    assert len(await store.get("heads/1.json", bytes_max=70_000)) == 70_000
    with pytest.raises(ObjectTooLarge, match=r"heads/1\.json") as refused:
        await store.get("heads/1.json", bytes_max=69_999)
    assert "69,999 bytes" in refused.value.message
    assert "`seline exports list nas`" in refused.value.hint
    assert await store.list("heads") == [Listed("1.json", 70_000)], "the next call works"


async def test_a_key_has_every_character_that_is_allowed(store: ObjectStore) -> None:
    name = "AZ.az_09-" + "x" * 100
    await store.put(f"{name}/{name}", b"1")

    assert await store.list("") == [Listed(name, None)]
    assert await store.list(name) == [Listed(name, 1)]
    assert await store.get(f"{name}/{name}") == b"1"


async def test_what_does_not_exist_is_missing(store: ObjectStore) -> None:
    await store.put("heads/1.json", b"1")

    assert await store.list("no-folder") == []
    assert await store.list("heads/no-folder") == []
    for key in ("heads/2.json", "no-folder/1.json", "1.json"):
        with pytest.raises(ObjectMissing, match=key):
            await store.get(key)
        await store.remove(key)
    assert await store.list("heads") == [Listed("1.json", 1)]


async def test_a_removed_object_is_gone_and_its_neighbour_stays(store: ObjectStore) -> None:
    await store.put(f"{EXPORT}/a", b"1")
    await store.put(f"{EXPORT}/b", b"2")
    await store.remove(f"{EXPORT}/a")

    assert await store.list(EXPORT) == [Listed("b", 1)]
    with pytest.raises(ObjectMissing):
        await store.get(f"{EXPORT}/a")


async def test_a_folder_is_removed_once_it_is_empty(store: ObjectStore) -> None:
    await store.put("other/a", b"1")
    await store.put(f"{EXPORT}/a", b"1")
    await store.remove(EXPORT)
    assert await store.list(EXPORT) == [Listed("a", 1)], "it was not empty"
    await store.remove(f"{EXPORT}/a")
    await store.remove(EXPORT)

    assert await store.list("") == [Listed("other", None)]
    await store.put(f"{EXPORT}/a", b"1")
    assert await store.list(EXPORT) == [Listed("a", 1)]


async def test_an_object_that_exists_stays_if_it_may_not_be_replaced(store: ObjectStore) -> None:
    await store.put("marker", b"mine", replace=False)
    await store.put("marker", b"another", replace=False)

    assert await store.get("marker") == b"mine"
    assert await store.list("") == [Listed("marker", 4)]


async def test_one_of_several_markers_wins(store: ObjectStore) -> None:
    markers = [f"marker {number}".encode() for number in range(4)]
    await asyncio.gather(*(store.put("marker", marker, replace=False) for marker in markers))

    assert await store.get("marker") in markers
    assert await store.list("") == [Listed("marker", 8)]


async def test_one_of_several_writers_of_an_object_wins_as_a_whole(store: ObjectStore) -> None:
    contents = [bytes([number]) * 100_000 for number in range(6)]
    await asyncio.gather(*(store.put("heads/1.json", data) for data in contents))

    assert await store.get("heads/1.json") in contents
    assert await store.list("heads") == [Listed("1.json", 100_000)]


async def test_writers_make_the_same_new_folders_at_once(store: ObjectStore) -> None:
    keys = [f"mirror/objects/{number % 3}/{number}" for number in range(9)]
    await asyncio.gather(*(store.put(key, key.encode()) for key in keys))

    assert [await store.get(key) for key in keys] == [key.encode() for key in keys]


async def test_making_a_destination_again_keeps_what_it_holds(store: ObjectStore) -> None:
    await store.put("marker", b"1")
    await store.make()

    assert await store.list("") == [Listed("marker", 1)]


async def test_a_closed_destination_is_opened_again_by_the_next_call(store: ObjectStore) -> None:
    await store.put("marker", b"1")
    await store.close()

    assert await store.get("marker") == b"1"


async def test_a_new_object_does_not_make_the_destination(
    unmade: ObjectStore, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["unmade"]
    if not KINDS[kind].has_top:
        pytest.skip(f"{kind} is no folder")
    for key in ("marker", f"{EXPORT}/a"):
        with pytest.raises(ExportFailed):
            await unmade.put(key, b"1")
    assert await unmade.list("") == []
    with pytest.raises(ObjectMissing):
        await unmade.get("marker")
