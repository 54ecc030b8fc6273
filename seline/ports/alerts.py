"""The port of an alert sink: what it promises to the queue that delivers to it.

And that of the buttons under an alert, which a chat of the same process adds.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from weakref import WeakValueDictionary

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSink:
    """A channel that brings alerts to a person: a chat, a phone, a log, a program.

    `name` is unique and not secret; `kind` is `log`, `webhook`, and so on; `min_severity` is the
    lowest severity to send. A sink has no queue and no state: the caller retries.

    `send` delivers one alert within a bounded time and returns the outcome. `delivered` is True
    only after the receiver has confirmed the alert. Delivery is at least once: receivers recognize
    a repeated alert by id, state and count. It raises only on cancellation. Neither the outcome nor
    a log line contains a secret.
    """

    name: str
    kind: str
    min_severity: Severity
    send: Callable[[Alert], Awaitable[Delivery]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """The state of one sink as `GET /alerts` shows it.

    `failures` counts the failed attempts since the last success; `detail` is the reason of the last
    one. `given_up` counts the alerts that were dropped since the start.
    """

    name: str
    kind: str
    min_severity: Severity
    waiting: int = 0
    failures: int = 0
    detail: str = ""
    given_up: int = 0
    delivered_at: datetime | None = None


class AlertButtons(Protocol):
    """A chat that answers the buttons under the alerts that its bot sends."""

    def under_alert(self, alert: Alert, *, data_dir: str, chat: str) -> Sequence[tuple[str, str]]:
        """Return (label, data) of each button; none where the chat would not answer a press.

        `chat` is where the alert is sent, `data_dir` has the documents.
        """
        ...


CHATS: Final[WeakValueDictionary[str, AlertButtons]] = WeakValueDictionary()
"""The chats of this process, by the token of their bot."""
