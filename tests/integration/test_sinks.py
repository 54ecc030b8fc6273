"""Each sink against a real receiver: the shape each service wants, and whatever can go wrong.

Every secret here holds the word `secret`, and every receiver that refuses repeats all it was sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from seline.domain.alerts.lifecycle import Alert, AlertType, Severity
from seline.domain.alerts.sink_spec import SinkSpec
from seline.domain.texts import Language
from seline.outbound import alert_sinks
from seline.outbound.alert_sinks import AlertSource, build_sinks
from seline.outbound.heartbeat import ATTEMPTS, Heartbeat
from seline.outbound.http_client import open_session
from seline.ports.alerts import AlertSink, Delivery
from tests.unit.values import NOON

SHORT = aiohttp.ClientTimeout(total=20, sock_read=0.05)
SERVICES = ("webhook", "telegram", "discord", "ntfy")
DATA_DIR = "/data"
SERVICE = "my-bot"
SECRETS_OF: Mapping[str, Mapping[str, str]] = {
    "webhook": {"path": "/hooks/path-secret", "token": "token-secret"},
    "telegram": {"path": "", "token": "123456:token-secret", "chat_id": "@chat-secret"},
    "discord": {"path": "/api/webhooks/42/token-secret"},
    "ntfy": {"path": "/topic-secret", "token": "token-secret"},
}
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
State = Literal["open", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """One request that a receiver got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def value(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """A service elsewhere, on a socket of this machine: notes what it gets, answers as told."""

    def __init__(self) -> None:
        self.asked: list[GlobalOptions] = []
        self.answering: Answering = fine
        self.over = asyncio.Event()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._runner: web.AppRunner | None = None
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        """Listen; until then a connection is refused, and nobody else gets the port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        self.over.set()
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    def answers(
        self, status: int = 200, value: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer everything from now on with this, as JSON if there is a value."""

        async def answer(_request: web.Request) -> web.StreamResponse:
            if value is None:
                return web.Response(status=status, headers=headers)
            return web.json_response(value, status=status, headers=headers)

        self.answering = answer

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            GlobalOptions(
                method=request.method,
                path=request.raw_path,
                headers=dict(request.headers),
                body=await request.read(),
            )
        )
        return await self.answering(request)


async def fine(_request: web.Request) -> web.StreamResponse:
    """Answer as a service that has the alert: for Telegram, that is `ok`."""
    return web.json_response({"ok": True})


@asynccontextmanager
async def listening(*, at_once: bool = True) -> AsyncIterator[Receiver]:
    """Give a receiver; `at_once=False` has it refuse connections until it is started."""
    receiver = Receiver()
    if at_once:
        await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Collect the log of every test, and find no secret in it."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.get_records("call"):
        assert "secret" not in record.getMessage()
        assert "secret" not in str(vars(record))


def an_alert(
    *,
    severity: Severity = Severity.WARNING,
    state: State = "open",
    document: str | None = "user_profile.json",
    summary: str = "user_profile.json was broken and has been recovered.",
    count: int = 1,
) -> Alert:
    return Alert(
        id="0123456789abcdef",
        type=AlertType.RECOVERY,
        severity=severity,
        state=state,
        document=document,
        summary=summary,
        details={"verdict": "torn", "backup": "user_profile_20250106_093000.json"},
        fix="" if state == "resolved" else "Look at what was set aside.",
        first_at=NOON - timedelta(hours=1),
        last_at=NOON,
        count=count,
    )


def a_spec(kind: str, base: str, **given: Any) -> SinkSpec:
    """Return a sink's settings, full of secrets."""
    secrets = SECRETS_OF[kind]
    spec = SinkSpec(
        kind=kind,
        name=f"my {kind}",
        url=base + secrets["path"],
        token=secrets.get("token"),
        chat_id=secrets.get("chat_id"),
    )
    return replace(spec, **given)


