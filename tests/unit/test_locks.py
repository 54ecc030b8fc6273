"""What is logged of locks that were held for long."""

import pytest

from seline.manager.locks import LONG_HOLD_S, DocumentLocks
from tests.clocks import FakeClock


async def test_locks_that_were_held_for_long_together_are_one_line(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    locks = DocumentLocks(clock, wait_s=1, limit_s=60)
    held = [await locks.lock(f"{name}.json") for name in "abc"]
    clock.advance(LONG_HOLD_S + 1)
    locks.release(*held)
    locks.release(*held)
    [line] = caplog.messages
    assert line.startswith("a.json (with 2 more) was held for 6.0 s by the block at ")
