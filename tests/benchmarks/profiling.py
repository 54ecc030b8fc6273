"""Where the time of a save goes: the instants at which it passes from one part to the next."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

from seline import open_seline
from seline.bench.measure import VALUE, WRITERS
from seline.ports.futures import wait_for
from seline.storage.volume import batches, files
from seline.storage.volume.journal.form import JournalCommitter
from seline.storage.volume.store import VolumeStore
from seline.storage.volume.writer import Writer

PARTS: Final = (
    ("save_json", "the value is checked and encoded, the change made"),
    ("submit", "the change is queued, the other thread wakes"),
    ("process", "the batch begins"),
    ("plan_batch", "the document is found, a blank save ruled out"),
    ("_run", "the place is looked at, and the room"),
    ("commit", "the backup gets its name, the record is encoded"),
    ("overwrite", "the record is written"),
    ("sync_data", "the disk syncs it"),
    ("synced", "readers get the new content, the counts are kept"),
    ("_answer", "the answer passes to the event loop, which wakes"),
)
"""What begins a part, in order, and what the part does."""
MORE: Final = "more, in the mean: documents' files are written during some saves"
_SEAMS: Final = (
    (Writer, "submit"), (batches.Batches, "process"), (batches, "plan_batch"),
    (batches.Batches, "_run"), (JournalCommitter, "commit"), (files, "overwrite"),
    (files, "sync_data"), (batches.Batches, "_answer"),
)  # fmt: skip
OF_MANY: Final = (
    f"a save by one of {WRITERS} writers",
    "of it: processor time of the event loop's thread",
    "of it: processor time of the writer's thread",
)
JOURNAL_BYTES: Final = 8 << 20
SAVES: Final = 2_000
WARM_UP: Final = 200


async def parts_of_a_save(here: Path, *, saves: int = SAVES) -> Mapping[str, float]:
    """Return the median time of each part of a save of 1 KiB, in µs.

    The last part is what the mean of whole saves is longer: files are written during some of them,
    and the machine pauses others.
    """
    taken_s: dict[str, list[float]] = defaultdict(list)
    whole_s: list[float] = []
    instants: list[tuple[str, float]] = []
    with _noting(instants):
        async with open_seline(here, lock_wait_s=0, storage__journal_bytes=JOURNAL_BYTES) as seline:
            for number in range(WARM_UP + saves):
                instants[:] = [("save_json", time.perf_counter())]
                await seline.data.save_json("one.json", {**VALUE, "n": number})
                instants.append(("end", time.perf_counter()))
                if number < WARM_UP:
                    continue
                whole_s.append(instants[-1][1] - instants[0][1])
                if [name for name, _ in instants[:-1]] == [*dict(PARTS)]:
                    for (name, began), (_, ended) in pairwise(instants):
                        taken_s[name].append(ended - began)
    parts = {what: statistics.median(taken_s[name]) * 1e6 for name, what in PARTS}
    return parts | {MORE: statistics.fmean(whole_s) * 1e6 - sum(parts.values())}


async def processor_of_many(here: Path, *, seconds: float = 2.0) -> Mapping[str, float]:
    """Return how long each of many saves takes, and the processor time of both threads, in µs."""
    saves, number = 0, 0
    async with open_seline(here, lock_wait_s=0, storage__journal_bytes=JOURNAL_BYTES) as seline:
        writer = cast("VolumeStore", seline.data.store.opened).writer

        async def instants() -> tuple[float, float, float]:
            of_the_writer = await wait_for(writer.between(time.thread_time))
            return time.perf_counter(), time.thread_time(), of_the_writer

        async def save_all() -> None:
            names = (f"d{writer}.json" for writer in range(WRITERS))
            await asyncio.gather(
                *(seline.data.save_json(name, {**VALUE, "n": number}) for name in names)
            )

        await save_all()
        began = await instants()
        while time.perf_counter() < began[0] + seconds:
            number += 1
            saves += WRITERS
            await save_all()
        ended = await instants()
    spent_us = [(now - then) / saves * 1e6 for then, now in zip(began, ended, strict=True)]
    return dict(zip(OF_MANY, spent_us, strict=True))


@contextmanager
def _noting(instants: list[tuple[str, float]]) -> Generator[None]:
    """Note when each part begins."""
    with ExitStack() as stack:
        for owner, name in _SEAMS:
            real: Callable[..., Any] = getattr(owner, name)
            noted = partial(_noted, instants, name, real)
            method = noted if owner in {batches, files} else _as_method(noted)
            stack.enter_context(patch.object(owner, name, method))
        yield


def _noted(
    instants: list[tuple[str, float]], name: str, real: Callable[..., Any], *args: Any, **how: Any
) -> Any:
    instants.append((name, time.perf_counter()))
    result = real(*args, **how)
    if name == "sync_data":
        instants.append(("synced", time.perf_counter()))
    return result


def _as_method(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **how: call(*args, **how)
