"""When to retry a failed delivery, and which alerts to drop if too many wait."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from seline.domain.alerts.lifecycle import Alert

BACKOFF_FIRST_S: Final = 2.0
BACKOFF_MAX_S: Final = 300.0
RETRY_AFTER_MAX_S: Final = 3600.0
WAITING_MAX: Final = 500
WAITING_AGE_MAX: Final = timedelta(days=7)
_DOUBLINGS_MAX: Final = 16


def backoff_s(failures: int, *, jitter: float, retry_after_s: float | None = None) -> float:
    """Return the seconds to wait after a number of failures in a row.

    The wait doubles from 2 s to 5 min. `jitter` (0 to 1) shortens it by up to half, so that many
    senders do not retry at the same moment. The sink's `retry_after_s` is a minimum, up to an hour.
    """
    doubled_s = BACKOFF_FIRST_S * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)
    wait_s = min(doubled_s, BACKOFF_MAX_S) * (1 - jitter / 2)
    asked_s = min(max(retry_after_s or 0.0, 0.0), RETRY_AFTER_MAX_S)
    return max(wait_s, asked_s)


def bounded(waiting: Sequence[Alert], now: datetime) -> tuple[Alert, ...]:
    """Return the alerts that stay in a queue, in order: at most a week old, and 500 at most.

    If there are more, the least severe are dropped first, and among these the oldest.
    """
    fresh = [alert for alert in waiting if now - alert.last_at <= WAITING_AGE_MAX]
    surplus = max(0, len(fresh) - WAITING_MAX)
    order = sorted(range(len(fresh)), key=lambda index: (fresh[index].severity.rank, index))
    dropped = frozenset(order[:surplus])
    return tuple(alert for index, alert in enumerate(fresh) if index not in dropped)
