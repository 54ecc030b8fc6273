"""Each sink against a real receiver: the request that each service expects, and every failure.

Every secret here contains the word `secret`, and a receiver that refuses repeats what it received.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from seline.domain.alerts.lifecycle import Alert, AlertType, Severity
from seline.domain.alerts.sink_spec import SinkSpec
from seline.domain.texts import Language
from seline.outbound import alert_sinks
from seline.outbound.alert_sinks import build_sinks
from seline.outbound.heartbeat import ATTEMPTS, send_heartbeat
from seline.outbound.http_client import open_session
from seline.ports.alerts import AlertSink, Delivery
from seline.settings import Settings
from seline.settings.values import Alerting
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
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
State = Literal["open", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request that a receiver got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def value(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """A service on a loopback socket: it records the requests and answers as the test sets it."""

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self.answer: Answer = confirm
        self.over = asyncio.Event()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._runner: web.AppRunner | None = None
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        """Listen. Until then the port is reserved and connections are refused."""
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
        """Answer every further request with this, as JSON if there is a value."""

        async def answer(_request: web.Request) -> web.StreamResponse:
            if value is None:
                return web.Response(status=status, headers=headers)
            return web.json_response(value, status=status, headers=headers)

        self.answer = answer

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(
            ReceivedRequest(
                method=request.method,
                path=request.raw_path,
                headers=dict(request.headers),
                body=await request.read(),
            )
        )
        return await self.answer(request)


async def confirm(_request: web.Request) -> web.StreamResponse:
    """Confirm the alert as every service does: Telegram needs `ok`."""
    return web.json_response({"ok": True})


@asynccontextmanager
async def listening(*, at_once: bool = True) -> AsyncIterator[Receiver]:
    """Yield a receiver; with `at_once=False` it refuses connections until it is started."""
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
    """Collect the log of every test and check that it contains no secret."""
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
    """Return the settings of a sink, with every secret."""
    secrets = SECRETS_OF[kind]
    spec = SinkSpec(
        kind=kind,
        name=f"my {kind}",
        url=base + secrets["path"],
        token=secrets.get("token"),
        chat_id=secrets.get("chat_id"),
    )
    return replace(spec, **given)


def settings_of(*sinks: SinkSpec, service: str = SERVICE, language: Language = "en") -> Settings:
    return Settings(
        alerts=Alerting(language=language, sinks=sinks), service=service, data_dir=DATA_DIR
    )


def a_sink(
    kind: str,
    base: str,
    session: aiohttp.ClientSession,
    *,
    service: str = SERVICE,
    language: Language = "en",
    **given: Any,
) -> AlertSink:
    spec = a_spec(kind, base, **given)
    return build_sinks(settings_of(spec, service=service, language=language), session)[-1]


def without_secrets(delivery: Delivery, receiver: Receiver) -> Delivery:
    """Return a failed delivery; check that it has a reason and no secret."""
    assert not delivery.delivered
    assert delivery.detail
    for hidden in ("secret", receiver.url, receiver.url.removeprefix("http://")):
        assert hidden not in str(delivery)
    return delivery


async def repeat_everything(request: web.Request, status: int) -> web.StreamResponse:
    """Answer with every secret of the request, in the error field of each service."""
    topic = (await request.read()).decode()[:30]
    sent = f"{request.raw_path} {request.headers.get('Authorization')} {topic}"
    value = {"description": sent, "message": sent, "error": sent}
    return web.json_response(value, status=status, reason=sent)


# a proxy


@pytest.mark.parametrize(("no_proxy", "through"), [("", True), ("hooks.example,127.0.0.1", False)])
async def test_a_proxy_of_the_environment_is_used_except_for_the_hosts_of_no_proxy(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    no_proxy: str, through: bool,
) -> None:  # fmt: skip
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    async with listening() as proxy, open_session() as session:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://me:secret@"))
        monkeypatch.setenv("NO_PROXY", no_proxy)
        delivery = await a_sink("webhook", receiver.url, session).send(an_alert())
        beat = await send_heartbeat(session, receiver.url + "/ping")

    assert (delivery.delivered, beat.delivered) == (True, True)
    assert [len(place.requests) for place in (proxy, receiver)] == ([2, 0] if through else [0, 2])
    if through:
        assert proxy.requests[0].headers["Proxy-Authorization"].startswith("Basic ")


async def test_an_address_with_tls_is_asked_of_the_proxy_by_its_name(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Queue[bytes]()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(await reader.readline())
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        delivery = await a_sink("telegram", "", session, url=None).send(an_alert())

    assert asked.get_nowait() == b"CONNECT api.telegram.org:443 HTTP/1.1\r\n"
    assert delivery.detail == "the proxy that the environment sets answered 407"


@pytest.mark.parametrize(
    ("proxy", "detail"),
    [
        ("http://127.0.0.1:9", "the proxy that the environment sets cannot be reached"),
        ("socks5://127.0.0.1:9", "the proxy that the environment sets is not an http:// address"),
        ("127.0.0.1:9", "the proxy that the environment sets cannot be reached"),
        ("http://nowhere.invalid:3128", "the proxy that the environment sets cannot be reached"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, proxy: str, detail: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    delivery = await a_sink("telegram", "", session, url=None).send(an_alert())

    assert (delivery.delivered, delivery.detail) == (False, detail)


# the request to each service


async def test_a_webhook_gets_the_shape_of_railway_with_id_and_state(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("webhook", receiver.url, session).send(an_alert(count=2))

    [request] = receiver.requests
    assert delivery.delivered
    assert (request.method, request.path) == ("POST", "/hooks/path-secret")
    assert request.headers["Authorization"] == "Bearer token-secret"
    assert request.value() == {
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


async def test_a_webhook_names_a_document_only_if_the_alert_has_one(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    await a_sink("webhook", receiver.url, session).send(an_alert(document=None))

    assert set(receiver.requests[0].value()["resource"]) == {"service", "volume"}


async def test_telegram_gets_a_plain_text_message(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("telegram", receiver.url, session).send(an_alert())

    [request] = receiver.requests
    assert delivery.delivered
    assert (request.method, request.path) == ("POST", "/bot123456:token-secret/sendMessage")
    assert "Authorization" not in request.headers
    assert request.value() == {
        "chat_id": "@chat-secret",
        "text": (
            "⚠️ my-bot: warning\n"
            "user_profile.json was broken and has been recovered.\n"
            "Next: Look at what was set aside."
        ),
        "disable_notification": False,
        "link_preview_options": {"is_disabled": True},
    }


def test_telegram_has_a_default_address() -> None:
    encode = alert_sinks.ENCODERS["telegram"]

    request = encode(settings_of(), a_spec("telegram", "", url=None), an_alert())

    assert request.url == "https://api.telegram.org/bot123456:token-secret/sendMessage"


async def test_discord_gets_one_embed_with_wait_in_the_address(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("discord", receiver.url, session).send(an_alert())

    [request] = receiver.requests
    assert delivery.delivered
    assert (request.method, request.path) == ("POST", "/api/webhooks/42/token-secret?wait=true")
    assert "Authorization" not in request.headers
    assert request.value() == {
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


async def test_the_thread_of_discord_stays_in_the_address(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    url = f"{receiver.url}/api/webhooks/42/token-secret?thread_id=7"

    await a_sink("discord", "", session, url=url).send(an_alert())

    assert receiver.requests[0].path.endswith("/token-secret?thread_id=7&wait=true")


async def test_ntfy_gets_json_at_the_root_of_the_server(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await a_sink("ntfy", receiver.url, session).send(an_alert())

    [request] = receiver.requests
    assert delivery.delivered
    assert (request.method, request.path) == ("POST", "/")
    assert request.headers["Authorization"] == "Bearer token-secret"
    assert request.value() == {
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
async def test_a_server_of_ntfy_can_have_a_path(
    receiver: Receiver, session: aiohttp.ClientSession, address: str, path: str
) -> None:
    await a_sink("ntfy", "", session, url=receiver.url + address).send(an_alert())

    assert receiver.requests[0].path == path
    assert receiver.requests[0].value()["topic"] == "topic-secret"


@pytest.mark.parametrize("kind", ["webhook", "ntfy"])
async def test_without_a_token_there_is_no_authorization(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    await a_sink(kind, receiver.url, session, token=None).send(an_alert())

    assert "Authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize("kind", SERVICES)
async def test_every_service_gets_utf_8_and_the_user_agent(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    alert = an_alert(summary="Le fichier d'Élodie était cassé.")

    await a_sink(kind, receiver.url, session, language="fr", service="bot à moi").send(alert)

    [request] = receiver.requests
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    assert request.headers["User-Agent"] == "seline"
    assert "Élodie" in request.body.decode("utf-8")
    assert "bot à moi" in request.body.decode("utf-8")
    assert kind == "webhook" or "À faire :" in request.body.decode("utf-8")


async def test_a_repeated_alert_has_its_count_and_its_start(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    await a_sink("telegram", receiver.url, session).send(an_alert(count=3))

    assert "\n3 times since 2025-01-06 11:00 UTC.\n" in receiver.requests[0].value()["text"]


@pytest.mark.parametrize(
    ("severity", "state", "sound", "color", "priority"),
    [
        (Severity.INFO, "open", False, 0x3B82F6, 2),
        (Severity.WARNING, "open", True, 0xF59E0B, 4),
        (Severity.CRITICAL, "open", True, 0xDC2626, 5),
        (Severity.CRITICAL, "resolved", False, 0x16A34A, 3),
    ],
)
async def test_the_severity_sets_sound_color_and_priority(
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

    message, embed, notification = (request.value() for request in receiver.requests)
    assert message["disable_notification"] is not sound
    assert embed["embeds"][0]["color"] == color
    assert notification["priority"] == priority


async def test_cookies_are_not_sent_back(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answers(200, headers={"Set-Cookie": "a=b; Path=/"})
    sink = a_sink("webhook", receiver.url, session)

    for _ in range(2):
        await sink.send(an_alert())

    assert "Cookie" not in receiver.requests[1].headers


# success


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("kind", ["webhook", "discord", "ntfy"])
async def test_every_success_status_delivers(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, status: int
) -> None:
    receiver.answers(status)

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert (delivery.sink, delivery.kind) == (f"my {kind}", kind)
    assert (delivery.delivered, delivery.detail) == (True, "")
    assert delivery.took_ms > 0


@pytest.mark.parametrize("answer", [{"ok": False, "description": "no"}, {"ok": 1}, {}, [], "ok"])
async def test_telegram_delivers_only_with_ok_in_the_answer(
    receiver: Receiver, session: aiohttp.ClientSession, answer: object
) -> None:
    receiver.answers(200, answer)

    delivery = await a_sink("telegram", receiver.url, session).send(an_alert())

    assert without_secrets(delivery, receiver).detail.startswith("it answered 200")


# failures


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("kind", SERVICES)
async def test_a_refusal_has_the_status_and_no_secret(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, status: int
) -> None:
    receiver.answer = lambda request: repeat_everything(request, status)

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert without_secrets(delivery, receiver).detail.startswith(f"it answered {status}")
    assert delivery.refused is (status in {400, 413, 422})


@pytest.mark.parametrize(
    ("kind", "where"), [("telegram", "description"), ("discord", "message"), ("ntfy", "error")]
)
async def test_the_reason_of_a_service_is_cut_and_put_on_one_line(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, where: str
) -> None:
    receiver.answers(400, {where: "chat\nnot\tfound " + "x" * 1000})

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.detail.startswith("it answered 400 (chat not found xxx")
    assert len(delivery.detail) < 250


async def test_the_secret_of_a_discord_address_with_a_final_slash_is_masked(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answer = lambda request: repeat_everything(request, 404)
    url = f"{receiver.url}/api/webhooks/42/token-secret/"

    without_secrets(await a_sink("discord", "", session, url=url).send(an_alert()), receiver)


@pytest.mark.parametrize("reason", [None, 3, ["a"], {"a": 1}])
@pytest.mark.parametrize("kind", SERVICES)
async def test_a_reason_that_is_no_text_is_left_out(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, reason: object
) -> None:
    receiver.answers(500, {"description": reason, "message": reason, "error": reason})

    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.detail == "it answered 500"


@pytest.mark.parametrize("kind", SERVICES)
async def test_the_retry_after_header_is_read(
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


async def test_the_answers_of_telegram_and_discord_have_a_retry_time(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answers(
        429,
        {"ok": False, "parameters": {"retry_after": 33}, "retry_after": 0.75},
        {"Retry-After": "1"},
    )

    retry_after_s = [
        (await a_sink(kind, receiver.url, session).send(an_alert())).retry_after_s
        for kind in SERVICES
    ]

    assert retry_after_s == [1, 33, 0.75, 1]


@pytest.mark.parametrize(
    "retry_after", [True, None, [], {}, "soon", pytest.param(10**400, id="beyond all numbers")]
)
async def test_a_retry_time_that_is_no_number_is_left_out(
    receiver: Receiver, session: aiohttp.ClientSession, retry_after: object
) -> None:
    receiver.answers(
        429,
        {"parameters": {"retry_after": retry_after}, "retry_after": retry_after},
        {"Retry-After": "soon"},
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

    assert "redirect" in without_secrets(delivery, receiver).detail
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_service_that_never_answers_times_out(receiver: Receiver, kind: str) -> None:
    async def silent(_request: web.Request) -> web.StreamResponse:
        await receiver.over.wait()
        return web.Response()

    receiver.answer = silent
    async with open_session(SHORT) as session:
        delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert "no answer within" in without_secrets(delivery, receiver).detail


async def test_a_service_that_answers_byte_by_byte_times_out(receiver: Receiver) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not receiver.over.is_set():
            await answer.write(b" ")
            await asyncio.sleep(0.01)
        return answer

    receiver.answer = dripping
    async with open_session(aiohttp.ClientTimeout(total=0.3)) as session:
        delivery = await a_sink("webhook", receiver.url, session).send(an_alert())

    assert "no answer within" in without_secrets(delivery, receiver).detail


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_closed_connection_is_a_failure(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    async def closing(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    receiver.answer = closing
    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert "closed the connection" in without_secrets(delivery, receiver).detail
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("kind", SERVICES)
async def test_an_incomplete_answer_is_a_failure(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    async def breaking_off(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"ok": true')
        assert request.transport is not None
        request.transport.close()
        return answer

    receiver.answer = breaking_off
    without_secrets(await a_sink(kind, receiver.url, session).send(an_alert()), receiver)


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_refused_connection_is_named(session: aiohttp.ClientSession, kind: str) -> None:
    async with listening(at_once=False) as receiver:
        delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert without_secrets(delivery, receiver).detail == "cannot connect: Connection refused"


@pytest.mark.parametrize("kind", SERVICES)
async def test_an_unknown_host_is_named_without_its_name(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    delivery = await a_sink(kind, "http://secret-host.example", session).send(an_alert())

    assert without_secrets(delivery, receiver).detail == "its host name is not known"


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_server_without_tls_is_named(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    url = receiver.url.replace("http:", "https:")

    delivery = await a_sink(kind, url, session).send(an_alert())

    assert without_secrets(delivery, receiver).detail == "no secure connection can be made"


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_server_that_is_not_http_is_a_failure(
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
async def test_only_a_part_of_an_endless_answer_is_read(
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

    receiver.answer = endless
    delivery = await a_sink(kind, receiver.url, session).send(an_alert())

    assert delivery.delivered is (kind != "telegram")
    assert written < 64 << 20


@pytest.mark.parametrize("text", ["[" * 50_000, "{", "\xff", '{"ok": true'])
async def test_an_answer_that_is_no_json_is_no_confirmation(
    receiver: Receiver, session: aiohttp.ClientSession, text: str
) -> None:
    async def nonsense(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode("latin-1"), content_type="application/json")

    receiver.answer = nonsense

    assert not (await a_sink("telegram", receiver.url, session).send(an_alert())).delivered
    assert (await a_sink("discord", receiver.url, session).send(an_alert())).delivered


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_closed_session_is_a_failed_delivery(receiver: Receiver, kind: str) -> None:
    session = open_session()
    await session.close()

    without_secrets(await a_sink(kind, receiver.url, session).send(an_alert()), receiver)


@pytest.mark.parametrize("kind", SERVICES)
async def test_the_repr_of_a_sink_contains_no_secret(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    shown = repr(a_sink(kind, receiver.url, session)) + repr(a_spec(kind, receiver.url))

    assert f"my {kind}" in shown
    assert "secret" not in shown
    assert receiver.url not in shown


# texts


@pytest.mark.parametrize("letter", ["x", "é", "字", "😀"])
async def test_a_long_text_is_cut_to_what_the_service_accepts(
    receiver: Receiver, session: aiohttp.ClientSession, letter: str
) -> None:
    long = an_alert(summary=letter * 20_000)

    for kind in ("telegram", "discord", "ntfy"):
        await a_sink(kind, receiver.url, session, service="s" * 400).send(long)

    message, embed, notification = (request.value() for request in receiver.requests)
    assert len(message["text"]) == alert_sinks.TELEGRAM_CHARACTERS_MAX == 4096
    assert len(embed["embeds"][0]["title"]) == alert_sinks.DISCORD_TITLE_CHARACTERS_MAX == 256
    assert len(embed["embeds"][0]["description"]) == alert_sinks.DISCORD_CHARACTERS_MAX == 4096
    assert len(notification["message"]) == alert_sinks.NTFY_CHARACTERS_MAX >= 1000
    assert len(notification["message"].encode()) <= 4096
    for text in (message["text"], embed["embeds"][0]["description"], notification["message"]):
        assert text.endswith(f"{letter}…")


async def test_markup_in_an_alert_is_kept_as_text(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    markup = '@everyone <b>*a*</b> <@1> [x](https://evil.example) `%s {0}\n"'
    alert = an_alert(document=markup, summary=f"{markup} was broken.")

    for kind in SERVICES:
        assert (await a_sink(kind, receiver.url, session).send(alert)).delivered

    hook, message, embed, notification = (request.value() for request in receiver.requests)
    assert hook["resource"]["document"] == {"name": markup}
    assert markup in message["text"]
    assert not {"parse_mode", "entities"} & set(message)
    assert "content" not in embed
    assert embed["allowed_mentions"] == {"parse": []}
    assert markup in notification["message"]
    assert not {"markdown", "click", "actions", "attach"} & set(notification)


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_path_that_is_not_utf_8_is_delivered(
    receiver: Receiver, session: aiohttp.ClientSession, kind: str
) -> None:
    """Python decodes such a path with surrogates, which UTF-8 cannot encode."""
    alert = an_alert(summary="/data/caf\udce9 is not there.")

    delivery = await a_sink(kind, receiver.url, session).send(alert)

    assert delivery.delivered, delivery.detail
    assert "/data/caf" in receiver.requests[0].body.decode("utf-8")


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
async def test_the_level_of_a_log_line_follows_the_severity(
    session: aiohttp.ClientSession,
    log: pytest.LogCaptureFixture,
    severity: Severity,
    state: State,
    level: int,
) -> None:
    [sink] = build_sinks(settings_of(), session)

    delivery = await sink.send(an_alert(severity=severity, state=state))

    [line] = [record for record in log.records if record.name == "seline.alerts"]
    assert delivery == Delivery(sink="log", kind="log", delivered=True)
    assert line.levelno == level
    assert line.getMessage().startswith("user_profile.json was broken and has been recovered.")
    fields = vars(line)
    assert (fields["alert"], fields["alert_id"]) == ("recovery", "0123456789abcdef")
    assert (fields["state"], fields["severity"]) == (state, severity.value)
    assert (fields["document"], fields["count"]) == ("user_profile.json", 1)


async def test_an_alert_with_line_breaks_is_one_log_line(
    session: aiohttp.ClientSession, log: pytest.LogCaptureFixture
) -> None:
    [sink] = build_sinks(settings_of(), session)

    await sink.send(an_alert(summary="It failed: 100 %s\nERROR forged\r\n  line."))

    [line] = [record for record in log.records if record.name == "seline.alerts"]
    assert line.getMessage() == ("It failed: 100 %s ERROR forged line. Look at what was set aside.")


# from the settings


async def test_the_log_sink_comes_first_unless_it_is_configured(
    session: aiohttp.ClientSession,
) -> None:
    hook = a_spec("webhook", "http://127.0.0.1:9")
    named = SinkSpec(kind="log", name="journal", min_severity=Severity.CRITICAL)

    unnamed_first = build_sinks(settings_of(hook), session)
    as_named = build_sinks(settings_of(hook, named), session)

    assert [sink.kind for sink in unnamed_first] == ["log", "webhook"]
    assert unnamed_first[0].min_severity is Severity.INFO
    assert [sink.name for sink in as_named] == ["my webhook", "journal"]
    assert as_named[1].min_severity is Severity.CRITICAL


@pytest.mark.parametrize("taken", [[], ["log"], ["log", "log 2"], ["log 3", "log", "log 2"]])
async def test_the_log_sink_gets_an_unused_name(
    session: aiohttp.ClientSession, taken: list[str]
) -> None:
    specs = [a_spec("webhook", "http://127.0.0.1:9", name=name) for name in taken]

    names = [sink.name for sink in build_sinks(settings_of(*specs), session)]

    assert names[1:] == taken
    assert len(set(names)) == len(names)


# the heartbeat


@dataclass(slots=True)
class Statuses:
    """Answers with each status of a list, then with success."""

    statuses: list[int] = field(default_factory=list[int])

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        status = self.statuses.pop(0) if self.statuses else 200
        return await repeat_everything(request, status)


@pytest.fixture(autouse=True)
def no_pause_between_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seline.outbound.heartbeat.PAUSE_S", 0)


async def beat(url: str, session: aiohttp.ClientSession) -> Delivery:
    return await send_heartbeat(session, f"{url}/ping/path-secret?rid=secret")


async def test_a_heartbeat_is_one_get_of_its_address(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    delivery = await beat(receiver.url, session)

    [request] = receiver.requests
    assert (delivery.delivered, delivery.kind) == (True, "heartbeat")
    assert (request.method, request.path) == ("GET", "/ping/path-secret?rid=secret")
    assert (request.body, request.headers["User-Agent"]) == (b"", "seline")


async def test_a_heartbeat_is_retried_until_it_arrives(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.answer = Statuses([500, 429])

    assert (await beat(receiver.url, session)).delivered
    assert len(receiver.requests) == ATTEMPTS == 3


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_a_heartbeat_that_never_arrives_fails_without_its_address(
    receiver: Receiver, session: aiohttp.ClientSession, status: int
) -> None:
    receiver.answer = Statuses([status] * 9)

    delivery = await beat(receiver.url, session)

    assert without_secrets(delivery, receiver).detail.startswith(f"it answered {status}")
    assert len(receiver.requests) == ATTEMPTS


async def test_a_refused_heartbeat_is_a_failed_delivery(session: aiohttp.ClientSession) -> None:
    async with listening(at_once=False) as receiver:
        delivery = await beat(receiver.url, session)

    assert without_secrets(delivery, receiver).detail == "cannot connect: Connection refused"
