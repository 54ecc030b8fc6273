"""The sinks of alerts: the log, and the services that accept an alert over HTTP.

A new kind of sink is one encoder here and one row in `ENCODERS`; the settings that it accepts are
a row of `FIELDS_OF` in `domain/alerts/sink_spec.py`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from seline.clock import instant_text
from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.alerts.message import body, cut, level_of, title
from seline.domain.alerts.sink_spec import SinkSpec
from seline.domain.document import Json
from seline.outbound.http_client import HttpRequest, deliver
from seline.ports.alerts import CHATS, AlertSink, Delivery
from seline.settings import Settings

TELEGRAM_API: Final = "https://api.telegram.org"
TELEGRAM_CHARACTERS_MAX: Final = 4096
DISCORD_TITLE_CHARACTERS_MAX: Final = 256
DISCORD_CHARACTERS_MAX: Final = 4096
NTFY_CHARACTERS_MAX: Final = 1024
"""ntfy accepts 4,096 bytes, and UTF-8 needs up to four for a character."""

_DISCORD_COLORS: Final[Mapping[str, int]] = {
    Severity.INFO: 0x3B82F6,
    Severity.WARNING: 0xF59E0B,
    Severity.CRITICAL: 0xDC2626,
    "resolved": 0x16A34A,
}
_NTFY_PRIORITIES: Final[Mapping[str, int]] = {
    Severity.INFO: 2,
    Severity.WARNING: 4,
    Severity.CRITICAL: 5,
    "resolved": 3,
}
_LOG_LEVELS: Final[Mapping[str, int]] = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
    "resolved": logging.INFO,
}
_log = logging.getLogger("seline.alerts")


def build_sinks(settings: Settings, session: aiohttp.ClientSession) -> tuple[AlertSink, ...]:
    """Return the sinks in the order of the settings, after a log sink if none is configured."""
    specs = settings.alerts.sinks
    if all(spec.kind != "log" for spec in specs):
        specs = (SinkSpec(kind="log", name=_unused_name(specs)), *specs)
    return tuple(
        AlertSink(
            name=spec.name,
            kind=spec.kind,
            min_severity=spec.min_severity,
            send=partial(_send, settings, session, spec),
        )
        for spec in specs
    )


async def _send(
    settings: Settings, session: aiohttp.ClientSession, spec: SinkSpec, alert: Alert
) -> Delivery:
    if spec.kind == "log":
        _write_log(alert)
        return Delivery(sink=spec.name, kind=spec.kind, delivered=True)
    request = ENCODERS[spec.kind](settings, spec, alert)
    return await deliver(session, request, sink=spec.name, kind=spec.kind)


def _write_log(alert: Alert) -> None:
    """Write one line. Its level follows the severity; a resolved alert is INFO."""
    _log.log(
        _LOG_LEVELS[level_of(alert)],
        "%s",
        " ".join(f"{alert.summary} {alert.fix}".split()),
        extra={
            "alert": alert.type.value,
            "alert_id": alert.id,
            "state": alert.state,
            "severity": alert.severity.value,
            "document": alert.document,
            "count": alert.count,
        },
    )


def _unused_name(specs: Sequence[SinkSpec]) -> str:
    """Return `log`, or `log 2` and so on if a sink already has that name."""
    used = {spec.name for spec in specs}
    numbered = (f"log {number}" for number in count(2))
    return next(name for name in chain(("log",), numbered) if name not in used)


def _webhook(settings: Settings, spec: SinkSpec, alert: Alert) -> HttpRequest:
    """Encode an alert in the shape of Railway's webhooks, with `id` and `state` added.

    Railway sends `type`, `details`, `resource`, `severity` (in capitals) and `timestamp`, so one
    receiver can handle both.
    """
    resource: dict[str, Json] = {
        "service": {"name": settings.service},
        "volume": {"mountPath": settings.data_dir},
    }
    if alert.document is not None:
        resource["document"] = {"name": alert.document}
    return HttpRequest(
        url=_required(spec.url),
        payload={
            "id": alert.id,
            "type": alert.type.value,
            "state": alert.state,
            "severity": alert.severity.value.upper(),
            "timestamp": instant_text(alert.last_at),
            "resource": resource,
            "details": {
                **alert.details,
                "summary": alert.summary,
                "fix": alert.fix,
                "count": alert.count,
                "firstAt": instant_text(alert.first_at),
                "lastAt": instant_text(alert.last_at),
            },
        },
        headers=_authorization(spec.token),
        secrets=_secrets(spec.url, spec.token),
    )


def _telegram(settings: Settings, spec: SinkSpec, alert: Alert) -> HttpRequest:
    """Encode an alert as a plain-text bot message, silent if it only informs or is resolved."""
    language = settings.alerts.language
    text = f"{title(alert, settings.service, language)}\n{body(alert, language)}"
    api = (spec.url or TELEGRAM_API).rstrip("/")
    buttons = _buttons(settings, spec, alert)
    return HttpRequest(
        url=f"{api}/bot{_required(spec.token)}/sendMessage",
        payload={
            "chat_id": _required(spec.chat_id),
            "text": cut(text, TELEGRAM_CHARACTERS_MAX),
            "disable_notification": level_of(alert) in (Severity.INFO, "resolved"),
            "link_preview_options": {"is_disabled": True},
            **({"reply_markup": {"inline_keyboard": [buttons]}} if buttons else {}),
        },
        secrets=_secrets(spec.token, spec.chat_id),
        confirmation=("ok",),
        reason=("description",),
        retry_after=("parameters", "retry_after"),
    )


def _buttons(settings: Settings, spec: SinkSpec, alert: Alert) -> list[Json]:
    """Return the buttons of the chat that this bot has in the process, if it has one."""
    chat = CHATS.get(_required(spec.token))
    if chat is None:
        return []
    where = _required(spec.chat_id)
    buttons = chat.under_alert(alert, data_dir=settings.data_dir, chat=where)
    return [{"text": label, "callback_data": data} for label, data in buttons]


def _discord(settings: Settings, spec: SinkSpec, alert: Alert) -> HttpRequest:
    """Encode an alert as one embed that mentions no one.

    `wait=true` makes Discord answer after it has saved the message.
    """
    url = urlsplit(_required(spec.url))
    query = f"{url.query}&wait=true" if url.query else "wait=true"
    language = settings.alerts.language
    embed: dict[str, Json] = {
        "title": cut(title(alert, settings.service, language), DISCORD_TITLE_CHARACTERS_MAX),
        "description": cut(body(alert, language), DISCORD_CHARACTERS_MAX),
        "color": _DISCORD_COLORS[level_of(alert)],
        "timestamp": instant_text(alert.last_at),
        "footer": {"text": alert.id},
    }
    return HttpRequest(
        url=urlunsplit(url._replace(query=query)),
        payload={"embeds": [embed], "allowed_mentions": {"parse": []}},
        secrets=_secrets(spec.url, url.path.rstrip("/").rpartition("/")[2]),
        reason=("message",),
        retry_after=("retry_after",),
    )


def _ntfy(settings: Settings, spec: SinkSpec, alert: Alert) -> HttpRequest:
    """Encode an alert as JSON for the server's root: HTTP headers cannot hold accents.

    The last part of the address is the topic. It is a secret: who knows it can read and publish.
    """
    server, _, topic = _required(spec.url).rstrip("/").rpartition("/")
    return HttpRequest(
        url=f"{server}/",
        payload={
            "topic": topic,
            "title": title(alert, settings.service, settings.alerts.language),
            "message": cut(body(alert, settings.alerts.language), NTFY_CHARACTERS_MAX),
            "priority": _NTFY_PRIORITIES[level_of(alert)],
            "tags": [alert.type.value],
        },
        headers=_authorization(spec.token),
        secrets=_secrets(spec.url, topic, spec.token),
        reason=("error",),
    )


_Encoder: TypeAlias = Callable[[Settings, SinkSpec, Alert], HttpRequest]
ENCODERS: Final[Mapping[str, _Encoder]] = {
    "webhook": _webhook,
    "telegram": _telegram,
    "discord": _discord,
    "ntfy": _ntfy,
}


def _authorization(token: str | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _secrets(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)


def _required(value: str | None) -> str:
    assert value is not None, "the settings refuse a sink without this field"
    return value
