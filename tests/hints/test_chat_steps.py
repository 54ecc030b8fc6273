"""The next steps of chats as destinations: each is done as printed, and then a copy is sent."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from seline.errors import SettingsError
from seline.outbound.destinations import chat
from seline.outbound.destinations.table import build_targets
from seline.outbound.sealing import new_key
from seline.settings import load_settings
from tests.destinations import chat_server as chats
from tests.destinations.kinds import chat_table
from tests.destinations.test_chats import ChatOf, opened, slower
from tests.hints.following import Step

Follow = Callable[[str], Step]


@pytest.fixture(params=["telegram", "discord"])
async def at(request: pytest.FixtureRequest) -> AsyncIterator[ChatOf]:
    async for found in opened(request.param):
        yield found


async def works(at: ChatOf, **options: Any) -> None:
    await at.store(**options).put("marker", b"1")
    assert await at.store(**options).get("marker") == b"1"


@pytest.mark.follows("outbound/destinations/failures:login_refused")
async def test_the_token_is_corrected(at: ChatOf, follow: Follow) -> None:
    error = await at.failure(at.store(token="12:another").put("marker", b"1"))
    follow(error.hint).asks("Correct `token` of nas")
    await works(at)


@pytest.mark.follows(
    "outbound/destinations/chat:_refused",
    "outbound/destinations/chat:_refused#2",
    "outbound/destinations/chat:_refused#3",
)
async def test_the_bot_gets_what_it_needs_in_the_chat(at: ChatOf, follow: Follow) -> None:
    at.server.can_pin = False
    error = await at.failure(at.store().put("marker", b"1"))
    follow(error.hint).asks("let the bot of nas", "pin messages")
    assert at.server.names == [], "what was sent is deleted"
    at.server.can_pin, at.server.is_member = True, False
    error = await at.failure(at.store().put("marker", b"1"))
    follow(error.hint).asks("let the bot of nas", "send files")
    at.server.is_member = True

    error = await at.failure(at.store(url=f"{at.kind}://42").put("marker", b"1"))
    follow(error.hint).asks("correct the id in `url` of nas")
    await works(at)

    at.server.fault = lambda _method: slower(12)
    error = await at.failure(at.store(timeout_s=5).put("marker", b"1"))
    follow(error.hint).asks("The next run tries again; or raise `timeout_s` of nas")
    at.server.fault = None
    await works(at)


@pytest.mark.follows("outbound/destinations/chat:_unreachable")
async def test_the_address_of_the_api_is_corrected(at: ChatOf, follow: Follow) -> None:
    error = await at.failure(at.store(api="http://127.0.0.1:1").put("marker", b"1"))
    follow(error.hint).asks("`api` of nas")
    await works(at)


@pytest.mark.follows("outbound/destinations/chat:_read")
async def test_each_bot_has_a_chat_of_its_own(at: ChatOf, follow: Follow) -> None:
    await at.store().put("marker", b"1")
    [index] = [item for item in at.server.messages.values() if item.name == chat.INDEX_NAME]
    index.data = index.data.replace(chats.BOT.encode(), b"654321")

    step = follow((await at.failure(at.store().list(""))).hint)
    step.asks("Name another chat in `url` of nas", "set `token` to that bot's")
    at.server.messages.clear()  # another chat
    await works(at)


@pytest.mark.follows("outbound/destinations/chat:_hidden")
async def test_a_message_that_hides_the_list_is_unpinned(follow: Follow) -> None:
    async for at in opened("telegram"):
        await at.store().put("marker", b"1")
        message = at.server.pin_by_a_person()
        error = await at.failure(at.store().list(""))
        follow(error.hint).asks("Unpin it in the chat", chat.INDEX_NAME)
        message.pinned_at = 0.0
        assert await at.store().get("marker") == b"1"


@pytest.mark.follows(
    "outbound/destinations/chat:check_chat",
    "outbound/destinations/chat:check_chat#2",
    "outbound/destinations/chat:check_chat#3",
    "outbound/destinations/table:_check_encrypted",
)
async def test_the_settings_of_a_chat_are_corrected(at: ChatOf, follow: Follow) -> None:
    def refused(*, encrypted: bool = True, **options: str) -> SettingsError:
        table = chat_table(at.kind, at.server.url, **options)
        arguments = {
            "exports.destinations": [table],
            "exports.encrypt_to": [new_key().recipient] if encrypted else [],
        }
        with pytest.raises(SettingsError) as raised:
            build_targets(load_settings(environ={}, arguments=arguments))
        return raised.value

    for url in (f"{at.kind}://my-channel", f"{at.kind}://12/34", f"{at.kind}://1:2"):
        follow(refused(url=url).hint).asks(f"Write `url` as {at.kind}://ID")
    follow(refused(mode="mirror").hint).asks('Set `mode = "export"` for nas')
    follow(refused(api="http://api.example.org").hint).asks("an address with https://")
    follow(refused(encrypted=False).hint).asks("`exports.encrypt_to`", "`seline key new`")
    await works(at)
