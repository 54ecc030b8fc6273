"""Check histories of a store: the outcomes of writes against the results of reads.

A history is what many callers observed of one store: each write with its outcome, each read with
its result, both with the interval in which they happened. `check` decides whether some order of
atomic changes explains the history: every change takes effect at one instant of its interval, and
every read returns the result of the last change before it. It returns each contradiction as a
sentence.

V1, V4  A read returns what some write stored: no mixture, no refused write, no empty value.
V3      An acknowledged write is visible until a later write replaces it. A read never returns an
        older state than an earlier read, not even after a kill.
V5      The changes of one transaction or import are visible all together.
V6      A change that was made from a read state (an edit's base) directly follows that state.

Writers put a unique state into each value, so that a read identifies its write. Two instants of
each write matter:

  known_by   the earliest end of its acknowledgement or of a read that returned it: it had happened
  still_at   the latest begin of the write itself or of a read that returned it: it was current

X certainly came before Y if X.known_by < Y.still_at. If two writes of a document certainly came
before each other, no order explains them. If no two do, some order does (Gibbons and Korach,
Testing Shared Memories, 1997), so comparing pairs suffices. A chain of edits, each made from the
previous one, counts as one write, because nothing may come between them.

If a state was written more than once (a deletion, a restore), a read is assigned to one of its
writes only if no other is possible. So some contradictions are missed, but no correct history is
flagged.

After `Corrupted`, the next content of that document may be any earlier one, because recovery uses
a backup; and none if a deletion may have been last, whose file was still there. No operation on the
document may run at that instant: corrupt files only while the store is down, or if the store still
has the content in memory and so loses nothing.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal, TypeAlias

State: TypeAlias = str | None
"""The content that one write gave a document; None if the document does not exist."""
Outcome: TypeAlias = Literal["acknowledged", "refused", "unknown"]
"""How a write ended for its caller: success; a typed error, so nothing was changed; unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One atomic change of one or more documents.

    `bases` are the states that it was made from, read while the documents were locked. A write
    without an answer ends with its process.
    """

    changes: Mapping[str, State]
    began: float
    ended: float = math.inf
    outcome: Outcome = "unknown"
    bases: Mapping[str, State] = field(default_factory=dict[str, State])


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The result of reading one document, or several at one instant (an export)."""

    found: Mapping[str, State]
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The process had ended at `at`: a write without an answer happened before, or never."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupted:
    """The document's file was corrupted at `at`, during no read or write of it."""

    document: str
    at: float


Event: TypeAlias = Write | Read | Stopped | Corrupted


def check(
    events: Iterable[Event],
    *,
    start: Mapping[str, State] | None = None,
    older: Mapping[str, Collection[State]] | None = None,
) -> list[str]:
    """Return the contradictions of a history, whose events may be in any order.

    `start` has the states before the history (other documents do not exist), `older` all earlier
    states. Raises ValueError if a file was corrupted during a read or write of its document.
    """
    return _Check(list(events), start or {}, older or {}).run()


_UNDECIDED: Final = "the state that is read first"


@dataclass(slots=True, eq=False, kw_only=True)
class _Effect:
    """The effect of one write on one document, if the write happened."""

    document: str
    state: State
    began: float
    ended: float
    write: Write | None = None
    known_by: float = math.inf
    still_at: float = -math.inf
    happened: bool = False
    known_from: str = "read"
    period: "_Period | None" = None
    base: "_Effect | None" = None
    next: "_Effect | None" = None
    zone: "_Zone | None" = None
    place: int = 0

    def known(self, by: float, known_from: str) -> None:
        """Record that it happened, and by when that was certain."""
        self.happened = True
        if by < self.known_by:
            self.known_by, self.known_from = by, known_from

    def shown(self, began: float, ended: float) -> None:
        """Record a read that returned it."""
        self.known(ended, "read")
        self.still_at = max(self.still_at, began)


@dataclass(slots=True, eq=False)
class _Zone:
    """Effects that follow each other with nothing in between."""

    effects: list[_Effect]
    first: _Effect
    """The effect with the earliest `known_by`."""
    last: _Effect
    """The effect with the latest `still_at`."""

    @classmethod
    def of(cls, effects: list[_Effect]) -> "_Zone":
        zone = cls(
            effects,
            min(effects, key=lambda effect: effect.known_by),
            max(effects, key=lambda effect: effect.still_at),
        )
        for place, effect in enumerate(effects):
            effect.zone, effect.place = zone, place
        return zone

    @property
    def known_by(self) -> float:
        return self.first.known_by

    @property
    def still_at(self) -> float:
        return self.last.still_at


@dataclass(slots=True, eq=False)
class _Reading:
    """The state of one document in a read, or as the base of an edit."""

    document: str
    state: State
    began: float
    ended: float
    of: Read | Write


