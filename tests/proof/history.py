"""One judge of histories: what callers were told, against what readers were shown.

A history is what many callers saw of one store: each write with what its caller was told, each
read with what it returned, both with the instants between which they happened. `check` asks
whether one order of whole changes explains it all, every change at one instant of its interval,
every read showing what the last change before it left, and returns each contradiction in a plain
sentence, none where all is well:

V1, V4  A read shows what somebody wrote: no mixture, no refused write, no emptiness.
V3      What was acknowledged is there until a later write replaces it; a read never goes back,
        not across a kill either.
V5      The writes of one transaction, an import too, are seen all or none.
V6      A change of what was read (an edit's base) follows that content and nothing in between.

Writers put a state of their own into each value, so that a read names the write it shows. Of each
write two instants matter:

  known_by   the first end of anything that shows it (its acknowledgement, a read): it was there
  still_at   the last beginning of anything that shows it (its own, a read): it was there yet

X surely came before Y if X was known before Y was last there yet (X.known_by < Y.still_at). If
two writes of a document each surely came before the other, no order explains them; if no two do,
one does (Gibbons and Korach, Testing Shared Memories, 1997), so that pairs are all there is to
look at. A chain of edits, each made from the one before it, counts as one write there: nothing may
come between them.

Where a state was written more than once (absent again, restored), a read is held to one of its
writes only if no other can be meant: so much is forgiven, and nothing right is ever flagged.

Where a document's file was found broken (`Rotten`), its next content may be any earlier one, as
recovery takes a backup. The document must rest at that instant: plant flips in files while the
store is down, or where it must lose nothing because it remembers the content.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal, TypeAlias

State: TypeAlias = str | None
"""What one writer made of a document; None where there is no document."""
Outcome: TypeAlias = Literal["acknowledged", "refused", "unknown"]
"""What a writer was told: done; a typed error, so nothing was changed; nothing that is certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One change of one or more documents, all or nothing.

    `bases` are the states it was made from, read while the documents were held. Without an answer
    it ends when its process does.
    """

    changes: Mapping[str, State]
    began: float
    ended: float = math.inf
    outcome: Outcome = "unknown"
    bases: Mapping[str, State] = field(default_factory=dict[str, State])


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was found of one document, or of several at one instant (an export)."""

    found: Mapping[str, State]
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The process was gone by then: what it had not answered was done by then, or never."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotten:
    """The document's file was broken then, and nobody was reading or writing it."""

    document: str
    at: float


Event: TypeAlias = Write | Read | Stopped | Rotten


def check(
    events: Iterable[Event],
    *,
    start: Mapping[str, State] | None = None,
    older: Mapping[str, Collection[State]] | None = None,
) -> list[str]:
    """Return what contradicts itself in a history, given in any order.

    `start` holds the documents before it (the others do not exist), `older` what they ever held.
    Raises ValueError where a document was not at rest when its file was broken.
    """
    return _Checking(list(events), start or {}, older or {}).run()


_TO_BE_SEEN: Final = "whatever is read first"


@dataclass(slots=True, eq=False, kw_only=True)
class _Effect:
    """What one write did to one document, if it did."""

    document: str
    state: State
    began: float
    ended: float
    write: Write | None = None
    known_by: float = math.inf
    still_at: float = -math.inf
    happened: bool = False
    told: str = "read"
    stretch: _Stretch | None = None
    base: _Effect | None = None
    next: _Effect | None = None
    zone: _Zone | None = None
    place: int = 0

    def known(self, by: float, told: str) -> None:
        """Take note that it happened, and when that was certain."""
        self.happened = True
        if by < self.known_by:
            self.known_by, self.told = by, told

    def shown(self, began: float, ended: float) -> None:
        """Take note of a read that shows it."""
        self.known(ended, "read")
        self.still_at = max(self.still_at, began)


