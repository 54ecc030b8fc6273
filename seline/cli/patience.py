"""How long a command waits for whoever holds the data directory before it gives up.

Each holder is waited for anew: commands that come together follow one another, and the last one
has to outwait them all. Who serves commands has a door in a moment: it is opening the volume or
letting go of it, and on a busy disk that takes longer; who has said nothing yet is just beginning.
Who says that it serves none will be in the way for good. However many they are, there is an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HOLDER_WAIT_S: Final = 5.0
SERVER_WAIT_S: Final = 30.0
"""Longer than a server may take to stop (8 s for its requests, 3 s for the disk)."""
WAIT_S_MAX: Final = 120.0
SAYS_AFTER_S: Final = 2.0


class Patience:
    """What was seen of the holders so far; `now_s` is monotonic time."""

    def __init__(self) -> None:
        """Begin with nobody seen."""
        self._holder: Mapping[str, Any] | None = None
        self._since_s = 0.0
        self._until_s = 0.0
        self._has_said = False

    def sees(self, holder: Mapping[str, Any], *, now_s: float) -> bool:
        """Note who holds the directory; return whether it was the same one at the look before.

        A new holder is told by the portrait of the last one until it has drawn its own, so one
        look alone proves nothing.
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
        """Whether this holder was waited for long enough, or all of them were."""
        return now_s > min(self._until_s, self._since_s + WAIT_S_MAX)

    def is_tried(self, *, now_s: float) -> bool:
        """Whether it is time to say that somebody is waited for: true once."""
        says = not self._has_said and now_s > self._since_s + SAYS_AFTER_S
        self._has_said = self._has_said or says
        return says


def serves_commands(holder: Mapping[str, Any]) -> bool:
    """Whether a holder says that it has a door for commands, or will have one."""
    return holder.get("serves_commands") is True
