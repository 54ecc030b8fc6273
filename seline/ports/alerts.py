"""Alerts: what a sink promises to whoever delivers, and what a log of alerts promises to doors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from seline.domain.alerts.lifecycle import Alert, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one attempt to deliver one alert to one sink.

    `detail` says in plain words why it failed, never with an address, a token or a header in it;
    empty when it was delivered. `retry_after_s`: the sink asked for that much patience.
    `refused`: it seems to be this very alert that the sink does not take.
    """

    sink: str
    kind: str
    delivered: bool
    detail: str = ""
    retry_after_s: float | None = None
    refused: bool = False
    took_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """How a sink stands: how many alerts wait for it, and why, if it fails.

    `failures` counts the attempts that failed since the last that did not; `given_up` the alerts
    that waited too long, or were too many, since the start.
    """

    name: str
    kind: str
    min_severity: Severity
    waiting: int
    failures: int
    detail: str
    given_up: int
    delivered_at: datetime | None


class AlertSink(Protocol):
    """A place where a person hears of alerts: a chat, a phone, a log, a program.

    Sinks hold no queue and remember nothing: whoever calls them retries.
    """

    @property
    def name(self) -> str:
        """What the settings call it: unique, and harmless to show."""
        ...

    @property
    def kind(self) -> str:
        """`log`, `webhook`, `telegram`, and so on."""
        ...

    @property
    def min_severity(self) -> Severity:
        """The least that it wants to hear of."""
        ...

    async def send(self, alert: Alert) -> Delivery:
        """Deliver one alert, once; answer what became of it within a bounded time.

        Never raises but for cancellation. `delivered` is True only once the other side said that
        it has the alert. The same alert may be sent again (at least once): a receiver tells them
        apart by id, state and count. Neither the answer nor any log shows a secret.
        """
        ...


class AlertLog(Protocol):
    """The alerts as the doors see them."""

    def listing(self) -> Sequence[Alert]:
        """Return the alerts, open ones first, then the latest first; those resolved for a week."""
        ...

    def sinks(self) -> Sequence[SinkStatus]:
        """Return how each sink stands."""
        ...

    async def test(self) -> Sequence[Delivery]:
        """Send the test alert to every sink now, whatever its severity; return what became of it.

        Takes no longer than the slowest sink's one attempt; nothing of it is queued or kept.
        """
        ...
