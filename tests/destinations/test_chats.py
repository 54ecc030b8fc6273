"""Test chats as destinations: what their services refuse, ask for, and what people do in a chat."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from seline import open_seline
from seline.errors import ExportFailed, SettingsError
from seline.folders.export import find_export, read_export
from seline.operations.copies import Copies
from seline.outbound.destinations import chat, chat_requests
from seline.outbound.destinations.discord import Discord
from seline.outbound.destinations.telegram import Telegram
from seline.outbound.sealing import AgeSealer
from seline.ports.destinations import Listed, ObjectMissing, ObjectStore
from seline.ports.sealing import UNSEALED
from tests.destinations import chat_server as chats
from tests.destinations.chat_server import ChatServer, chat_server
from tests.destinations.failing import failure
from tests.destinations.kinds import built, chat_table

TOKENS = {"telegram": chats.TELEGRAM_TOKEN, "discord": chats.DISCORD_TOKEN}
SENDING = {"telegram": "sendDocument", "discord": "POST messages"}
EDITING = {"telegram": "editMessageMedia", "discord": "PATCH message"}
FETCHING = {"telegram": "getFile", "discord": "GET message"}
EXPORT = "seline-20250106T143022Z-1a2b3c4d"


class ChatOf(NamedTuple):
    """A chat of one service, at the stand-in."""

    kind: str
    server: ChatServer
    opened: list[ObjectStore]

    def store(self, **options: Any) -> ObjectStore:
        """Return the destination as a new process opens it, from its settings alone."""
        store = built(chat_table(self.kind, self.server.url, **options))
        self.opened.append(store)
        return store

    async def failure(self, doing: Any) -> ExportFailed:
        """Return the error of a call, which shows no token."""
        return await failure(doing, TOKENS[self.kind])


async def opened(kind: str) -> AsyncIterator[ChatOf]:
    async with chat_server() as server:
        stores: list[ObjectStore] = []
        yield ChatOf(kind, server, stores)
        for store in stores:
            await store.close()


@pytest.fixture(params=["telegram", "discord"])
async def at(request: pytest.FixtureRequest) -> AsyncIterator[ChatOf]:
    async for found in opened(request.param):
        yield found


@pytest.fixture
async def telegram() -> AsyncIterator[ChatOf]:
    async for found in opened("telegram"):
        yield found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files of 1,000 bytes at most."""
    for service in (Telegram, Discord):
        monkeypatch.setattr(service, "file_bytes_max", 1000)


def times(number: int, answer: Callable[[], web.Response], method: str) -> chats.Fault:
    """Answer the next requests of a method in the place of the service."""
    left = number

    def fault(asked: str) -> web.Response | None:
        nonlocal left
        if asked != method or not left:
            return None
        left -= 1
        return answer()

    return fault


def slower(seconds: float) -> web.Response:
    """Ask for a wait, as both services do."""
    body = {"ok": False, "parameters": {"retry_after": seconds}, "retry_after": seconds}
    return web.json_response(body, status=429)


# objects


async def test_an_empty_volume_finds_what_another_process_has_sent(at: ChatOf) -> None:
    await at.store().put(f"{EXPORT}/pack-0001.tar.zst.age", b"sealed")
    await at.store().put("seline-destination", b"1a2b3c4d")

    store = at.store()
    assert sorted(await store.list("")) == [Listed(EXPORT, None), Listed("seline-destination", 8)]
    assert await store.get(f"{EXPORT}/pack-0001.tar.zst.age") == b"sealed"


@pytest.mark.usefixtures("small")
async def test_a_large_object_is_sent_in_parts_that_a_person_can_join(at: ChatOf) -> None:
    data = bytes(range(250)) * 9
    await at.store().put(f"{EXPORT}/pack-0001.tar.zst.age", data)

    assert await at.store().get(f"{EXPORT}/pack-0001.tar.zst.age") == data
    parts = [message for message in at.server.messages.values() if ".part" in message.name]
    assert [message.name for message in parts] == [
        f"{EXPORT}_pack-0001.tar.zst.age.part{number}of3" for number in (1, 2, 3)
    ]
    assert b"".join(message.data for message in parts) == data
    assert "part 2 of 3" in parts[1].text
    assert EXPORT in parts[1].text


