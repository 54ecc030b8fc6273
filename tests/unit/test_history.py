"""The check of histories: correct ones pass, each planted defect is flagged.

Correct histories come from a store that is correct by construction: it makes one change at a time,
which its caller observes in an interval around the instant. Defects are planted in them. For a few
events, the check is compared with trying every order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.proof.figures import note
from tests.proof.history import Corrupted, Event, Read, State, Stopped, Write, check

A, B, C = "a.json", "b.json", "c.json"
NAMES = (A, B, C)


def acknowledged(began: float, ended: float, **changes: State) -> Write:
    return Write(changes=named(changes), began=began, ended=ended, outcome="acknowledged")


def unknown(began: float, **changes: State) -> Write:
    return Write(changes=named(changes), began=began)


def refused(began: float, ended: float, **changes: State) -> Write:
    return Write(changes=named(changes), began=began, ended=ended, outcome="refused")


def with_bases(write: Write, **bases: State) -> Write:
    return replace(write, bases=named(bases))


def read(began: float, ended: float, **found: State) -> Read:
    return Read(found=named(found), began=began, ended=ended)


def named(states: Mapping[str, State]) -> dict[str, State]:
    return {f"{name}.json": state for name, state in states.items()}


# correct histories


class CorrectStore:
    """Carries out one operation at a time, in an interval around its instant."""

    def __init__(self, draw: DrawFn) -> None:
        self._draw = draw
        self._now = 0.0
        self._floor = 0.0
        self._number = 0
        self.states: dict[str, State] = dict.fromkeys(NAMES)
        self.past: dict[str, set[State]] = {name: {None} for name in NAMES}
        self.events: list[Event] = []

    def save(self) -> None:
        """Save, delete, restore or import one document or several, without a base."""
        self._write({}, self._choose(self._some_names()))

    def edit(self) -> None:
        """Change one document or several from the states that were read."""
        names = self._some_names()
        self._write({name: self.states[name] for name in names}, self._choose(names))

    def read_some(self) -> None:
        began, ended = self._interval()
        found = {name: self.states[name] for name in self._some_names()}
        self.events.append(Read(found=found, began=began, ended=ended))

    def refuse(self) -> None:
        began, ended = self._interval()
        changes = {name: self._new() for name in self._some_names()}
        self.events.append(Write(changes=changes, began=began, ended=ended, outcome="refused"))

    def lose_the_answer(self) -> None:
        """Make a change or not, without an answer to its caller."""
        began, _ = self._interval()
        changes = self._choose(self._some_names())
        if self._draw(st.booleans()):
            self._apply(changes)
        self.events.append(Write(changes=changes, began=began))

    def stop(self) -> None:
        self._now = self._floor = self._now + 10
        self.events.append(Stopped(at=self._now))

    def corrupt(self) -> None:
        """Corrupt a file, and recover an earlier content or lose nothing."""
        name = self._draw(st.sampled_from(NAMES))
        if self.states[name] is None:
            return
        self.stop()
        self._now = self._floor = self._now + 10
        self.events.append(Corrupted(document=name, at=self._now - 5))
        self.states[name] = self._draw(st.sampled_from(sorted(filter(None, self.past[name]))))

    def _some_names(self) -> list[str]:
        return self._draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))

    def _choose(self, names: Sequence[str]) -> dict[str, State]:
        return {name: self._state_for(name) for name in names}

    def _state_for(self, name: str) -> State:
        kind = self._draw(st.sampled_from(["new", "new", "new", "deleted", "restored"]))
        if kind == "new":
            return self._new()
        return None if kind == "deleted" else self._draw(st.sampled_from(list(self.past[name])))

    def _new(self) -> State:
        self._number += 1
        return f"s{self._number}"

    def _write(self, bases: Mapping[str, State], changes: Mapping[str, State]) -> None:
        began, ended = self._interval()
        self._apply(changes)
        self.events.append(
            Write(changes=changes, bases=bases, began=began, ended=ended, outcome="acknowledged")
        )

    def _apply(self, changes: Mapping[str, State]) -> None:
        self.states |= changes
        for name, state in changes.items():
            self.past[name].add(state)

    def _interval(self) -> tuple[float, float]:
        self._now += 1
        spread = st.floats(0, 4)
        began = max(self._floor + 0.25, self._now - self._draw(spread))
        return began, self._now + self._draw(spread)


STEPS = ("save", "edit", "read_some", "refuse", "lose_the_answer", "save", "edit", "read_some")


@st.composite
def correct_stores(draw: DrawFn, *, also: Sequence[str] = ("stop", "corrupt")) -> CorrectStore:
    store = CorrectStore(draw)
    for step in draw(st.lists(st.sampled_from([*STEPS, *also]), max_size=30)):
        getattr(store, step)()
    store.stop()
    store.read_some()
    return store


@given(correct_stores())
@settings(max_examples=80, deadline=None)
def test_correct_histories_have_no_contradictions(store: CorrectStore) -> None:
    assert check(store.events) == []


# planted defects


DEFECTS: dict[str, list[Event]] = {
    "an acknowledged write is lost": [
        acknowledged(1, 2, a="one"),
        acknowledged(3, 4, a="two"),
        read(5, 6, a="one"),
    ],
    "an acknowledged first write is lost": [acknowledged(1, 2, a="one"), read(3, 4, a=None)],
    "an acknowledged delete is lost": [
        acknowledged(1, 2, a="one"),
        acknowledged(3, 4, a=None),
        read(5, 6, a="one"),
    ],
    "an acknowledged write is lost in a kill": [
        acknowledged(1, 2, a="one"),
        unknown(3, a="two"),
        acknowledged(4, 5, a="three"),
        Stopped(at=6),
        read(7, 8, a="one"),
    ],
    "a read is stale": [
        acknowledged(1, 5, a="one"),
        acknowledged(1, 5, a="two"),
        read(6, 7, a="one"),
        read(8, 9, a="two"),
        read(10, 11, a="one"),
    ],
    "a read is stale during the write": [
        acknowledged(1, 9, a="one"),
        read(2, 3, a="one"),
        read(4, 5, a=None),
    ],
    "a write without an answer happens after the end of its process": [
        acknowledged(1, 2, a="one"),
        unknown(3, a="two"),
        Stopped(at=4),
        read(5, 6, a="one"),
        read(7, 8, a="two"),
    ],
    "a value was never written": [acknowledged(1, 2, a="one"), read(3, 4, a="two")],
    "an existing document is read as absent": [
        acknowledged(1, 2, a="one"),
        acknowledged(1, 2, b="one"),
        read(3, 4, a=None, b="one"),
    ],
    "a value is read before it was written": [read(1, 2, a="one"), acknowledged(3, 4, a="one")],
    "a refused write was done": [
        acknowledged(1, 2, a="one"),
        refused(3, 4, a="two"),
        read(5, 6, a="two"),
    ],
    "half of a transaction is visible": [
        acknowledged(1, 2, a="one", b="one"),
        acknowledged(3, 4, a="two", b="two"),
        read(5, 6, a="two", b="one"),
    ],
    "half of a transaction is visible while it runs": [
        acknowledged(1, 2, a="one", b="one"),
        acknowledged(3, 9, a="two", b="two"),
        read(4, 8, a="two", b="one"),
    ],
    "half of a transaction survives a kill": [
        acknowledged(1, 2, a="one", b="one"),
        unknown(3, a="two", b="two"),
        Stopped(at=4),
        read(5, 6, a="two"),
        read(5, 6, b="one"),
    ],
    "half of a transaction with a delete survives a kill": [
        acknowledged(1, 2, a="one", b="one"),
        unknown(3, a="two", b=None),
        Stopped(at=4),
        read(5, 6, a="two", b="one"),
    ],
    "half of a transaction is visible beside a later save": [
        acknowledged(1, 2, a="one", b="one"),
        acknowledged(3, 9, a="two", b="two"),
        acknowledged(3, 5, a="three"),
        read(6, 7, a="two"),
        read(7.5, 8.5, a="two", b="one"),
    ],
    "one of two updates is lost": [
        acknowledged(1, 2, a="one"),
        with_bases(acknowledged(3, 6, a="two"), a="one"),
        with_bases(acknowledged(4, 7, a="three"), a="one"),
    ],
    "a save is lost under an edit": [
        acknowledged(1, 2, a="one"),
        acknowledged(3, 4, a="two"),
        with_bases(acknowledged(5, 6, a="three"), a="one"),
    ],
    "a save is lost inside an edit": [
        acknowledged(1, 2, a="one"),
        read(2.2, 2.4, a="one"),
        acknowledged(3, 4, a="two"),
        read(4.1, 4.2, a="two"),
        with_bases(acknowledged(2.5, 6, a="three"), a="one"),
        read(7, 8, a="three"),
    ],
    "two edits were made from each other": [
        with_bases(acknowledged(1, 4, a="one"), a="two"),
        with_bases(acknowledged(1, 4, a="two"), a="one"),
    ],
    "a read is stale after a restore": [
        acknowledged(1, 2, a="one"),
        acknowledged(3, 4, a="two"),
        acknowledged(5, 6, a="one"),
        acknowledged(7, 8, a="three"),
        read(9, 10, a="one"),
    ],
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS.keys())
@given(store=correct_stores())
@settings(max_examples=5, deadline=None)
def test_a_planted_defect_is_flagged(defect: list[Event], store: CorrectStore) -> None:
    later = [_later(event, 1000) for event in defect]
    reset = acknowledged(900, 901, a=None, b=None)
    assert check([*store.events, reset, *later]) != []


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS.keys())
def test_every_contradiction_is_a_sentence(defect: list[Event]) -> None:
    for contradiction in check(defect):
        assert contradiction.startswith(NAMES)
        assert contradiction.endswith(".")
        assert "inf" not in contradiction


def _later(event: Event, seconds: float) -> Event:
    match event:
        case Stopped() | Corrupted():
            return replace(event, at=event.at + seconds)
        case Write() | Read():
            return replace(event, began=event.began + seconds, ended=event.ended + seconds)


# corrupted files


BEFORE_CORRUPTION: list[Event] = [
    acknowledged(1, 2, a="one"),
    acknowledged(3, 4, a="two"),
    acknowledged(5, 6, a=None),
]


@pytest.mark.parametrize("found", ["one", "two", "three"])
def test_a_corrupted_file_may_be_recovered_as_any_earlier_content(found: str) -> None:
    broken: list[Event] = [
        acknowledged(7, 8, a="three"),
        Corrupted(document=A, at=9),
        read(10, 11, a=found),
    ]
    assert check([*BEFORE_CORRUPTION, *broken]) == []


@pytest.mark.parametrize(
    "after",
    [
        [read(10, 11, a=None)],
        [read(10, 11, a="four")],
        [read(10, 11, a="one"), read(12, 13, a="two")],
        [read(10, 11, a="one"), read(12, 13, a="three")],
        [acknowledged(10, 11, a="four"), read(12, 13, a="one")],
        [acknowledged(10, 11, a="four"), read(12, 13, a="three")],
        [with_bases(acknowledged(10, 11, a="four"), a="one"), read(12, 13, a="one")],
    ],
    ids=str,
)
def test_a_corrupted_file_allows_nothing_else(after: list[Event]) -> None:
    broken: list[Event] = [acknowledged(7, 8, a="three"), Corrupted(document=A, at=9)]
    assert check([*BEFORE_CORRUPTION, *broken, *after]) != []


@pytest.mark.parametrize("last", [unknown(7, a="three"), refused(7, 8, a="three")], ids=str)
def test_a_corrupted_file_that_a_deletion_left_may_stay_deleted(last: Write) -> None:
    broken: list[Event] = [last, Stopped(at=8.5), Corrupted(document=A, at=9)]
    assert check([*BEFORE_CORRUPTION, *broken, read(10, 11, a=None)]) == []


def test_a_corrupted_file_that_a_deletion_left_is_corrupted_twice() -> None:
    broken: list[Event] = [Corrupted(document=A, at=7), Corrupted(document=A, at=9)]
    assert check([*BEFORE_CORRUPTION, *broken, read(10, 11, a=None)]) == []


def test_a_read_shows_that_a_write_came_after_the_deletion() -> None:
    broken: list[Event] = [unknown(7, a="three"), read(7.5, 8, a="three"), Stopped(at=8.5)]
    after: list[Event] = [Corrupted(document=A, at=9), read(10, 11, a=None)]
    assert check([*BEFORE_CORRUPTION, *broken, *after]) != []


def test_a_corrupted_file_allows_no_content_of_another_document() -> None:
    saved = [acknowledged(1, 2, b="one"), acknowledged(3, 4, b="two")]
    assert check([*saved, Corrupted(document=A, at=5), read(6, 7, b="one")]) != []


def test_contents_before_the_history_may_be_recovered() -> None:
    events: list[Event] = [Corrupted(document=A, at=1), read(2, 3, a="old")]
    assert check(events, start={A: "current"}, older={A: {"old"}}) == []
    assert check(events, start={A: "current"}) != []
    assert check(events[1:], start={A: "current"}, older={A: {"old"}}) != []


def test_a_corruption_during_a_write_is_refused() -> None:
    with pytest.raises(ValueError, match=A):
        check([acknowledged(1, 3, a="one"), Corrupted(document=A, at=2)])


# compared with every order


def has_an_order(events: Sequence[Event]) -> bool:
    """Whether some order of atomic changes explains a history, by trying every order."""
    stops = [event.at for event in events if isinstance(event, Stopped)]
    todo = [_ended(event, stops) for event in events if isinstance(event, Write | Read)]
    bases = [
        Read(found=event.bases, began=event.began, ended=event.ended)
        for event in todo
        if isinstance(event, Write)
    ]
    return _has_an_order([*todo, *bases], dict.fromkeys(NAMES), set())


def _ended(event: Write | Read, stops: Sequence[float]) -> Write | Read:
    if isinstance(event, Read) or event.outcome != "unknown":
        return event
    return replace(event, ended=min((at for at in stops if at >= event.began), default=math.inf))


def _happened(event: Write | Read) -> bool:
    return isinstance(event, Read) or event.outcome == "acknowledged"


def _has_an_order(
    todo: Sequence[Write | Read], states: Mapping[str, State], tried: set[object]
) -> bool:
    if not any(map(_happened, todo)):
        return True
    here = (tuple(map(id, todo)), tuple(states.values()))
    if here in tried:
        return False
    tried.add(here)
    for event in todo:
        rest = [other for other in todo if other is not event]
        too_late = [other for other in rest if other.ended < event.began]
        if any(map(_happened, too_late)):
            continue
        shown = event.found if isinstance(event, Read) else event.bases
        if any(states[name] != state for name, state in shown.items()):
            continue
        after = states if isinstance(event, Read) else {**states, **event.changes}
        if _has_an_order([other for other in rest if other not in too_late], after, tried):
            return True
    return False


@st.composite
def any_histories(draw: DrawFn, *, names: Sequence[str], again: bool) -> list[Event]:
    """Draw events that some order may explain or not; with `again`, states may repeat."""
    events: list[Event] = []
    states: list[State] = [None]
    for number in range(draw(st.integers(2, 6))):
        began = draw(st.integers(0, 12))
        ended = began + draw(st.integers(1, 6))
        some = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        if draw(st.booleans()):
            found = {name: draw(st.sampled_from(states)) for name in some}
            events.append(Read(found=found, began=began, ended=ended))
            continue
        changes: dict[str, State] = dict.fromkeys(some, f"s{number}")
        if again and draw(st.booleans()):
            changes = {name: draw(st.sampled_from(states)) for name in some}
        else:
            states.append(f"s{number}")
        bases = {name: draw(st.sampled_from(states[:-1] or states)) for name in some}
        write = Write(
            changes=changes,
            began=began,
            ended=ended,
            outcome=draw(st.sampled_from(["acknowledged", "acknowledged", "unknown"])),
            bases=bases if draw(st.booleans()) else {},
        )
        events.append(write)
    if draw(st.booleans()):
        events.append(Stopped(at=draw(st.integers(0, 20)) + 0.5))
    return events


@given(any_histories(names=[A], again=False))
@settings(max_examples=100, deadline=None)
def test_for_one_document_exactly_the_unexplained_histories_are_flagged(
    events: list[Event],
) -> None:
    assert (check(events) == []) == has_an_order(events), check(events)


@given(any_histories(names=NAMES, again=True))
@settings(max_examples=100, deadline=None)
def test_explained_histories_are_never_flagged(events: list[Event]) -> None:
    if has_an_order(events):
        assert check(events) == []


EXAMPLES_PER_S = 25
LIMIT_S = 90.0


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_many_wrong_histories_are_flagged(share_s: float) -> None:
    wrong = flagged = 0

    @given(any_histories(names=[A], again=False))
    @settings(
        max_examples=1 + int(min(share_s, LIMIT_S) * EXAMPLES_PER_S), deadline=None, database=None
    )
    def judge(events: list[Event]) -> None:
        nonlocal wrong, flagged
        if not has_an_order(events):
            wrong += 1
            flagged += check(events) != []

    judge()
    note(
        "negative control",
        "histories that no order explains",
        tried=wrong,
        failures=flagged,
        where="memory",
    )
    assert flagged == wrong
