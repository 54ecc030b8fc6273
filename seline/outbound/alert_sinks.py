"""From the settings' list to sinks, by one table of kinds. The log is always among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final, TypeAlias

import aiohttp

from seline.domain.alerts.sink_spec import SinkSpec
from seline.domain.texts import Language
from seline.outbound.discord import DiscordSink
from seline.outbound.log import LogSink
from seline.outbound.ntfy import NtfySink
from seline.outbound.telegram import API, TelegramSink
from seline.outbound.webhook import WebhookSink
from seline.ports.alerts import AlertSink


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkContext:
    """What every sink shares: the session, and what alerts are about.

    `service` is what a person calls this process (several bots may write to one chat), `place`
    the data directory.
    """

    session: aiohttp.ClientSession
    service: str
    place: str
    language: Language


def build_sinks(specs: Sequence[SinkSpec], around: SinkContext) -> tuple[AlertSink, ...]:
    """Return the sinks, in order; the log comes first where it is not named."""
    sinks = tuple(BUILD[spec.kind](spec, around) for spec in specs)
    logged = any(spec.kind == "log" for spec in specs)
    return sinks if logged else (LogSink(name=_free_name(specs)), *sinks)


def _free_name(specs: Sequence[SinkSpec]) -> str:
    """Return a name for the log that no other sink bears."""
    taken = {spec.name for spec in specs}
    numbered = (f"log {number}" for number in count(2))
    return next(name for name in chain(("log",), numbered) if name not in taken)


def _log(spec: SinkSpec, _around: SinkContext) -> AlertSink:
    return LogSink(name=spec.name, min_severity=spec.min_severity)


def _webhook(spec: SinkSpec, around: SinkContext) -> AlertSink:
    return WebhookSink(
        name=spec.name,
        min_severity=spec.min_severity,
        session=around.session,
        url=_given(spec.url),
        service=around.service,
        place=around.place,
        token=spec.token,
    )


def _telegram(spec: SinkSpec, around: SinkContext) -> AlertSink:
    return TelegramSink(
        name=spec.name,
        min_severity=spec.min_severity,
        session=around.session,
        token=_given(spec.token),
        chat_id=_given(spec.chat_id),
        service=around.service,
        language=around.language,
        url=spec.url or API,
    )


def _discord(spec: SinkSpec, around: SinkContext) -> AlertSink:
    return DiscordSink(
        name=spec.name,
        min_severity=spec.min_severity,
        session=around.session,
        url=_given(spec.url),
        service=around.service,
        language=around.language,
    )


def _ntfy(spec: SinkSpec, around: SinkContext) -> AlertSink:
    return NtfySink(
        name=spec.name,
        min_severity=spec.min_severity,
        session=around.session,
        url=_given(spec.url),
        service=around.service,
        language=around.language,
        token=spec.token,
    )


_Build: TypeAlias = Callable[[SinkSpec, SinkContext], AlertSink]
BUILD: Final[Mapping[str, _Build]] = {
    "log": _log,
    "webhook": _webhook,
    "telegram": _telegram,
    "discord": _discord,
    "ntfy": _ntfy,
}


def _given(value: str | None) -> str:
    assert value is not None, "the settings refuse a sink without it"
    return value
