"""The last use of a token: in memory with each request, on the disk once an hour."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline.access.sessions import Sessions
from seline.access.tokens import USE_STORED_AFTER, Tokens
from seline.errors import Forbidden, VolumeFailed
from seline.server import Serving
from tests.clocks import FakeClock
from tests.http_client import Client
from tests.stores import open_managed


@pytest.fixture
async def tokens(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Tokens]:
    managed = open_managed(tmp_path, clock)
    opened = Tokens(managed, admin_token=None)
    await opened.load()
    yield opened
    await opened.close()
    store = await managed.open()
    await asyncio.to_thread(store.close)


def stored(tmp_path: Path) -> list[str | None]:
    listed = json.loads((tmp_path / ".seline" / "tokens.json").read_text())["tokens"]
    return [token["used_at"] for token in listed]


def use(tokens: Tokens, secret: str) -> None:
    tokens.grant(secret, client="here", needs="read")


@pytest.mark.usefixtures("files_at_once")
async def test_a_use_is_listed_at_once_and_stored_once_an_hour(
    tokens: Tokens, clock: FakeClock, tmp_path: Path
) -> None:
    _, secret = await tokens.create(scope="read")
    assert [token.used_at for token in await tokens.listed()] == [None]
    use(tokens, secret)
    await tokens.close()
    first = stored(tmp_path)
    assert first != [None]

    clock.advance(USE_STORED_AFTER.total_seconds() - 1)
    use(tokens, secret)
    await tokens.close()
    assert stored(tmp_path) == first
    assert [token.used_at for token in await tokens.listed()] == [clock.now()]

    clock.advance(1)
    use(tokens, secret)
    await tokens.close()
    assert stored(tmp_path) != first


async def test_a_refused_use_is_none(tokens: Tokens) -> None:
    _, secret = await tokens.create(scope="read")
    with pytest.raises(Forbidden):
        tokens.grant(secret, client="here", needs="admin")

    assert [token.used_at for token in await tokens.listed()] == [None]


async def test_a_disk_that_fails_neither_refuses_nor_is_asked_again_soon(
    tokens: Tokens, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = await tokens.create()
    asked = 0

    async def refused(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise VolumeFailed

    with monkeypatch.context() as patched:
        patched.setattr(tokens._state, "update", refused)
        for _ in range(3):
            use(tokens, secret)
            await tokens.close()
        assert asked == 1
    clock.advance(USE_STORED_AFTER.total_seconds())
    use(tokens, secret)
    await tokens.close()

    assert tokens._state.value[0].used_at == clock.now()


async def test_a_revoked_token_does_not_come_back_with_its_use(tokens: Tokens) -> None:
    token, secret = await tokens.create()
    use(tokens, secret)
    await tokens.revoke(token.id)
    await tokens.close()

    assert await tokens.listed() == ()


async def test_a_session_of_the_page_uses_its_token(tokens: Tokens, clock: FakeClock) -> None:
    _, secret = await tokens.create()
    sessions = Sessions(tokens._state._managed, tokens)  # type: ignore[arg-type]
    await sessions.load()
    _, cookie = await sessions.create(tokens.grant(secret, client="here", needs="read"))
    clock.advance(60)
    await sessions.find(cookie)

    assert [token.used_at for token in await tokens.listed()] == [clock.now()]


async def test_a_call_shows_in_the_list(client: Client, server: Serving) -> None:
    _, secret = await server.tokens.create(scope="read")
    assert (await client.call("GET", "/health", Authorization=f"Bearer {secret}"))[0] == 200

    [token] = await server.tokens.listed()
    assert token.used_at is not None
