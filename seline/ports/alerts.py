"""The port of an alert sink: what it promises to the queue that delivers to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seline.domain.alerts.lifecycle import Alert, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The outcome of one attempt to deliver an alert to a sink.

    `detail` is the reason of a failure, without addresses, tokens or headers; empty on success.
    `retry_after_s` is how long the sink asks to wait. `refused`: the sink does not accept this
    alert, but may accept others.
    """

    sink: str
    kind: str
    delivered: bool
    detail: str = ""
    retry_after_s: float | None = None
    refused: bool = False
    took_ms: float = 0.0


class AlertSink(Protocol):
    """A channel that brings alerts to a person: a chat, a phone, a log, a program.

    A sink has no queue and no state. The caller retries.
    """

    @property
    def name(self) -> str:
        """The name in the settings: unique, and not secret."""
        ...

    @property
    def kind(self) -> str:
        """`log`, `webhook`, `telegram`, and so on."""
        ...

    @property
    def min_severity(self) -> Severity:
        """The lowest severity to send."""
        ...

    async def send(self, alert: Alert) -> Delivery:
        """Deliver one alert within a bounded time and return the outcome.

        `delivered` is True only after the receiver has confirmed the alert. Delivery is at least
        once: receivers recognize a repeated alert by id, state and count. Raises only on
        cancellation. Neither the outcome nor a log line contains a secret.
        """
        ...
