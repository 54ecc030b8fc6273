"""Delivering alerts: when to try again, and what to give up where too much waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from seline.domain.alerts.lifecycle import Alert

BACKOFF_FIRST_S: Final = 2.0
BACKOFF_MAX_S: Final = 300.0
RETRY_AFTER_MAX_S: Final = 3600.0
WAITING_MAX: Final = 200
WAITS_AT_MOST: Final = timedelta(days=7)
_DOUBLINGS_MAX: Final = 16


def backoff_s(failures: int, *, jitter: float, retry_after_s: float | None = None) -> float:
    """Return how long to wait after so many failures in a row.

    Doubles from 2 s to 5 min, shortened at random by up to half (`jitter` from 0 to 1), so that
    many senders do not return at one moment; never less than the other side asked for, which is
    believed up to an hour.
    """
    doubled_s = BACKOFF_FIRST_S * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)
    waits_s = min(doubled_s, BACKOFF_MAX_S) * (1 - jitter / 2)
    asked_s = min(max(retry_after_s or 0.0, 0.0), RETRY_AFTER_MAX_S)
    return max(waits_s, asked_s)


def bounded(waiting: Sequence[Alert], now: datetime) -> tuple[Alert, ...]:
    """Return what may go on waiting, in order: not what is a week old, and 200 at most.

    Of too many the least severe go first, of these the oldest.
    """
    fresh = [alert for alert in waiting if now - alert.last_at <= WAITS_AT_MOST]
    surplus = max(0, len(fresh) - WAITING_MAX)
    order = sorted(range(len(fresh)), key=lambda index: (fresh[index].severity.rank, index))
    leave = frozenset(order[:surplus])
    return tuple(alert for index, alert in enumerate(fresh) if index not in leave)
