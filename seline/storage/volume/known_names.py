"""Whether a directory has had the same names since they were last looked at.

Its change time shows that, at the price of one call. A look at the files themselves costs more than
their calls: from Linux 6.13 on, a write to a file whose times were looked at records the time
precisely, and a sync of its data then takes about a third longer.
"""

import os
import time
from typing import Final

SETTLED_NS: Final = 50_000_000
"""Longer than the steps in which kernels record times, 10 ms at most."""
_SECOND_NS: Final = 1_000_000_000


class KnownNames:
    """The state in which a directory's names were last looked at."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin without a look."""
        self._known: tuple[int, int, int] | None = None

    def are_unchanged(self, directory: os.stat_result) -> bool:
        """Whether no name was added, removed or replaced since the last look that was noted."""
        return self._known == _state(directory)

    def note(self, directory: os.stat_result) -> None:
        """Note that the names were looked at; `directory` is its status from before that look.

        A change just before the look may get the same time as one just after it. So nothing is
        noted until the last change is `SETTLED_NS` old, or if the time has no fractions of seconds.
        """
        changed_ns = directory.st_ctime_ns
        is_settled = time.time_ns() - changed_ns > SETTLED_NS and changed_ns % _SECOND_NS
        self._known = _state(directory) if is_settled else None


def _state(directory: os.stat_result) -> tuple[int, int, int]:
    return directory.st_dev, directory.st_ino, directory.st_ctime_ns