@dataclass(slots=True, eq=False)
class _Zone:
    """Effects that follow one another with nothing in between."""

    effects: list[_Effect]
    first: _Effect
    """The one that was known first."""
    last: _Effect
    """The one that was there last."""

    @classmethod
    def of(cls, effects: list[_Effect]) -> _Zone:
        zone = cls(
            effects,
            min(effects, key=lambda one: one.known_by),
            max(effects, key=lambda one: one.still_at),
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
    """One document as one read found it, or as an edit did that was made from it."""

    document: str
    state: State
    began: float
    ended: float
    of: Read | Write


@dataclass(slots=True, eq=False)
class _Stretch:
    """A document's history as far as nothing but writes can change it: up to a broken file."""

    initial: _Effect
    possible: frozenset[State]
    """What `initial` may turn out to be, where that is to be seen."""
    effects: list[_Effect] = field(default_factory=list[_Effect])
    readings: list[_Reading] = field(default_factory=list[_Reading])
    by_state: dict[State, list[_Effect]] = field(
        default_factory=lambda: defaultdict[State, list[_Effect]](list)
    )
    _known: list[float] = field(default_factory=list[float])
    _begun: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.initial.stretch = self
        self.effects.append(self.initial)
        if self.initial.state is not _TO_BE_SEEN:
            self.by_state[self.initial.state].append(self.initial)

    def add(self, effect: _Effect) -> None:
        effect.stretch = self
        self.effects.append(effect)
        self.by_state[effect.state].append(effect)

    def states(self) -> Iterator[State]:
        yield from self.by_state
        yield from self.possible

    def meant(self, reading: _Reading) -> list[_Effect]:
        """Return the effects that a reading may show."""
        written = [
            one for one in self.by_state.get(reading.state, ()) if one.write is not reading.of
        ]
        if self.initial.state is _TO_BE_SEEN and reading.state in self.possible:
            written.append(self.initial)
        return [one for one in written if one.began <= reading.ended]

    def certain(self, reading: _Reading) -> _Effect | None:
        """Return the effect that a reading must show, as nobody else wrote its state."""
        meant = self.meant(reading)
        alone = len(self.by_state.get(reading.state, ())) == 1 and reading.state not in (
            self.possible if self.initial.state is _TO_BE_SEEN else ()
        )
        return meant[0] if meant and alone else None

    def take_stock(self) -> None:
        """Remember, for each instant, when the last of what was known by then had begun."""
        known = sorted((one.known_by, one.began) for one in self.effects)
        self._known = [known_by for known_by, _ in known]
        self._begun = list(accumulate((began for _, began in known), max))

    def not_replaced(self, reading: _Reading) -> list[_Effect]:
        """Return the effects that a reading may show and that nothing surely replaced before."""
        count = bisect_left(self._known, reading.began)
        begun = self._begun[count - 1] if count else -math.inf
        return [one for one in self.meant(reading) if min(one.known_by, one.ended) >= begun]


class _Checking:
    """One check, from the events to the complaints."""

    def __init__(
        self,
        events: Sequence[Event],
        start: Mapping[str, State],
        older: Mapping[str, Collection[State]],
    ) -> None:
        self._start = start
        self._older = older
        self._reads = [one for one in events if isinstance(one, Read)]
        stops = sorted(one.at for one in events if isinstance(one, Stopped))
        self._writes = [(one, _end(one, stops)) for one in events if isinstance(one, Write)]
        self._zero = min((one.began for one in events if isinstance(one, Write | Read)), default=0)
        self._rots: dict[str, list[float]] = defaultdict(list)
        for rotten in sorted((one for one in events if isinstance(one, Rotten)), key=_at):
            self._rots[rotten.document].append(rotten.at)
        self._stretches: dict[str, list[_Stretch]] = {}
        self._atoms: list[tuple[Write, dict[str, _Effect]]] = []
        self._refused: set[tuple[str, State]] = set()
        self._shown: dict[int, dict[str, _Effect]] = defaultdict(dict)
        self._complaints: list[str] = []

    def run(self) -> list[str]:
        self._take_writes()
        self._take_readings()
        stretches = [one for several in self._stretches.values() for one in several]
        for stretch in stretches:
            self._explain_the_certain(stretch)
        self._share_what_is_known()
        for stretch in stretches:
            self._explain_the_rest(stretch)
        self._share_what_is_known()
        for stretch in stretches:
            self._look_for_contradictions(stretch)
        self._look_for_halves()
        return self._complaints

    # taking in

    def _take_writes(self) -> None:
        done = [(write, ended) for write, ended in self._writes if write.outcome != "refused"]
        for write, ended in sorted(done, key=lambda one: one[0].began):
            self._atoms.append((write, {}))
            for document, state in write.changes.items():
                effect = _Effect(
                    document=document, state=state, began=write.began, ended=ended, write=write,
                    still_at=write.began,
                )  # fmt: skip
                if write.outcome == "acknowledged":
                    effect.known(ended, "acknowledged")
                self._stretch(document, write.began, ended).add(effect)
                self._atoms[-1][1][document] = effect
        for write, _ in self._writes:
            if write.outcome == "refused":
                self._refused |= set(write.changes.items())

    def _take_readings(self) -> None:
        for read in self._reads:
            for document, state in read.found.items():
                reading = _Reading(document, state, read.began, read.ended, read)
                self._stretch(document, read.began, read.ended).readings.append(reading)
        for write, ended in self._writes:
            for document, state in write.bases.items():
                reading = _Reading(document, state, write.began, ended, write)
                self._stretch(document, write.began, ended).readings.append(reading)

    def _stretch(self, document: str, began: float, ended: float) -> _Stretch:
        """Return the stretch of a document that an interval lies in."""
        rots = self._rots.get(document, [])
        if document not in self._stretches:
            self._stretches[document] = [self._first_stretch(document)]
        stretches = self._stretches[document]
        number = bisect_left(rots, began)
        if ended < math.inf and bisect_left(rots, ended) != number:
            raise ValueError(f"{document} was not at rest when its file was broken")
        while len(stretches) <= number:
            stretches.append(self._next_stretch(document, stretches[-1]))
        return stretches[number]

    def _first_stretch(self, document: str) -> _Stretch:
        return _Stretch(_initial(document, self._start.get(document)), frozenset())

    def _next_stretch(self, document: str, before: _Stretch) -> _Stretch:
        """Begin again after a broken file, with any content of before; broken is not empty."""
        possible = {*before.states(), *self._older.get(document, ())} - {None, _TO_BE_SEEN}
        return _Stretch(_initial(document, _TO_BE_SEEN), frozenset(possible))

    # which write a reading shows

    def _explain_the_certain(self, stretch: _Stretch) -> None:
        rest = []
        for reading in stretch.readings:
            effect = stretch.certain(reading)
            if effect is None:
                rest.append(reading)
            else:
                self._show(effect, reading)
        stretch.readings = sorted(rest, key=lambda reading: reading.ended)

    def _share_what_is_known(self) -> None:
        """What was seen of one document of a write has happened to them all."""
        for write, effects in self._atoms:
            seen = [one for one in effects.values() if one.happened]
            if not seen:
                continue
            first = min(seen, key=lambda one: one.known_by)
            for effect in effects.values():
                if write.outcome == "unknown":
                    effect.known(effect.ended, "done before its process ended")
                effect.known(first.known_by, f"{first.told} elsewhere")

    def _explain_the_rest(self, stretch: _Stretch) -> None:
        stretch.take_stock()
        for reading in stretch.readings:
            meant = stretch.not_replaced(reading)
            if not meant:
                self._complain_of(stretch, reading)
            elif len(meant) == 1:
                if meant[0].state is _TO_BE_SEEN:
                    meant[0].state = reading.state
                    stretch.by_state[reading.state].append(meant[0])
                self._show(meant[0], reading)

    def _show(self, effect: _Effect, reading: _Reading) -> None:
        effect.shown(reading.began, reading.ended)
        self._shown[id(reading.of)][reading.document] = effect

    def _complain_of(self, stretch: _Stretch, reading: _Reading) -> None:
        written = stretch.by_state.get(reading.state, ())
        if any(one.began <= reading.ended for one in written) or reading.state in stretch.possible:
            why = "though that had been replaced"
        elif written:
            why = f"before its write began at {self._when(written[0].began)}"
        elif (reading.document, reading.state) in self._refused:
            why = "though its write was refused"
        else:
            why = "and nobody " + ("wrote it" if reading.state is not None else "deleted it")
        self._say(
            reading.document,
            f"{_name(reading.state)} was read from {self._when(reading.began)} to "
            f"{self._when(reading.ended)}, {why}",
        )

    # contradictions

    def _look_for_contradictions(self, stretch: _Stretch) -> None:
        self._link_edits(stretch)
        happened = [one for one in stretch.effects if one.happened]
        zones = [_Zone.of(_chain(one)) for one in happened if one.base is None]
        for effect in happened:
            if effect.zone is None:
                effect.zone = _Zone([effect], effect, effect)
                self._say(effect.document, f"{_name(effect.state)} was made from itself")
        for zone in zones:
            self._look_within(zone)
        self._look_between(zones)

    def _link_edits(self, stretch: _Stretch) -> None:
        for effect in stretch.effects:
            if effect.write is None or not effect.happened:
                continue
            base = self._shown[id(effect.write)].get(effect.document)
            if base is None:
                continue
            if base.next is not None:
                self._say(
                    effect.document,
                    f"{_name(base.next.state)} and {_name(effect.state)} were both made from "
                    f"{_name(base.state)}: one update is lost",
                )
                continue
            base.next, effect.base = effect, base

    def _look_within(self, zone: _Zone) -> None:
        later: _Effect | None = None
        for effect in reversed(zone.effects):
            if later is not None and later.known_by < effect.still_at:
                self._say_went_back(effect, later)
            if later is None or effect.known_by < later.known_by:
                later = effect

    def _look_between(self, zones: Sequence[_Zone]) -> None:
        """Find zones that each surely came before another.

        Of those known before they were last there, no two may overlap, and none of the others may
        lie inside one.
        """
        lasting: list[_Zone] = []
        reach: _Zone | None = None
        for zone in sorted(zones, key=lambda one: one.known_by):
            if zone.known_by >= zone.still_at:
                continue
            if reach is not None and zone.known_by < reach.still_at:
                self._say_contradict(reach, zone)
            if reach is None or zone.still_at > reach.still_at:
                reach = zone
            lasting.append(zone)
        starts = [zone.known_by for zone in lasting]
        for zone in zones:
            place = bisect_left(starts, zone.still_at) - 1
            inside = place >= 0 and zone.known_by < lasting[place].still_at
            if inside and zone.known_by >= zone.still_at:
                self._say_contradict(lasting[place], zone)

    def _look_for_halves(self) -> None:
        """Find reads of one instant that show one document before a write, another after it."""
        atoms = [one for one in self._atoms if len(one[1]) > 1]
        for read in self._reads:
            shown = self._shown.get(id(read), {})
            if len(shown) < 2:
                continue
            for write, effects in atoms:
                if write.began <= read.ended:
                    self._look_for_half(read, shown, effects)

    def _look_for_half(
        self, read: Read, shown: Mapping[str, _Effect], effects: Mapping[str, _Effect]
    ) -> None:
        pairs = [
            (shown[name], one)
            for name, one in effects.items()
            if name in shown and shown[name].stretch is one.stretch
        ]
        after = [one for seen, one in pairs if seen is one or _came_before(one, seen)]
        before = [(seen, one) for seen, one in pairs if _came_before(seen, one)]
        if not (after and before):
            return
        seen, one = before[0]
        self._say(
            one.document,
            f"{_name(seen.state)} was read at {self._when(read.began)} together with "
            f"{after[0].document} after {_name(after[0].state)}: half of what was written with "
            f"{_name(one.state)}",
        )

    # sentences

    def _say_contradict(self, one: _Zone, other: _Zone) -> None:
        late, early = (one, other) if one.still_at > other.still_at else (other, one)
        self._say_went_back(late.last, early.first)

    def _say_went_back(self, shown: _Effect, replaced_by: _Effect) -> None:
        self._say(
            shown.document,
            f"{_name(shown.state)} was read from {self._when(shown.still_at)} on, though "
            f"{_name(replaced_by.state)} had come after it ({replaced_by.told} by "
            f"{self._when(replaced_by.known_by)}): it is lost, or the read went back",
        )

    def _say(self, document: str, sentence: str) -> None:
        self._complaints.append(f"{document}: {sentence}.")

    def _when(self, instant: float) -> str:
        if math.isinf(instant):
            return "the start" if instant < 0 else "the end"
        return f"{instant - self._zero:.4f} s"


def _initial(document: str, state: State) -> _Effect:
    return _Effect(
        document=document, state=state, began=-math.inf, ended=-math.inf, known_by=-math.inf,
        happened=True, told="there",
    )  # fmt: skip


def _end(write: Write, stops: Sequence[float]) -> float:
    """Return when a write had happened, if it did: answered, or its process gone."""
    if write.outcome != "unknown":
        return write.ended
    number = bisect_left(stops, write.began)
    return stops[number] if number < len(stops) else math.inf


def _at(rotten: Rotten) -> float:
    return rotten.at


def _chain(head: _Effect) -> list[_Effect]:
    chain = [head]
    while (after := chain[-1].next) is not None:
        chain.append(after)
    return chain


def _came_before(one: _Effect, other: _Effect) -> bool:
    """Whether one surely came before the other, of the same document."""
    if one.zone is None or other.zone is None:
        return False
    if one.zone is other.zone:
        return one.place < other.place
    return one.zone.known_by < other.zone.still_at


def _name(state: State) -> str:
    return "no document" if state is None else state
