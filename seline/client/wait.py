"""How long to wait for the process that holds the data directory.

Each new holder restarts the wait, because commands that start together follow one another. A holder
that serves commands, or has not written server.json yet, is opening or closing the volume: its
socket opens soon. A holder that serves no commands may keep the directory for good.
`WAIT_S_MAX` bounds the whole wait.
"""

from collections.abc import Mapping
from typing import Any, Final

HOLDER_WAIT_S: Final = 5.0
SERVER_WAIT_S: Final = 30.0
"""Longer than a server may take to stop (8 s for its requests, 3 s for the disk)."""
WAIT_S_MAX: Final = 120.0
NOTICE_AFTER_S: Final = 2.0


class Wait:
    """One command's wait. `now_s` is monotonic time."""

    def __init__(self) -> None:
        """Start with no holder observed."""
        self._holder: Mapping[str, Any] | None = None
        self._since_s = 0.0
        self._until_s = 0.0
        self._notified = False

    def observe(self, holder: Mapping[str, Any], *, now_s: float) -> bool:
        """Record the holder; return whether it is the same as at the last call.

        Act on a holder only at its second observation: until a new owner writes server.json, the
        file still describes the previous owner.
        """
        if holder == self._holder:
            return True
        if self._holder is None:
            self._since_s = now_s
        self._holder = holder
        waits = not holder or serves_commands(holder)
        self._until_s = now_s + (SERVER_WAIT_S if waits else HOLDER_WAIT_S)
        return False

    def is_over(self, *, now_s: float) -> bool:
        """Return whether the time for this holder, or for all of them, is used up."""
        return now_s > min(self._until_s, self._since_s + WAIT_S_MAX)

    def notice_is_due(self, *, now_s: float) -> bool:
        """Return True once, when the wait has become long enough to notify a person."""
        due = not self._notified and now_s > self._since_s + NOTICE_AFTER_S
        self._notified = self._notified or due
        return due


def serves_commands(holder: Mapping[str, Any]) -> bool:
    """Return whether a holder's server.json announces a socket for commands."""
    return holder.get("serves_commands") is True