@pytest.mark.usefixtures("small")
async def test_an_object_of_which_one_part_fails_is_absent(at: ChatOf) -> None:
    store = at.store()
    await store.put("marker", b"1")
    sent = 0

    def third(method: str) -> web.Response | None:
        nonlocal sent
        if method != SENDING[at.kind]:
            return None
        sent += 1
        return chats.refused(400, "Bad Request") if sent == 3 else None

    at.server.fault = third
    await at.failure(store.put("pack", b"x" * 2500))
    at.server.fault = None

    for each in (store, at.store()):
        assert await each.list("") == [Listed("marker", 1)]
    assert sorted(at.server.names) == ["marker", chat.INDEX_NAME], "the parts are deleted"


async def test_an_object_whose_last_answer_was_lost_is_whole_or_absent(at: ChatOf) -> None:
    store = at.store()
    await store.put("marker", b"old")
    for method in (SENDING[at.kind], EDITING[at.kind]):
        at.server.loses = method
        await at.failure(store.put("marker", b"the new one"))
        for each in (store, at.store()):
            [listed] = await each.list("")
            assert len(await each.get("marker")) == listed.size_bytes

    await store.put("marker", b"newer")
    assert await at.store().get("marker") == b"newer"


async def test_a_replaced_and_a_removed_object_leave_no_file(at: ChatOf) -> None:
    store = at.store()
    await store.put("a", b"1")
    await store.put("a", b"22")
    await store.put("b", b"3")
    await store.remove("b")

    assert sorted(at.server.names) == ["a", chat.INDEX_NAME]
    assert await at.store().list("") == [Listed("a", 2)]


async def test_telegram_deletes_no_old_message_so_its_file_is_replaced(telegram: ChatOf) -> None:
    store = telegram.store()
    await store.put("a", b"an old copy")
    telegram.server.now += 49 * 3600
    await store.remove("a")

    assert await telegram.store().list("") == []
    assert sorted(telegram.server.names) == ["removed.txt", chat.INDEX_NAME]
    assert not any(b"copy" in message.data for message in telegram.server.messages.values())


async def test_a_file_that_was_altered_or_deleted_is_not_returned(at: ChatOf) -> None:
    store = at.store()
    await store.put("pack", b"sealed")
    [message] = [message for message in at.server.messages.values() if message.name == "pack"]
    message.data = b"Sealed"
    assert "as it was sent" in (await at.failure(store.get("pack"))).message

    del at.server.messages[message.id]
    assert "is gone from" in (await at.failure(store.get("pack"))).message
    await store.put("pack", b"sealed again")
    assert await at.store().get("pack") == b"sealed again"


# waits and failures


async def test_the_wait_that_a_service_asks_for_is_obeyed(at: ChatOf) -> None:
    loop = asyncio.get_running_loop()
    at.server.fault = times(2, lambda: slower(0.15), SENDING[at.kind])
    before = loop.time()
    await at.store().put("a", b"1")

    assert loop.time() - before >= 0.3
    assert at.server.requests.count(SENDING[at.kind]) == 4, "two refused, the file, the index"


async def test_a_wait_beyond_the_limit_fails_at_once(at: ChatOf) -> None:
    at.server.fault = times(1, lambda: slower(3600), SENDING[at.kind])

    error = await at.failure(at.store(timeout_s=5).put("a", b"1"))
    assert "it asks to wait 3600 s" in error.message
    await at.store().put("a", b"1")


async def test_a_service_that_always_asks_to_wait_ends_with_the_limit(at: ChatOf) -> None:
    at.server.fault = times(10_000, lambda: slower(0.05), SENDING[at.kind])

    assert "took over 1 s" in (await at.failure(at.store(timeout_s=1).put("a", b"1"))).message


