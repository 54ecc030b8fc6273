"""Full garbage collections are put off while work runs, and come back after the last of it."""

import asyncio
import gc

import pytest

from seline import collector


async def test_full_collections_are_put_off_until_the_last_work_has_ended() -> None:
    before = gc.get_threshold()
    first, second = asyncio.Event(), asyncio.Event()

    @collector.without_full_ones
    async def work(until: asyncio.Event) -> int:
        await until.wait()
        return gc.get_threshold()[2]

    works = [asyncio.create_task(work(until)) for until in (first, second)]
    await asyncio.sleep(0)
    first.set()

    assert await works[0] > 1_000_000
    assert gc.get_threshold()[2] > 1_000_000
    second.set()
    assert await works[1] > 1_000_000
    assert gc.get_threshold() == before


async def test_they_come_back_after_a_failure() -> None:
    before = gc.get_threshold()

    @collector.without_full_ones
    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await work()

    assert gc.get_threshold() == before
