"""Python's garbage collector: fewer collections while Seline makes many objects.

A collection visits every object of its generation, and stops all threads for that time: the event
loop, too. A JSON value has no cycles, and neither have the parts of a change: there is nothing in
them to collect.
"""

import gc
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_lock = threading.Lock()
_NEVER: Final = 1 << 30
_put_off: Final[list[int]] = []
"""The thresholds to set again, the first one last."""


@contextmanager
def paused() -> Generator[None]:
    """Run the block without collections, unless another thread ends its own block in it.

    Free what the block has made before it ends: else the next collection visits it.
    """
    with _lock:
        was_enabled = gc.isenabled()
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            with _lock:
                gc.enable()


def freeze_startup_objects() -> None:
    """Exclude all current objects from later collections: modules, and what a start has made.

    They live as long as the process. A full collection of them takes 15 ms, and frees nothing.
    """
    gc.collect()
    gc.freeze()


def without_full_ones(
    work: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate what changes thousands of documents: only young objects are collected during it.

    A full collection would take 100 ms and more. Python 3.14 has none, and ignores this.
    """

    @wraps(work)
    async def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
        with _lock:
            young, middle, full = gc.get_threshold()
            _put_off.append(full)
            gc.set_threshold(young, middle, _NEVER)
        try:
            return await work(*args, **kwargs)
        finally:
            with _lock:
                gc.set_threshold(young, middle, _put_off.pop())

    return decorated