async def test_a_service_that_fails_a_moment_is_asked_again(
    at: ChatOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_requests, "BACKOFF_S", 0.01)
    at.server.fault = times(2, lambda: web.Response(status=502), SENDING[at.kind])
    await at.store().put("a", b"1")
    assert await at.store().get("a") == b"1"

    at.server.fault = times(10, lambda: web.Response(status=500), SENDING[at.kind])
    assert "it answered 500" in (await at.failure(at.store().put("b", b"1"))).message
    assert await at.store().list("") == [Listed("a", 1)]


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"<html>", b'{"result": 1, "items": 2}'])
async def test_an_answer_of_another_kind_fails(at: ChatOf, answer: bytes) -> None:
    at.server.fault = lambda _method: web.Response(body=answer)

    await at.failure(at.store().put("a", b"1"))
    at.server.fault = None
    assert await at.store().list("") == []


async def test_a_listing_that_fails_is_never_empty(at: ChatOf) -> None:
    await at.store().put("a", b"1")
    for fault in (
        lambda _method: chats.refused(400, "Bad Request"),
        times(1, lambda: chats.refused(400, "Bad Request"), FETCHING[at.kind]),
    ):
        at.server.fault = fault
        await at.failure(at.store().list(""))
    [index] = [item for item in at.server.messages.values() if item.name == chat.INDEX_NAME]
    at.server.fault, whole = None, index.data
    for broken in (whole[:-9], b"{}", whole.replace(b'"format": 1', b'"format": 2')):
        index.data = broken
        await at.failure(at.store().list(""))
        await at.failure(at.store().put("b", b"1"))


# people in the chat


async def test_a_message_that_is_pinned_later_does_not_hide_the_copies_for_long(
    telegram: ChatOf,
) -> None:
    store = telegram.store()
    await store.put("a", b"1")
    telegram.server.pin_by_a_person()

    error = await telegram.failure(telegram.store().list(""))
    assert "another message is pinned" in error.message
    await telegram.failure(telegram.store().put("b", b"1"))
    assert await store.list("") == [Listed("a", 1)], "this process knows them"
    await store.put("b", b"2")
    assert sorted(await telegram.store().list("")) == [Listed("a", 1), Listed("b", 1)]
    assert telegram.server.names.count(chat.INDEX_NAME) == 1


async def test_discord_finds_the_copies_behind_a_hundred_pins() -> None:
    async for discord in opened("discord"):
        await discord.store().put("a", b"1")
        for _ in range(120):
            discord.server.pin_by_a_person()

        assert await discord.store().list("") == [Listed("a", 1)]


async def test_an_index_that_a_person_deletes_is_sent_again(at: ChatOf) -> None:
    store = at.store()
    await store.put("a", b"1")
    [index] = [item for item in at.server.messages.values() if item.name == chat.INDEX_NAME]
    del at.server.messages[index.id]
    await store.put("b", b"2")

    assert sorted(await at.store().list("")) == [Listed("a", 1), Listed("b", 1)]


async def test_two_processes_see_each_others_objects(at: ChatOf) -> None:
    first, second = at.store(), at.store()
    for number in range(3):
        await first.put(f"first/{number}", b"1")
        await second.put(f"second/{number}", b"2")

    assert len(await first.list("second")) == len(await second.list("first")) == 3


async def test_a_group_that_becomes_a_supergroup_is_followed(
    telegram: ChatOf, caplog: pytest.LogCaptureFixture
) -> None:
    telegram.server.was, telegram.server.chat = chats.CHAT, "-1009999999999"
    await telegram.store().put("a", b"1")

    assert "telegram://-1009999999999: change `url`" in caplog.text
    assert await telegram.store().get("a") == b"1"
    assert await telegram.store(url="telegram://-1009999999999").get("a") == b"1"


async def test_the_copies_of_another_bot_are_refused_and_left_alone(at: ChatOf) -> None:
    await at.store().put("a", b"1")
    [index] = [item for item in at.server.messages.values() if item.name == chat.INDEX_NAME]
    index.data = index.data.replace(chats.BOT.encode(), b"654321")

    for doing in (at.store().put("b", b"1"), at.store().list("")):
        assert "of another bot" in (await at.failure(doing)).message
    assert "b" not in at.server.names


# whole exports


def destinations(at: ChatOf, **more: Any) -> dict[str, Any]:
    return {
        "exports__destinations": [chat_table(at.kind, at.server.url)],
        "exports__passphrase": "correct horse battery staple",
        "lock_wait_s": 0,
        **more,
    }


