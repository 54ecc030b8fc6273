"""Python's garbage collector: no collection while a large document is parsed and stored.

A collection visits every object of the document, and stops all threads for that time: the event
loop, too. A JSON value has no cycles, so there is nothing in it to collect.
"""

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager

_lock = threading.Lock()


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