@dataclass(slots=True, eq=False)
class _Period:
    """The part of a document's history between two corruptions of its file."""

    initial: _Effect
    possible: frozenset[State]
    """The states that an undecided `initial` may have, except that there is no document."""
    before: "_Period | None" = None
    effects: list[_Effect] = field(default_factory=list[_Effect])
    readings: list[_Reading] = field(default_factory=list[_Reading])
    by_state: dict[State, list[_Effect]] = field(
        default_factory=lambda: defaultdict[State, list[_Effect]](list)
    )
    _known_times: list[float] = field(default_factory=list[float])
    _latest_began: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.initial.period = self
        self.effects.append(self.initial)
        if self.initial.state is not _UNDECIDED:
            self.by_state[self.initial.state].append(self.initial)

    def add(self, effect: _Effect) -> None:
        effect.period = self
        self.effects.append(effect)
        self.by_state[effect.state].append(effect)

    def states(self) -> Iterator[State]:
        yield from self.by_state
        yield from self.possible

    def may_begin_with(self, state: State) -> bool:
        """Whether an undecided `initial` may have a state."""
        if self.initial.state is not _UNDECIDED:
            return False
        absent = state is None and self.before is not None and self.before.may_end_deleted()
        return absent or state in self.possible

    def may_end_deleted(self) -> bool:
        """Whether no write that certainly happened came after a deletion."""
        began = max(effect.began for effect in self.effects if effect.happened)
        return any(
            effect.ended >= began and (effect.state is None or self._may_be_absent(effect))
            for effect in self.effects
        )

    def _may_be_absent(self, effect: _Effect) -> bool:
        return effect is self.initial and self.may_begin_with(None)

    def candidates(self, reading: _Reading) -> list[_Effect]:
        """Return the effects that a reading may have returned."""
        effects = [
            effect
            for effect in self.by_state.get(reading.state, ())
            if effect.write is not reading.of
        ]
        if self.may_begin_with(reading.state):
            effects.append(self.initial)
        return [effect for effect in effects if effect.began <= reading.ended]

    def only_candidate(self, reading: _Reading) -> _Effect | None:
        """Return the effect that a reading returned, if no other write has the same state."""
        candidates = self.candidates(reading)
        unique = len(self.by_state.get(reading.state, ())) == 1 and not self.may_begin_with(
            reading.state
        )
        return candidates[0] if candidates and unique else None

    def build_index(self) -> None:
        """Store, for each instant, the latest begin of all effects that were known by then."""
        known = sorted((effect.known_by, effect.began) for effect in self.effects)
        self._known_times = [known_by for known_by, _ in known]
        self._latest_began = list(accumulate((began for _, began in known), max))

    def not_replaced(self, reading: _Reading) -> list[_Effect]:
        """Return the candidates of a reading that were not certainly replaced before it."""
        count = bisect_left(self._known_times, reading.began)
        began = self._latest_began[count - 1] if count else -math.inf
        return [
            effect
            for effect in self.candidates(reading)
            if min(effect.known_by, effect.ended) >= began
        ]


