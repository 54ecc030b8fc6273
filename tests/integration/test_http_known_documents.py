"""Test that a document in memory is answered before the app is asked, as the app answers it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from seline.http.known_documents import KnownDocuments
from seline.server import Serving
from tests.http_client import ADMIN, NAME, Client

PATH = f"/documents/{NAME}"


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the requests that were answered from memory."""
    answered: list[str] = []
    answer = KnownDocuments.answer

    def noting(known: KnownDocuments, request: web.BaseRequest) -> web.StreamResponse | None:
        response = answer(known, request)
        if response is not None:
            answered.append(request.headers.get("X-Request-Id", ""))
        return response

    monkeypatch.setattr(KnownDocuments, "answer", noting)
    return answered


async def revision(client: Client) -> str:
    return str((await client.call("GET", PATH))[2]["ETag"])


@pytest.mark.parametrize("has_it", [False, True], ids=["to a new reader", "to one that has it"])
async def test_the_response_is_that_of_the_app(
    client: Client, answered: list[str], has_it: bool
) -> None:
    await client.call("PUT", PATH, {"nom": "Zoé"})
    given = {"X-Request-Id": "r1"} | ({"If-None-Match": await revision(client)} if has_it else {})
    of_memory = await client.call("GET", PATH, **given)
    of_app = await client.call("GET", PATH, **given, If_Match="*")

    assert answered[-1:] == ["r1"]
    assert answered.count("r1") == 1
    assert of_memory[:2] == of_app[:2]
    assert of_memory[0] == (304 if has_it else 200)
    assert _without_date(of_memory[2]) == _without_date(of_app[2])


@pytest.mark.usefixtures("files_at_once")
async def test_an_edit_by_hand_is_served(
    client: Client, answered: list[str], tmp_path: Path
) -> None:
    await client.call("PUT", PATH, {"n": 1})
    before = await client.call("GET", PATH)
    (tmp_path / "data" / NAME).write_text('{"n": 2}')
    after = await client.call("GET", PATH)

    assert (before[1], after[1], len(answered)) == ({"n": 1}, {"n": 2}, 1)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": "Bearer wrong"}, "", 401),
        ({"Authorization": ""}, "", 401),
        ({"Host": "evil.example"}, "", 403),
        ({"Origin": "http://evil.example"}, "", 403),
        ({"If-Match": '"0"'}, "", 412),
        ({"Expect": "more"}, "", 417),
        ({}, "?token=secret", 422),
        ({}, "?unknown=1", 422),
        ({}, "/raw", 200),
    ],
)
async def test_what_the_app_decides_is_left_to_it(
    client: Client, answered: list[str], headers: dict[str, str], query: str, status: int
) -> None:
    await client.call("PUT", PATH, {"n": 1})
    await client.call("GET", PATH)
    found, _, _ = await client.call("GET", PATH + query, **headers)

    assert (found, len(answered)) == (status, 1)


async def test_a_revoked_token_is_refused_at_once_and_its_use_was_noted(
    server: Serving, client: Client, answered: list[str]
) -> None:
    await client.call("PUT", PATH, {"n": 1})
    token, secret = await server.tokens.create(scope="read")
    bearer = {"Authorization": f"Bearer {secret}"}
    before, _, _ = await client.call("GET", PATH, **bearer)
    [used] = await server.tokens.listed()
    await server.tokens.revoke(token.id)
    after, _, _ = await client.call("GET", PATH, **bearer)

    assert (before, after, len(answered)) == (200, 401, 1)
    assert used.used_at is not None


async def test_it_is_counted_as_a_read_of_its_route(client: Client, answered: list[str]) -> None:
    await client.call("PUT", PATH, {"n": 1})
    await client.call("GET", PATH)
    async with client.session.get(
        client.base.removesuffix("/api/v1/data-admin") + "/metrics",
        headers={"Authorization": f"Bearer {ADMIN}"},
    ) as response:
        text = await response.text()

    route = 'route="/api/v1/data-admin/documents/{name}"'
    assert f'seline_http_requests_total{{method="GET",{route},status="200"}} 1.0' in text
    assert len(answered) == 1


def _without_date(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name != "Date"}