@pytest.mark.one_in(2)
async def test_an_export_in_a_chat_is_encrypted_read_back_and_imported(
    at: ChatOf, tmp_path: Path
) -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reports.append(context["message"])
    )
    async with open_seline(tmp_path / "data", **destinations(at)) as seline:
        await seline.data.save_json("user_profile.json", {"userName": "Zoé"})
        assert "read back" in await seline.exports.run()
        assert "nothing changed" in await seline.exports.run()
        await seline.exports.destinations.use("nas")
    del seline
    gc.collect()
    assert not reports, "a connection stays open"

    shown = [message.data + message.text.encode() for message in at.server.messages.values()]
    assert not [text for text in shown if b"user_profile" in text or b"userName" in text]
    store = at.store()
    [export] = [item.name for item in await store.list("") if item.size_bytes is None]
    (tmp_path / export).mkdir()
    for item in await store.list(export):
        (tmp_path / export / item.name).write_bytes(await store.get(f"{export}/{item.name}"))
    found = find_export(str(tmp_path / export))
    assert found is not None
    documents, _ = read_export(found, AgeSealer(passphrase="correct horse battery staple"))
    assert json.loads(documents["user_profile.json"]) == {"userName": "Zoé"}


@pytest.mark.prove
async def test_an_export_in_doubt_in_a_chat_is_not_taken_by_a_restore(
    telegram: ChatOf, tmp_path: Path
) -> None:
    """A new process reads the doubt from the chat, without a key."""
    async with open_seline(tmp_path / "data", **destinations(telegram)) as seline:
        for number in range(3):
            await seline.data.save_json(f"{number}.json", number)
        await seline.exports.run()
        for number in range(2):
            await seline.data.delete(f"{number}.json")
        await asyncio.sleep(1.01)  # an export's name has its second
        with pytest.raises(ExportFailed, match="it has 1 of 3 documents"):
            await seline.exports.run()

    copies = Copies(telegram.store(), UNSEALED)
    assert [(info.documents, info.doubt) for info in await copies.listed()] == [
        (1, "it has 1 of 3 documents"),
        (3, ""),
    ]
    assert [info.documents for info in await copies.usable()] == [3]


def test_a_chat_is_refused_without_encryption(tmp_path: Path) -> None:
    for kind in ("telegram", "discord"):
        table = chat_table(kind, "http://127.0.0.1:1")
        with pytest.raises(SettingsError, match="must be encrypted") as raised:
            asyncio.run(_open(tmp_path, [table]))
        assert TOKENS[kind] not in f"{raised.value.message} {raised.value.hint}"


async def _open(folder: Path, tables: list[dict[str, Any]]) -> None:
    async with open_seline(folder / "data", exports__destinations=tables, lock_wait_s=0):
        pass


@pytest.mark.prove
async def test_files_of_the_real_sizes_are_taken_and_given_back(at: ChatOf) -> None:
    """Each is below what the service takes and gives; larger files are refused on the way back."""
    data = bytes(range(256)) * 200_000
    store = at.store(timeout_s=100)
    await store.put("pack", data)
    assert await at.store(timeout_s=100).get("pack") == data
    sizes = [len(message.data) for message in at.server.messages.values()]
    assert max(sizes) == {"telegram": 19_000_000, "discord": 9 << 20}[at.kind]


@pytest.mark.prove
async def test_a_larger_file_is_sent_and_lost_without_the_limit(
    telegram: ChatOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telegram, "file_bytes_max", 21_000_000)
    store = telegram.store(timeout_s=100)
    await store.put("pack", bytes(20_500_000))

    assert "file is too big" in (await telegram.failure(store.get("pack"))).message
    with pytest.raises(ObjectMissing):
        await store.get("other")


async def test_a_download_follows_no_redirect() -> None:
    paths: list[str] = []

    async def move(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/{name}", move)
    requests = chat_requests.ChatRequests(wait_s_max=1)
    async with TestServer(app, host="127.0.0.1") as server:
        with pytest.raises(chat_requests.ChatRefusal, match="302"):
            await requests.download(str(server.make_url("/file")), 1000)
        await requests.close()

    assert paths == ["/file"]
