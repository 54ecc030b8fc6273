"""The writer's queue: order, tasks between batches, the end, and a thread that dies."""

import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from seline.domain.document import BOT, DocumentKey
from seline.errors import OutcomeUnknown, StoreClosed, VolumeBusy
from seline.manager import changes
from seline.ports.store import Change
from seline.storage.volume import writer
from seline.storage.volume.writer import Pending, Writer

SOON_S = 10.0


@dataclass
class Held:
    """A writer whose batches wait for `release`; `done` has what it did, in order."""

    release: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    done: list[Any] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        self.writer = Writer(self._process, idle=lambda: None)

    def _process(self, batch: Sequence[Pending]) -> None:
        self.began.set()
        assert self.release.wait(SOON_S)
        self.done.append(len(batch))
        for pending in batch:
            pending.future.set_result(())

    def submit_and_hold(self) -> Future[Any]:
        """Submit an atom whose batch has begun."""
        future = self.writer.submit(())
        assert self.began.wait(SOON_S)
        return future

    def close_while_held(self) -> threading.Thread:
        """Close on another thread, and release the batch once that has begun."""
        closing = threading.Thread(target=self.writer.close, daemon=True)
        closing.start()
        while True:
            try:
                self.writer.submit(())
            except StoreClosed:
                break
            time.sleep(0.001)
        self.release.set()
        return closing


def test_what_is_queued_is_done_in_order_and_a_task_divides_the_batches() -> None:
    held = Held()
    first = held.submit_and_hold()
    held.writer.submit(())
    held.writer.submit(())
    tasks = [held.writer.between(lambda name=name: held.done.append(name)) for name in "ab"]  # type: ignore[misc]
    last = held.writer.submit(())

    held.release.set()

    for future in (first, *tasks, last):
        future.result(SOON_S)
    assert held.done == [1, 2, "a", "b", 1]
    assert held.writer.queued == 0
    held.writer.close()


def test_what_is_queued_by_the_end_of_a_step_runs_before_the_next_step() -> None:
    held = Held()
    first = held.submit_and_hold()

    def in_three_steps() -> Generator[None, None, str]:
        for number in (1, 2):
            held.done.append(f"step {number}")
            yield
        return "ended"

    steps = held.writer.in_steps(in_three_steps())
    rest = [held.writer.submit(()), held.writer.between(lambda: held.done.append("task"))]

    held.release.set()

    assert steps.result(SOON_S) == "ended"
    for future in (first, *rest):
        future.result(SOON_S)
    assert held.done == [1, "step 1", 1, "task", "step 2"]
    held.writer.close()


def test_a_large_change_is_taken_while_only_a_step_is_queued() -> None:
    held = Held()

    def in_two_steps() -> Generator[None, None, None]:
        held.writer.submit(())
        yield

    steps = held.writer.in_steps(in_two_steps())
    assert held.began.wait(SOON_S)

    size_bytes = writer.QUEUED_BYTES_MAX + 1
    change = Change(DocumentKey(BOT, "a.json"), changes.look, size_hint=size_bytes)
    large = held.writer.submit((change,))

    held.release.set()
    assert (steps.result(SOON_S), large.result(SOON_S)) == (None, ())
    held.writer.close()


def test_a_step_that_fails_ends_its_work_and_a_close_carries_out_the_rest() -> None:
    held = Held()

    def fail_after_a_step() -> Generator[None, None, None]:
        yield
        raise LookupError

    def in_two_steps() -> Generator[None, None, str]:
        yield
        return "ended"

    held.submit_and_hold()
    failing = held.writer.in_steps(fail_after_a_step())
    ending = held.writer.in_steps(in_two_steps())

    held.close_while_held().join(SOON_S)

    with pytest.raises(LookupError):
        failing.result(SOON_S)
    assert ending.result(SOON_S) == "ended"


def test_a_close_during_a_batch_carries_out_what_is_queued_and_ends_the_thread() -> None:
    held = Held()
    queued = [held.submit_and_hold(), held.writer.submit(()), held.writer.between(lambda: None)]

    closing = held.close_while_held()

    for future in queued:
        future.result(SOON_S)
    closing.join(SOON_S)
    assert not closing.is_alive()
    held.writer.close()


def test_a_thread_that_dies_answers_what_it_had_taken_and_what_is_queued() -> None:
    held = Held()

    def die() -> None:
        raise SystemError

    first = held.submit_and_hold()
    held.writer._process = lambda _: die()
    rest = [held.writer.submit(()), held.writer.between(lambda: None), held.writer.submit(())]
    held.release.set()

    first.result(SOON_S)
    for future in rest:
        with pytest.raises(OutcomeUnknown, match="SystemError"):
            future.result(SOON_S)


def test_no_future_of_the_writer_can_be_cancelled() -> None:
    held = Held()
    futures = [held.submit_and_hold(), held.writer.between(lambda: ())]

    assert not any(future.cancel() for future in futures)

    held.release.set()
    assert [future.result(SOON_S) for future in futures] == [(), ()]
    held.writer.close()


def test_a_signal_handler_may_submit_while_the_thread_that_it_interrupts_submits() -> None:
    held = Held()
    held.release.set()
    with held.writer._wake:
        interrupting = held.writer.submit(())
    assert interrupting.result(SOON_S) == ()
    held.writer.close()


def test_a_full_queue_refuses_an_atom_and_takes_it_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "QUEUED_BYTES_MAX", 10)
    atom = (Change(DocumentKey(BOT, "a.json"), changes.look, size_hint=8),)
    held = Held()
    for _ in range(2):  # the second time what was taken does not count any more
        held.began.clear()
        held.release.clear()
        futures = [held.submit_and_hold(), held.writer.submit(()), held.writer.submit(atom)]

        with pytest.raises(VolumeBusy, match="2 changes"):
            held.writer.submit(atom)

        held.release.set()
        for future in futures:
            future.result(SOON_S)
    held.writer.close()


def test_a_writer_may_be_closed_twice_and_after_its_death() -> None:
    held = Held()
    held.release.set()
    held.writer.close()
    held.writer.close()
    assert held.writer.queued == 0

    dead = Held()
    dead.writer._process = lambda _: sys.exit()
    with pytest.raises(OutcomeUnknown, match="SystemExit"):
        dead.writer.submit(()).result(SOON_S)
    dead.writer.close()