class _Check:
    """One check, from the events to the contradictions."""

    def __init__(
        self,
        events: Sequence[Event],
        start: Mapping[str, State],
        older: Mapping[str, Collection[State]],
    ) -> None:
        self._start = start
        self._older = older
        self._reads = [event for event in events if isinstance(event, Read)]
        self._writes = [event for event in events if isinstance(event, Write)]
        stops = sorted(event.at for event in events if isinstance(event, Stopped))
        self._ends = {id(write): _end(write, stops) for write in self._writes}
        self._origin = min((event.began for event in (*self._reads, *self._writes)), default=0)
        self._corruptions: dict[str, list[float]] = defaultdict(list)
        for corrupted in sorted((e for e in events if isinstance(e, Corrupted)), key=_at):
            self._corruptions[corrupted.document].append(corrupted.at)
        self._periods: dict[str, list[_Period]] = {}
        self._atoms: list[tuple[Write, dict[str, _Effect]]] = []
        self._refused: set[tuple[str, State]] = set()
        self._shown: dict[int, dict[str, _Effect]] = defaultdict(dict)
        self._contradictions: list[str] = []

    def run(self) -> list[str]:
        self._collect_writes()
        self._collect_readings()
        periods = [period for periods in self._periods.values() for period in periods]
        for period in periods:
            self._assign_certain(period)
        self._propagate()
        for period in periods:
            self._assign_rest(period)
        self._propagate()
        for period in periods:
            self._find_contradictions(period)
        self._find_partial_writes()
        return self._contradictions

    # collect the events

    def _collect_writes(self) -> None:
        done = [write for write in self._writes if write.outcome != "refused"]
        for write in sorted(done, key=lambda write: write.began):
            ended = self._ends[id(write)]
            self._atoms.append((write, {}))
            for document, state in write.changes.items():
                effect = _Effect(
                    document=document, state=state, began=write.began, ended=ended, write=write,
                    still_at=write.began,
                )  # fmt: skip
                if write.outcome == "acknowledged":
                    effect.known(ended, "acknowledged")
                self._period(document, write.began, ended).add(effect)
                self._atoms[-1][1][document] = effect
        for write in self._writes:
            if write.outcome == "refused":
                self._refused |= set(write.changes.items())

    def _collect_readings(self) -> None:
        for read in self._reads:
            for document, state in read.found.items():
                reading = _Reading(document, state, read.began, read.ended, read)
                self._period(document, read.began, read.ended).readings.append(reading)
        for write in self._writes:
            ended = self._ends[id(write)]
            for document, state in write.bases.items():
                reading = _Reading(document, state, write.began, ended, write)
                self._period(document, write.began, ended).readings.append(reading)

    def _period(self, document: str, began: float, ended: float) -> _Period:
        """Return the period of a document that contains an interval."""
        corruptions = self._corruptions.get(document, [])
        if document not in self._periods:
            self._periods[document] = [self._first_period(document)]
        periods = self._periods[document]
        number = bisect_left(corruptions, began)
        if ended < math.inf and bisect_left(corruptions, ended) != number:
            raise ValueError(f"{document} was read or written when its file was corrupted")
        while len(periods) <= number:
            periods.append(self._next_period(document, periods[-1]))
        return periods[number]

    def _first_period(self, document: str) -> _Period:
        return _Period(_initial(document, self._start.get(document)), frozenset())

    def _next_period(self, document: str, before: _Period) -> _Period:
        """Return the period after a corruption; it begins with any earlier state.

        It begins with no document only if that may have been the last state.
        """
        possible = {*before.states(), *self._older.get(document, ())} - {None, _UNDECIDED}
        return _Period(_initial(document, _UNDECIDED), frozenset(possible), before)

    # assign readings to writes

    def _assign_certain(self, period: _Period) -> None:
        rest = []
        for reading in period.readings:
            effect = period.only_candidate(reading)
            if effect is None:
                rest.append(reading)
            else:
                self._show(effect, reading)
        period.readings = sorted(rest, key=lambda reading: reading.ended)

    def _propagate(self) -> None:
        """Mark all effects of a write as happened if one of them is."""
        for write, effects in self._atoms:
            happened = [effect for effect in effects.values() if effect.happened]
            if not happened:
                continue
            first = min(happened, key=lambda effect: effect.known_by)
            for effect in effects.values():
                if write.outcome == "unknown":
                    effect.known(effect.ended, "done before its process ended")
                effect.known(first.known_by, f"{first.known_from} in another document")

    def _assign_rest(self, period: _Period) -> None:
        period.build_index()
        for reading in period.readings:
            candidates = period.not_replaced(reading)
            if not candidates:
                self._report_reading(period, reading)
            elif len(candidates) == 1:
                if candidates[0].state is _UNDECIDED:
                    candidates[0].state = reading.state
                    period.by_state[reading.state].append(candidates[0])
                self._show(candidates[0], reading)

    def _show(self, effect: _Effect, reading: _Reading) -> None:
        effect.shown(reading.began, reading.ended)
        self._shown[id(reading.of)][reading.document] = effect

    def _report_reading(self, period: _Period, reading: _Reading) -> None:
        written = period.by_state.get(reading.state, ())
        began = any(effect.began <= reading.ended for effect in written)
        if began or reading.state in period.possible:
            reason = "but it had been replaced"
        elif written:
            reason = f"before its write began at {self._when(written[0].began)}"
        elif (reading.document, reading.state) in self._refused:
            reason = "but its write was refused"
        else:
            reason = "but it was never " + ("written" if reading.state is not None else "deleted")
        self._report(
            reading.document,
            f"{_state_text(reading.state)} was read from {self._when(reading.began)} to "
            f"{self._when(reading.ended)}, {reason}",
        )

    # contradictions

    def _find_contradictions(self, period: _Period) -> None:
        self._link_edits(period)
        happened = [effect for effect in period.effects if effect.happened]
        zones = [_Zone.of(_chain(effect)) for effect in happened if effect.base is None]
        for effect in happened:
            if effect.zone is None:
                effect.zone = _Zone([effect], effect, effect)
                self._report(effect.document, f"{_state_text(effect.state)} was made from itself")
        for zone in zones:
            self._check_zone(zone)
        self._compare_zones(zones)

    def _link_edits(self, period: _Period) -> None:
        for effect in period.effects:
            if effect.write is None or not effect.happened:
                continue
            base = self._shown[id(effect.write)].get(effect.document)
            if base is None:
                continue
            if base.next is not None:
                self._report(
                    effect.document,
                    f"{_state_text(base.next.state)} and {_state_text(effect.state)} were both "
                    f"made from {_state_text(base.state)}: one update is lost",
                )
                continue
            base.next, effect.base = effect, base

    def _check_zone(self, zone: _Zone) -> None:
        later: _Effect | None = None
        for effect in reversed(zone.effects):
            if later is not None and later.known_by < effect.still_at:
                self._report_stale(effect, later)
            if later is None or effect.known_by < later.known_by:
                later = effect

    def _compare_zones(self, zones: Sequence[_Zone]) -> None:
        """Find zones that certainly came before each other.

        A zone is lasting if its `known_by` is before its `still_at`. Two lasting zones must not
        overlap, and no other zone may be inside a lasting one.
        """
        lasting: list[_Zone] = []
        reach: _Zone | None = None
        for zone in sorted(zones, key=lambda zone: zone.known_by):
            if zone.known_by >= zone.still_at:
                continue
            if reach is not None and zone.known_by < reach.still_at:
                self._report_contradiction(reach, zone)
            if reach is None or zone.still_at > reach.still_at:
                reach = zone
            lasting.append(zone)
        starts = [zone.known_by for zone in lasting]
        for zone in zones:
            place = bisect_left(starts, zone.still_at) - 1
            inside = place >= 0 and zone.known_by < lasting[place].still_at
            if inside and zone.known_by >= zone.still_at:
                self._report_contradiction(lasting[place], zone)

    def _find_partial_writes(self) -> None:
        """Find reads of one instant with one document before a write, another after it."""
        multiple = [(write, effects) for write, effects in self._atoms if len(effects) > 1]
        for read in self._reads:
            shown = self._shown.get(id(read), {})
            if len(shown) < 2:
                continue
            for write, effects in multiple:
                if write.began <= read.ended:
                    self._find_partial_write(read, shown, effects)

    def _find_partial_write(
        self, read: Read, shown: Mapping[str, _Effect], effects: Mapping[str, _Effect]
    ) -> None:
        pairs = [
            (shown[name], effect)
            for name, effect in effects.items()
            if name in shown and shown[name].period is effect.period
        ]
        after = [effect for seen, effect in pairs if seen is effect or _came_before(effect, seen)]
        before = [(seen, effect) for seen, effect in pairs if _came_before(seen, effect)]
        if not (after and before):
            return
        seen, effect = before[0]
        self._report(
            effect.document,
            f"{_state_text(seen.state)} was read at {self._when(read.began)}, together with "
            f"{after[0].document} after {_state_text(after[0].state)}: only a part of the write "
            f"of {_state_text(effect.state)} was visible",
        )

    # report contradictions

    def _report_contradiction(self, zone: _Zone, other: _Zone) -> None:
        late, early = (zone, other) if zone.still_at > other.still_at else (other, zone)
        self._report_stale(late.last, early.first)

    def _report_stale(self, shown: _Effect, replaced_by: _Effect) -> None:
        self._report(
            shown.document,
            f"{_state_text(shown.state)} was read from {self._when(shown.still_at)} on, but "
            f"{_state_text(replaced_by.state)} had replaced it ({replaced_by.known_from} by "
            f"{self._when(replaced_by.known_by)}): a write was lost, or a read was stale",
        )

    def _report(self, document: str, sentence: str) -> None:
        self._contradictions.append(f"{document}: {sentence}.")

    def _when(self, instant: float) -> str:
        if math.isinf(instant):
            return "the start" if instant < 0 else "the end"
        return f"{instant - self._origin:.4f} s"


def _initial(document: str, state: State) -> _Effect:
    return _Effect(
        document=document, state=state, began=-math.inf, ended=-math.inf, known_by=-math.inf,
        happened=True, known_from="present",
    )  # fmt: skip


def _end(write: Write, stops: Sequence[float]) -> float:
    """Return by when a write had happened, if it did: at its answer, or at its process's end."""
    if write.outcome != "unknown":
        return write.ended
    number = bisect_left(stops, write.began)
    return stops[number] if number < len(stops) else math.inf


def _at(corrupted: Corrupted) -> float:
    return corrupted.at


def _chain(head: _Effect) -> list[_Effect]:
    chain = [head]
    while (after := chain[-1].next) is not None:
        chain.append(after)
    return chain


def _came_before(effect: _Effect, other: _Effect) -> bool:
    """Whether `effect` certainly came before `other`, of the same document."""
    if effect.zone is None or other.zone is None:
        return False
    if effect.zone is other.zone:
        return effect.place < other.place
    return effect.zone.known_by < other.zone.still_at


def _state_text(state: State) -> str:
    return "no document" if state is None else state