def a_source(*, service: str = SERVICE, language: Language = "en") -> AlertSource:
    return AlertSource(service=service, data_dir=DATA_DIR, language=language)


def a_sink(
    kind: str,
    base: str,
    session: aiohttp.ClientSession,
    *,
    service: str = SERVICE,
    language: Language = "en",
    **given: Any,
) -> AlertSink:
    source = a_source(service=service, language=language)
    return build_sinks([a_spec(kind, base, **given)], session, source)[-1]


def harmless(delivery: Delivery, receiver: Receiver) -> Delivery:
    """Return a delivery that failed, having seen that it says why and no secret."""
    assert not delivery.delivered
    assert delivery.detail
    for hidden in ("secret", receiver.url, receiver.url.removeprefix("http://")):
        assert hidden not in str(delivery)
    return delivery


async def repeat_everything(request: web.Request, status: int) -> web.StreamResponse:
    """Answer with every secret that was sent, where each service puts its words."""
    topic = (await request.read()).decode()[:30]
    sent = f"{request.raw_path} {request.headers.get('Authorization')} {topic}"
    words = {"description": sent, "message": sent, "error": sent}
    return web.json_response(words, status=status, reason=sent)


# what each service gets


async def test_a_webhook_gets_railways_shape_with_id_and_state(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("webhook", receiver.url, session).send(an_alert(count=2))

    [asked] = receiver.asked
    assert delivery.delivered
    assert (asked.method, asked.path) == ("POST", "/hooks/path-secret")
    assert asked.headers["Authorization"] == "Bearer token-secret"
    assert asked.value() == {
        "id": "0123456789abcdef",
        "type": "recovery",
        "state": "open",
        "severity": "WARNING",
        "timestamp": "2025-01-06T12:00:00Z",
        "resource": {
            "service": {"name": SERVICE},
            "volume": {"mountPath": DATA_DIR},
            "document": {"name": "user_profile.json"},
        },
        "details": {
            "verdict": "torn",
            "backup": "user_profile_20250106_093000.json",
            "summary": "user_profile.json was broken and has been recovered.",
            "fix": "Look at what was set aside.",
            "count": 2,
            "firstAt": "2025-01-06T11:00:00Z",
            "lastAt": "2025-01-06T12:00:00Z",
        },
    }


async def test_a_webhook_names_a_document_only_where_there_is_one(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    await a_sink("webhook", receiver.url, session).send(an_alert(document=None))

    assert set(receiver.asked[0].value()["resource"]) == {"service", "volume"}


async def test_telegram_gets_a_plain_message(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("telegram", receiver.url, session).send(an_alert())

    [asked] = receiver.asked
    assert delivery.delivered
    assert (asked.method, asked.path) == ("POST", "/bot123456:token-secret/sendMessage")
    assert "Authorization" not in asked.headers
    assert asked.value() == {
        "chat_id": "@chat-secret",
        "text": (
            "⚠️ my-bot: warning\n"
            "user_profile.json was broken and has been recovered.\n"
            "Next: Look at what was set aside."
        ),
        "disable_notification": False,
        "link_preview_options": {"is_disabled": True},
    }


def test_telegram_is_asked_at_its_own_address_unless_another_is_given() -> None:
    encode = alert_sinks.ENCODERS["telegram"]

    request = encode(a_spec("telegram", "", url=None), a_source(), an_alert())

    assert request.url == "https://api.telegram.org/bot123456:token-secret/sendMessage"


async def test_discord_gets_one_embed_and_is_asked_to_say_that_it_is_saved(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("discord", receiver.url, session).send(an_alert())

    [asked] = receiver.asked
    assert delivery.delivered
    assert (asked.method, asked.path) == ("POST", "/api/webhooks/42/token-secret?wait=true")
    assert "Authorization" not in asked.headers
    assert asked.value() == {
        "embeds": [
            {
                "title": "⚠️ my-bot: warning",
                "description": (
                    "user_profile.json was broken and has been recovered.\n"
                    "Next: Look at what was set aside."
                ),
                "color": 0xF59E0B,
                "timestamp": "2025-01-06T12:00:00Z",
                "footer": {"text": "0123456789abcdef"},
            }
        ],
        "allowed_mentions": {"parse": []},
    }


async def test_a_discord_thread_stays_in_the_address(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    url = f"{receiver.url}/api/webhooks/42/token-secret?thread_id=7"

    await a_sink("discord", "", session, url=url).send(an_alert())

    assert receiver.asked[0].path.endswith("/token-secret?thread_id=7&wait=true")


async def test_ntfy_gets_json_at_its_root(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("ntfy", receiver.url, session).send(an_alert())

    [asked] = receiver.asked
    assert delivery.delivered
    assert (asked.method, asked.path) == ("POST", "/")
    assert asked.headers["Authorization"] == "Bearer token-secret"
    assert asked.value() == {
        "topic": "topic-secret",
        "title": "⚠️ my-bot: warning",
        "message": (
            "user_profile.json was broken and has been recovered.\n"
            "Next: Look at what was set aside."
        ),
        "priority": 4,
        "tags": ["recovery"],
    }


@pytest.mark.parametrize(
    ("address", "path"), [("/topic-secret/", "/"), ("/push/topic-secret", "/push/")]
)
async def test_an_ntfy_server_may_lie_under_a_path(
    receiver: Receiver, session: aiohttp.ClientSession, address: str, path: str
) -> None:
    await a_sink("ntfy", "", session, url=receiver.url + address).send(an_alert())

    assert receiver.asked[0].path == path
    assert receiver.asked[0].value()["topic"] == "topic-secret"


@pytest.mark.parametrize("kind", ["webhook", "ntfy"])
async def test_without_a_token_nobody_is_authorized(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    await a_sink(kind, receiver.url, session, token=None).send(an_alert())

    assert "Authorization" not in receiver.asked[0].headers


@pytest.mark.parametrize("kind", SERVICES)
async def test_everyone_gets_utf_8_and_is_told_who_asks(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    alert = an_alert(summary="Le fichier d'Élodie était cassé.")

    await a_sink(kind, receiver.url, session, language="fr", service="bot à moi").send(alert)

    [asked] = receiver.asked
    assert asked.headers["Content-Type"] == "application/json; charset=utf-8"
    assert asked.headers["User-Agent"] == "seline"
    assert "Élodie" in asked.body.decode("utf-8")
    assert "bot à moi" in asked.body.decode("utf-8")
    assert kind == "webhook" or "À faire :" in asked.body.decode("utf-8")


async def test_what_happened_again_says_how_often_and_since_when(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    await a_sink("telegram", receiver.url, session).send(an_alert(count=3))

    assert "\n3 times since 2025-01-06 11:00 UTC.\n" in receiver.asked[0].value()["text"]


@pytest.mark.parametrize(
    ("severity", "state", "sound", "color", "priority"),
    [
        (Severity.INFO, "open", False, 0x3B82F6, 2),
        (Severity.WARNING, "open", True, 0xF59E0B, 4),
        (Severity.CRITICAL, "open", True, 0xDC2626, 5),
        (Severity.CRITICAL, "resolved", False, 0x16A34A, 3),
    ],
)
async def test_what_matters_more_is_louder_and_an_end_is_quiet(
    receiver: Receiver,
    session: aiohttp.ClientSession,
    severity: Severity,
    state: State,
    sound: bool,
    color: int,
    priority: int,
) -> None:
    for kind in ("telegram", "discord", "ntfy"):
        await a_sink(kind, receiver.url, session).send(an_alert(severity=severity, state=state))

    message, embed, notification = (asked.value() for asked in receiver.asked)
    assert message["disable_notification"] is not sound
    assert embed["embeds"][0]["color"] == color
    assert notification["priority"] == priority


async def test_nothing_that_a_service_sets_comes_back_to_it(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answers(200, headers={"Set-Cookie": "a=b; Path=/"})
    sink = a_sink("webhook", receiver.url, session)

    for _ in range(2):
        await sink.send(an_alert())

    assert "Cookie" not in receiver.asked[1].headers


# what is a success


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("kind", ["webhook", "discord", "ntfy"])
async def test_every_success_delivers(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, status: int
) -> None:
    receiver.answers(status)

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert (delivery.sink, delivery.kind) == (f"my {kind}", kind)
    assert (delivery.delivered, delivery.detail) == (True, "")
    assert delivery.took_ms > 0


@pytest.mark.parametrize("answer", [{"ok": False, "description": "no"}, {"ok": 1}, {}, [], "ok"])
async def test_telegram_delivers_only_where_it_says_ok(
    receiver: Receiver, session: aiohttp.ClientSession, answer: object
) -> None:
    receiver.answers(200, answer)

    delivery = await a_sink("telegram", receiver.url, session).send(an_alert())

    assert harmless(delivery, receiver).detail.startswith("it answered 200")


# what goes wrong


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("kind", SERVICES)
async def test_a_refusal_is_told_by_its_status_and_never_with_a_secret(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, status: int
) -> None:
    receiver.answering = lambda request: repeat_everything(request, status)

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert harmless(delivery, receiver).detail.startswith(f"it answered {status}")
    assert delivery.refused is (status in {400, 413, 422})


@pytest.mark.parametrize(
    ("kind", "where"), [("telegram", "description"), ("discord", "message"), ("ntfy", "error")]
)
async def test_a_services_own_words_are_told_short_and_on_one_line(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, where: str
) -> None:
    receiver.answers(400, {where: "chat\nnot\tfound " + "x" * 1000})

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.detail.startswith("it answered 400 (chat not found xxx")
    assert len(delivery.detail) < 250


async def test_a_discord_address_that_ends_in_a_slash_keeps_its_secret(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answering = lambda request: repeat_everything(request, 404)
    url = f"{receiver.url}/api/webhooks/42/token-secret/"

    harmless(await a_sink("discord", "", session, url=url).send(an_alert()), receiver)


@pytest.mark.parametrize("words", [None, 3, ["a"], {"a": 1}])
@pytest.mark.parametrize("kind", SERVICES)
async def test_words_of_another_shape_are_left_out(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, words: object
) -> None:
    receiver.answers(500, {"description": words, "message": words, "error": words})

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.detail == "it answered 500"


@pytest.mark.parametrize("kind", SERVICES)
async def test_the_header_says_how_long_to_wait(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    sink = a_sink(kind, receiver.url, session)
    receiver.answers(429, headers={"Retry-After": "7"})
    by_seconds = await sink.send(an_alert())
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    receiver.answers(503, headers={"Retry-After": soon})
    by_date = await sink.send(an_alert())

    assert by_seconds.retry_after_s == 7
    assert by_date.retry_after_s == pytest.approx(60, abs=15)


async def test_telegram_and_discord_say_in_their_answers_how_long_to_wait(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answers(
        429,
        {"ok": False, "parameters": {"retry_after": 33}, "retry_after": 0.75},
        {"Retry-After": "1"},
    )

    patience = [
        (await a_sink(kind, receiver.url, session).send(an_alert())).retry_after_s
        for kind in SERVICES
    ]

    assert patience == [1, 33, 0.75, 1]


@pytest.mark.parametrize(
    "wish", [True, None, [], {}, "soon", pytest.param(10**400, id="beyond all numbers")]
)
async def test_a_wish_that_is_no_number_is_left_out(
    receiver: Receiver, session: aiohttp.ClientSession, wish: object
) -> None:
    receiver.answers(
        429, {"parameters": {"retry_after": wish}, "retry_after": wish}, {"Retry-After": "soon"}
    )

    for kind in ("telegram", "discord"):
        delivery = await a_sink(kind, receiver.url, session).send(an_alert())
        assert delivery.retry_after_s is None


@pytest.mark.parametrize("kind", ["webhook", "ntfy"])
async def test_an_answer_that_is_only_a_number_is_no_retry_time(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    receiver.answers(503, 60)

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.retry_after_s is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", SERVICES)
async def test_a_redirect_is_not_followed(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, status: int
) -> None:
    receiver.answers(status, headers={"Location": f"{receiver.url}/elsewhere"})

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert "redirect" in harmless(delivery, receiver).detail
    assert len(receiver.asked) == 1


@pytest.mark.parametrize("kind", SERVICES)
async def test_whoever_never_answers_is_given_up(receiver: Receiver, kind: str) -> None:
    async def silent(_request: web.Request) -> web.StreamResponse:
        await receiver.over.wait()
        return web.Response()

    receiver.answering = silent
    async with open_session(SHORT) as session:
        delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert "no answer within" in harmless(delivery, receiver).detail


async def test_whoever_answers_drop_by_drop_is_given_up(receiver: Receiver) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not receiver.over.is_set():
            await answer.write(b" ")
            await asyncio.sleep(0.01)
        return answer

    receiver.answering = dripping
    async with open_session(aiohttp.ClientTimeout(total=0.3)) as session:
        delivery = await a_sink("webhook", receiver.url, session).send(an_alert())

    assert "no answer within" in harmless(delivery, receiver).detail


@pytest.mark.parametrize("kind", SERVICES)
async def test_whoever_closes_the_connection_has_not_got_it(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    async def closing(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    receiver.answering = closing
    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert "closed the connection" in harmless(delivery, receiver).detail
    assert len(receiver.asked) == 1


@pytest.mark.parametrize("kind", SERVICES)
async def test_half_an_answer_is_none(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    async def breaking_off(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"ok": true')
        assert request.transport is not None
        request.transport.close()
        return answer

    receiver.answering = breaking_off
    harmless(await a_sink(kind, receiver.url, session).send(an_alert()), receiver)


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_refused_connection_is_named(session: aiohttp.ClientSession, kind: str) -> None:
    async with listening(at_once=False) as receiver:
        delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert harmless(delivery, receiver).detail == "cannot connect: Connection refused"


@pytest.mark.parametrize("kind", SERVICES)
async def test_an_unknown_host_is_named_without_its_name(
    receiver: Receiver,
    session: aiohttp.ClientSession,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    delivery = await a_sink(kind, "http://secret-host.example", session).send(an_alert())

    assert harmless(delivery, receiver).detail == "its host name is not known"


@pytest.mark.parametrize("kind", SERVICES)
async def test_whoever_speaks_no_tls_is_told_apart(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    url = receiver.url.replace("http:", "https:")

    delivery = await a_sink(kind, url, session).send(an_alert())

    assert harmless(delivery, receiver).detail == "no secure connection can be made"


@pytest.mark.parametrize("kind", SERVICES)
async def test_whoever_speaks_no_http_has_not_got_it(
    session: aiohttp.ClientSession, kind: str
) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP /hooks/path-secret token-secret\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        delivery = await a_sink(kind, url, session).send(an_alert())

    assert not delivery.delivered
    assert "secret" not in str(delivery)


@pytest.mark.parametrize("kind", SERVICES)
async def test_of_an_endless_answer_little_is_read(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        while written < 64 << 20:
            await answer.write(b" " * (1 << 16))
            written += 1 << 16
        return answer

    receiver.answering = endless
    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.delivered is (kind != "telegram")
    assert written < 64 << 20


@pytest.mark.parametrize("text", ["[" * 50_000, "{", "\xff", '{"ok": true'])
async def test_an_answer_that_is_no_json_is_no_ok_and_breaks_nothing(
    receiver: Receiver, session: aiohttp.ClientSession, text: str
) -> None:
    async def nonsense(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode("latin-1"), content_type="application/json")

    receiver.answering = nonsense

    assert not (await a_sink("telegram", receiver.url, session).send(an_alert())).delivered
    assert (await a_sink("discord", receiver.url, session).send(an_alert())).delivered


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_session_that_is_closed_is_an_answer_too(receiver: Receiver, kind: str) -> None:
    session = open_session()
    await session.close()

    harmless(await a_sink(kind, receiver.url, session).send(an_alert()), receiver)


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_sink_shows_itself_without_its_secrets(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    shown = repr(a_sink(kind, receiver.url, session)) + repr(a_spec(kind, receiver.url))

    assert f"my {kind}" in shown
    assert "secret" not in shown
    assert receiver.url not in shown


# texts


@pytest.mark.parametrize("letter", ["x", "é", "字", "😀"])
async def test_a_text_that_is_too_long_is_cut_to_what_the_service_takes(
    receiver: Receiver, session: aiohttp.ClientSession, letter: str
) -> None:
    long = an_alert(summary=letter * 20_000)

    for kind in ("telegram", "discord", "ntfy"):
        await a_sink(kind, receiver.url, session, service="s" * 400).send(long)

    message, embed, notification = (asked.value() for asked in receiver.asked)
    assert len(message["text"]) == alert_sinks.TELEGRAM_CHARACTERS_MAX == 4096
    assert len(embed["embeds"][0]["title"]) == alert_sinks.DISCORD_TITLE_CHARACTERS_MAX == 256
    assert len(embed["embeds"][0]["description"]) == alert_sinks.DISCORD_CHARACTERS_MAX == 4096
    assert len(notification["message"]) == alert_sinks.NTFY_CHARACTERS_MAX >= 1000
    assert len(notification["message"].encode()) <= 4096
    for text in (message["text"], embed["embeds"][0]["description"], notification["message"]):
        assert text.endswith(f"{letter}…")


async def test_markup_in_what_is_told_stays_text(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    markup = '@everyone <b>*a*</b> <@1> [x](https://evil.example) `%s {0}\n"'
    alert = an_alert(document=markup, summary=f"{markup} was broken.")

    for kind in SERVICES:
        assert (await a_sink(kind, receiver.url, session).send(alert)).delivered

    hook, message, embed, notification = (asked.value() for asked in receiver.asked)
    assert hook["resource"]["document"] == {"name": markup}
    assert markup in message["text"]
    assert not {"parse_mode", "entities"} & set(message)
    assert "content" not in embed
    assert embed["allowed_mentions"] == {"parse": []}
    assert markup in notification["message"]
    assert not {"markdown", "click", "actions", "attach"} & set(notification)


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_name_that_is_no_unicode_is_told_all_the_same(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    """As Python reads a path whose bytes are no UTF-8: JSON has no letter for these."""
    alert = an_alert(summary="/data/caf\udce9 is not there.")

    delivery = await a_sink(kind, receiver.url, session).send(alert)

    assert delivery.delivered, delivery.detail
    assert "/data/caf" in receiver.asked[0].body.decode("utf-8")


# the log


@pytest.mark.parametrize(
    ("severity", "state", "level"),
    [
        (Severity.INFO, "open", logging.INFO),
        (Severity.WARNING, "open", logging.WARNING),
        (Severity.CRITICAL, "open", logging.ERROR),
        (Severity.CRITICAL, "resolved", logging.INFO),
    ],
)
async def test_the_log_gets_one_line_whose_level_follows_the_severity(
    session: aiohttp.ClientSession,
    log: pytest.LogCaptureFixture,
    severity: Severity,
    state: State,
    level: int,
) -> None:
    [sink] = build_sinks([], session, a_source())

    delivery = await sink.send(an_alert(severity=severity, state=state))

    [line] = [record for record in log.records if record.name == "seline.alerts"]
    assert delivery == Delivery(sink="log", kind="log", delivered=True)
    assert line.levelno == level
    assert line.getMessage().startswith("user_profile.json was broken and has been recovered.")
    said = vars(line)
    assert (said["alert"], said["alert_id"]) == ("recovery", "0123456789abcdef")
    assert (said["state"], said["severity"]) == (state, severity.value)
    assert (said["document"], said["count"]) == ("user_profile.json", 1)


async def test_what_is_told_on_several_lines_is_one_line_of_the_log(
    session: aiohttp.ClientSession,
    log: pytest.LogCaptureFixture,
) -> None:
    [sink] = build_sinks([], session, a_source())

    await sink.send(an_alert(summary="It failed: 100 %s\nERROR forged\r\n  line."))

    [line] = [record for record in log.records if record.name == "seline.alerts"]
    assert line.getMessage() == ("It failed: 100 %s ERROR forged line. Look at what was set aside.")


# from the settings


async def test_the_log_comes_first_unless_it_is_named(session: aiohttp.ClientSession) -> None:
    hook = a_spec("webhook", "http://127.0.0.1:9")
    named = SinkSpec(kind="log", name="journal", min_severity=Severity.CRITICAL)

    unnamed_first = build_sinks([hook], session, a_source())
    as_named = build_sinks([hook, named], session, a_source())

    assert [sink.kind for sink in unnamed_first] == ["log", "webhook"]
    assert unnamed_first[0].min_severity is Severity.INFO
    assert [sink.name for sink in as_named] == ["my webhook", "journal"]
    assert as_named[1].min_severity is Severity.CRITICAL


@pytest.mark.parametrize("taken", [[], ["log"], ["log", "log 2"], ["log 3", "log", "log 2"]])
async def test_the_log_takes_a_name_that_nobody_bears(
    session: aiohttp.ClientSession, taken: list[str]
) -> None:
    specs = [a_spec("webhook", "http://127.0.0.1:9", name=name) for name in taken]

    names = [sink.name for sink in build_sinks(specs, session, a_source())]

    assert names[1:] == taken
    assert len(set(names)) == len(names)


# the sign of life


@dataclass(slots=True)
class Moods:
    """Answers by a list of statuses, then with success."""

    statuses: list[int] = field(default_factory=list[int])

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        status = self.statuses.pop(0) if self.statuses else 200
        return await repeat_everything(request, status)


def a_heartbeat(url: str, session: aiohttp.ClientSession) -> Heartbeat:
    return Heartbeat(session=session, url=f"{url}/ping/path-secret?rid=secret", pause_s=0)


async def test_a_heartbeat_is_one_get_of_its_address(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_heartbeat(receiver.url, session).send()

    [asked] = receiver.asked
    assert (delivery.delivered, delivery.kind) == (True, "heartbeat")
    assert (asked.method, asked.path) == ("GET", "/ping/path-secret?rid=secret")
    assert (asked.body, asked.headers["User-Agent"]) == (b"", "seline")


async def test_a_heartbeat_is_tried_again_until_it_arrives(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answering = Moods([500, 429])

    assert (await a_heartbeat(receiver.url, session).send()).delivered
    assert len(receiver.asked) == ATTEMPTS == 3


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_a_heartbeat_that_never_arrives_says_so_without_its_address(
    receiver: Receiver, session: aiohttp.ClientSession, status: int
) -> None:
    receiver.answering = Moods([status] * 9)
    heartbeat = a_heartbeat(receiver.url, session)

    delivery = await heartbeat.send()

    assert harmless(delivery, receiver).detail.startswith(f"it answered {status}")
    assert len(receiver.asked) == ATTEMPTS
    assert "secret" not in repr(heartbeat)


async def test_a_heartbeat_to_nobody_is_an_answer(session: aiohttp.ClientSession) -> None:
    async with listening(at_once=False) as receiver:
        delivery = await a_heartbeat(receiver.url, session).send()

    assert harmless(delivery, receiver).detail == "cannot connect: Connection refused"
