"""Sessions: what ends one, how many there are, and the view that lists and ends them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline.access.sessions import (
    AGE_MAX,
    IDLE_MAX,
    SESSIONS_MAX,
    USE_STORED_AFTER,
    Session,
    Sessions,
)
from seline.access.tokens import Grant, Tokens
from seline.server import Serving
from tests.browser import Browser, jar
from tests.clocks import FakeClock
from tests.http_client import ADMIN
from tests.stores import open_managed


@pytest.fixture
async def sessions(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Sessions]:
    managed = open_managed(tmp_path, clock)
    opened = Sessions(managed, Tokens(managed, admin_token=ADMIN))
    await opened.load()
    yield opened
    store = await managed.open()
    await asyncio.to_thread(store.close)


def grant_of(sessions: Sessions) -> Grant:
    return sessions._tokens.grant(ADMIN, client="here", needs="read")


async def test_a_session_ends_without_use(sessions: Sessions, clock: FakeClock) -> None:
    _, secret = await sessions.create(grant_of(sessions))
    clock.advance(IDLE_MAX.total_seconds() - 1)
    assert await sessions.find(secret)
    clock.advance(IDLE_MAX.total_seconds() - 1)
    assert await sessions.find(secret)
    clock.advance(IDLE_MAX.total_seconds())

    assert await sessions.find(secret) is None
    assert not sessions.has_any


async def test_a_session_ends_in_any_case(sessions: Sessions, clock: FakeClock) -> None:
    _, secret = await sessions.create(grant_of(sessions))
    used = 0
    while await sessions.find(secret):
        clock.advance(IDLE_MAX.total_seconds() / 2)
        used += 1

    assert used == AGE_MAX / (IDLE_MAX / 2)


@pytest.mark.usefixtures("files_at_once")
async def test_a_use_is_stored_now_and_then(
    sessions: Sessions, clock: FakeClock, tmp_path: Path
) -> None:
    _, secret = await sessions.create(grant_of(sessions))
    file = tmp_path / ".seline" / "sessions.json"
    before = file.read_bytes()
    clock.advance(USE_STORED_AFTER.total_seconds() - 1)
    await sessions.find(secret)
    assert file.read_bytes() == before

    clock.advance(2)
    await sessions.find(secret)

    assert file.read_bytes() != before


async def test_the_sessions_are_bounded_and_the_one_unused_longest_ends(
    sessions: Sessions, clock: FakeClock
) -> None:
    secrets = []
    for _ in range(SESSIONS_MAX + 1):
        secrets.append((await sessions.create(grant_of(sessions)))[1])
        clock.advance(1)

    assert len(sessions.listed()) == SESSIONS_MAX
    assert await sessions.find(secrets[0]) is None
    assert await sessions.find(secrets[1])


async def test_sign_ins_at_the_same_time_keep_every_session(sessions: Sessions) -> None:
    made = await asyncio.gather(*(sessions.create(grant_of(sessions)) for _ in range(5)))

    assert {session.id for session in sessions.listed()} == {session.id for session, _ in made}


async def test_another_secret_is_no_session(sessions: Sessions) -> None:
    await sessions.create(grant_of(sessions))

    assert await sessions.find("") is None
    assert await sessions.find("x" * 43) is None


async def test_a_binding_to_another_token_ends_the_session(sessions: Sessions) -> None:
    """A token of the same name with another secret, as after a change of SELINE_ADMIN_TOKEN."""
    real = grant_of(sessions)
    _, secret = await sessions.create(Grant(name=real.name, scope="admin", digest="0" * 64))

    assert await sessions.find(secret) is None


def test_a_stored_session_has_no_secret() -> None:
    assert {"id", "digest", "binding", "source", "scope", "created_at", "used_at"} == set(
        Session.__struct_fields__
    )


async def test_a_full_or_broken_disk_still_signs_in(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is then in memory only: the page is needed most when the disk fails."""
    from seline.errors import VolumeFailed

    async def refused(*_: object, **__: object) -> None:
        raise VolumeFailed

    monkeypatch.setattr(sessions._state, "update", refused)
    session, secret = await sessions.create(grant_of(sessions))

    assert await sessions.find(secret) == session


async def test_the_view_lists_the_sessions_and_ends_one(owner: Browser, server: Serving) -> None:
    async with jar() as session:
        other = Browser(session, server.address)
        await other.sign_in()
        page = await owner.get("/sessions")
        ends = [form for form in page.forms if form.action.endswith("/end")]
        assert len(ends) == 2
        own = next(each for each in server.sessions.listed() if each.id in page.html)
        assert own
        for form in ends:
            identifier = form.action.split("/")[2]
            if identifier in _others(server, owner):
                page = await owner.post(form.action, form.fields)

        assert "The session has ended." in page.text
        assert (await other.get("/sessions")).path.startswith("/sign-in")
    assert (await owner.get("/sessions")).status == 200


def _others(server: Serving, owner: Browser) -> set[str]:
    from seline.access.tokens import digest_of

    own = digest_of(owner.cookies["seline"].value)
    return {each.id for each in server.sessions.listed() if each.digest != own}


async def test_a_sign_in_and_each_change_are_in_the_audit_log(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    await owner.get("/")
    await owner.press("Sign out")
    server._audit._thread.submit(lambda: None).result()
    lines = [
        json.loads(line)
        for line in (tmp_path / "data" / ".seline" / "audit.jsonl").read_text().splitlines()
    ]

    assert [(line["what"], line["outcome"]) for line in lines] == [
        ("POST /sign-in", "303"),
        ("POST /sign-out", "303"),
    ]
    assert all(line["who"].startswith("SELINE_ADMIN_TOKEN, page session ") for line in lines)
