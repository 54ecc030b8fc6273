"""Notice that the wall clock jumped: it and the monotonic clock measure different times.

A scheduler sleeps until an instant of the wall clock. If that is set back an hour, the scheduler
sleeps an hour too long.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from seline.clock import Clock

LOOK_EVERY_S: Final = 20.0
JUMP_S: Final = 30.0


async def watch(clock: Clock, jumped: Callable[[float], None], tick: Callable[[], None]) -> None:
    """Compare both clocks for ever; call `jumped` with the seconds, positive for ahead.

    `tick` is called after each comparison. A machine that slept counts as a jump, too.
    """
    wall, monotonic = clock.now(), clock.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now, monotonic_now = clock.now(), clock.monotonic()
        drift_s = (now - wall).total_seconds() - (monotonic_now - monotonic)
        wall, monotonic = now, monotonic_now
        if abs(drift_s) > JUMP_S:
            jumped(drift_s)
        tick()
