"""Whether a directory has had the same names since they were last looked at.

Its change time shows that, at the price of one call. A look at the files themselves costs more than
their calls: from Linux 6.13 on, a write to a file whose times were looked at records the time
precisely, and a sync of its data then takes about a third longer.
"""

import os
import time
from typing import Final

SETTLED_S: Final = 0.2
"""Much longer than the steps in which kernels record times, which are 10 ms unless one is late."""
TRUSTED_S: Final = 1.0
"""A mount over a file changes no directory, and a removal may show late: so it is looked again."""
_SECOND_NS: Final = 1_000_000_000


class KnownNames:
    """The state in which a directory's names were last looked at."""

    __slots__ = ("_known", "_since_s", "_until_s")

    def __init__(self) -> None:
        """Begin without a look."""
        self._known: tuple[int, int, int] | None = None
        self._since_s = self._until_s = 0.0

    def are_unchanged(self, directory: os.stat_result) -> bool:
        """Whether no name was added, removed or replaced since the last look that counts."""
        return time.monotonic() < self._until_s and self._known == _state(directory)

    def note(self, directory: os.stat_result) -> None:
        """Note that the names were looked at; `directory` is its status from before that look.

        A change just before the look may get the same time as one just after it. So a look counts
        only if one of `SETTLED_S` before found the directory in the same state, and only for
        `TRUSTED_S`; and none counts if the time has no fractions of seconds.
        """
        now_s, state = time.monotonic(), _state(directory)
        if state != self._known:
            self._known, self._since_s, self._until_s = state, now_s, 0.0
        elif now_s - self._since_s > SETTLED_S and directory.st_ctime_ns % _SECOND_NS:
            self._until_s = now_s + TRUSTED_S


def _state(directory: os.stat_result) -> tuple[int, int, int]:
    return directory.st_dev, directory.st_ino, directory.st_ctime_ns
