"""docs/benchmarks.md: one table of all stores, and what each of them does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.peers import Peer, SelinePeer

LIMIT = "one flush"
EQUAL_RATIO = 1.1
"""What single figures vary."""
HEAD = """# Benchmarks

Seline beside other stores that a bot may use, each doing the same durable work: when a call
returns, the change survives a power cut, and so do the five versions before it. Everything below
comes from one run of one command, which writes this page:

```sh
make peers
```

The stores ran on {place}, on a virtual machine with {cores} cores.
Other programs used them, too, so single figures vary by a tenth and more. In {rounds} rounds every
store had a turn of {turn_ms:.0f} ms, in random order. A figure is the median of the rounds: µs for
each change or load. In brackets is how many times the one flush that the same rounds measured, the
limit of a single durable change: 4 KiB of a file overwritten, and `fdatasync`. Less is better.
"""
WHAT = """
## What the columns are

- **a save of 1 KiB**: one writer replaces a document.
- **a field of 64 KiB**: one writer sets one field of a document with 64 parts of 1 KiB.
- **16 writers, 16 documents**: sixteen tasks save at the same time, 1 KiB each.
- **64 writers, one document**: 64 tasks set a field each of one document at the same time.
- **an item to a list**: one writer appends an item of 50 bytes to a list in a document.
- **a load of 1 KiB**: one reader, again and again; every store has the document in memory.

Seline takes the changes of many tasks as they are. The other stores have a queue in front, which
makes one transaction of the changes that wait, a statement for each: the fastest way to use them,
and code that a bot would have to bring. The rows without the queue show what they take if each task
makes its own transaction. A store marked * blocks the event loop of the bot while the disk works:
that saves two switches of thread, and the bot answers no one in that time.
"""
PARTS = """
## Where the time of a save goes

Measured in the same run, in 2,000 saves of 1 KiB by one writer: the median of each part, and what
the mean of whole saves is longer. The probes add about 5 µs. A row in which a thread wakes has a
switch of thread, which any store takes that leaves the event loop free. The rows that are neither
that nor the disk are Python, and about 14 system calls.

| part | µs |
|---|---|
"""
MANY = """
## What limits many writers

Python runs one thread of a process at a time, and the disk syncs the changes of all in one flush.
So the processor's time is what many writers wait for: that of Seline's two threads, and over HTTP
that of the server. The figures are µs for each change, in the same run.

| | µs |
|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What one run found. `limited`: the works that a flush limits. `micros`: by store and work.

    `parts`: µs of each part of a save. `many`: µs for each change, of many at the same time.
    """

    place: str
    cores: int
    rounds: int
    turn_s: float
    works: Sequence[str]
    limited: Sequence[str]
    peers: Sequence[Peer]
    missing: Mapping[str, str]
    micros: Mapping[tuple[str, str], float]
    parts: Mapping[str, float]
    many: Mapping[str, float]


def page(compared: Compared) -> str:
    """Return the page."""
    head = HEAD.format(
        place=compared.place,
        cores=compared.cores,
        rounds=compared.rounds,
        turn_ms=compared.turn_s * 1e3,
    )
    lines = [
        head, *_table(compared), "", *_places(compared), WHAT.rstrip(), PARTS.rstrip(),
        *_rows(compared.parts), f"| **together** | {sum(compared.parts.values()):,.0f} |",
        MANY.rstrip(), *_rows(compared.many), "", *_stores(compared),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rows(micros: Mapping[str, float]) -> list[str]:
    return [f"| {what} | {each:,.0f} |" for what, each in micros.items()]


def _table(compared: Compared) -> Iterator[str]:
    yield f"| | {' | '.join(compared.works)} |"
    yield "|---|" + "---|" * len(compared.works)
    limits = [
        f"{compared.micros[LIMIT, work]:,.0f}" if work in compared.limited else ""
        for work in compared.works
    ]
    yield f"| {LIMIT} | {' | '.join(limits)} |"
    for peer in compared.peers:
        cells = [_cell(compared, peer, work) for work in compared.works]
        title = f"**{peer.title}**" if isinstance(peer, SelinePeer) else peer.title
        yield f"| {title}{' *' if peer.blocks else ''} | {' | '.join(cells)} |"


def _cell(compared: Compared, peer: Peer, work: str) -> str:
    micros = compared.micros.get((peer.title, work))
    if micros is None:
        return "–"
    if work not in compared.limited:
        return f"{micros:,.0f}"
    ratio = micros / compared.micros[LIMIT, work]
    return f"{micros:,.0f} ({ratio:.{1 if ratio >= 1 else 2}f})"


def _places(compared: Compared) -> Iterator[str]:
    """Yield Seline's place in each column among the stores that survive a power cut."""
    ranked = {work: _ranked(compared, work) for work in compared.works}
    first = sum(_is_ahead(found) for found in ranked.values())
    count = f"{first} of {len(ranked)} columns"
    yield f"Of the stores that survive a power cut, Seline is first in {count}:"
    yield ""
    for work, found in ranked.items():
        place = [title for _, title in found].index(SelinePeer.title)
        other_us, other = found[0 if place else 1]
        ratio = max(other_us, found[place][0]) / min(other_us, found[place][0])
        times = f"{ratio:.1f} times"
        if ratio < EQUAL_RATIO:
            yield f"- {work}: {place + 1} of {len(found)}, as fast as {other}"
        elif place:
            yield f"- {work}: {place + 1} of {len(found)}; the first, {other}, is {times} as fast"
        else:
            yield f"- {work}: first of {len(found)}, {times} as fast as the next, {other}"


def _is_ahead(ranked: Sequence[tuple[float, str]]) -> bool:
    """Whether Seline is first by more than what single figures vary."""
    (first_us, title), (next_us, _) = ranked[:2]
    return title == SelinePeer.title and next_us >= first_us * EQUAL_RATIO


def _ranked(compared: Compared, work: str) -> list[tuple[float, str]]:
    return sorted(
        (compared.micros[peer.title, work], peer.title)
        for peer in compared.peers
        if peer.ranked and (peer.title, work) in compared.micros
    )


def _stores(compared: Compared) -> Iterator[str]:
    yield "## How each store does it"
    yield ""
    yield "| store | version | how |"
    yield "|---|---|---|"
    for peer in compared.peers:
        yield f"| {peer.title} | {peer.version()} | {peer.remark} |"
    for title, lacks in compared.missing.items():
        yield f"| {title} | not measured | {lacks} was not installed |"
