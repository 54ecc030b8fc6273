"""Sync several files at once: the file system then merges its commits.

V3  Each file is synced exactly once, and a failure reaches the caller. After a failed sync of a
file another one proves nothing.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeAlias

from seline.storage.volume import files

SYNC_THREADS: Final = 16
_Results: TypeAlias = dict[int, BaseException | None]


class SyncThreads:
    """Up to SYNC_THREADS threads, started when they are needed. For one caller at a time."""

    def __init__(self) -> None:
        """Start no thread."""
        self._pool: ThreadPoolExecutor | None = None

    def sync_files(self, descriptors: Sequence[int]) -> None:
        """Sync files, and raise the first failure, mostly an OSError, after each was tried.

        The caller's thread syncs one file alone, and those for which no thread could be started.
        """
        results: _Results = {}
        if len(descriptors) > 1:
            self._share(descriptors, results)
        for descriptor in descriptors:
            if descriptor not in results:
                _sync_one(descriptor, results)
        for error in results.values():
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads. Idempotent; no call may follow."""
        if self._pool is not None:
            self._pool.shutdown()

    def _share(self, descriptors: Sequence[int], results: _Results) -> None:
        """Let the threads sync; what is not in the results then was not tried, and will not be."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="seline-sync")
        try:
            wait([self._pool.submit(_sync_one, one, results) for one in descriptors])
        except BaseException as error:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            if not isinstance(error, RuntimeError):  # as Ctrl-C: the caller closes the files
                raise
            # no thread starts: at the interpreter's exit, or there are too many


def _sync_one(descriptor: int, results: _Results) -> None:
    error: BaseException | None = None
    try:
        files.sync(descriptor)
    except BaseException as failure:  # noqa: BLE001  # the caller raises it
        error = failure
    results[descriptor] = error
