"""`python -m tests.proof.report`: write docs/reliability.md from the figures of the last long run.

The whole document is generated. After a slice of the long run (`SELINE_PROVE_MINUTES`), the report
is written next to the figures instead, and the document does not change. The headline is printed:
the README quotes it, and a test compares the two.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.proof.figures import DEFAULT

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
CONTROL: Final = "negative control"
Figure: TypeAlias = Mapping[str, Any]

SUITES: Final[Mapping[str, str]] = {
    "every call fails once": (
        "Each operation is repeated, and each time another of its file-changing calls fails (EIO, "
        "ENOSPC, EROFS, EACCES, a short write). The operation must succeed or raise a typed error, "
        "leave no stray file, and the next operation must work."
    ),
    "power cut": (
        "The calls of each operation are recorded. From them, every state is built that a disk may "
        "have after a power cut at any moment: unsynced data lost, torn or filled with zeros, "
        "renames in any order, attributes lost with their inode. Seline opens each state: "
        "acknowledged changes must be present, torn content must not be served, and a transaction "
        "must be complete or absent."
    ),
    "kill -9": (
        "The process is killed at every system call, and at random moments while sixteen writers, "
        "transactions and rotation run. Acknowledged changes must be present after the next start."
    ),
    "failing syncs": (
        "One sync fails: of a file, of a directory or of the journal. A change must not be "
        "reported as durable after a repeated sync, and reads must return what the disk has."
    ),
    "full volume": (
        "A small file system is filled by saves, by backups and by other programs, or runs out of "
        "inodes. Reads, deletes, shrinking saves, restores and exports must work, and saves must "
        "work again when there is room."
    ),
    "rot": (
        "Bits are flipped, blocks zeroed, files truncated or swapped, in documents, backups, the "
        "record of a transaction and Seline's own state; the journal is damaged while no file has "
        "its last changes. All damage must be detected, no broken content served, and everything "
        "that has a sound copy recovered. Damage of the journal's end need not be detected: it "
        "looks like a write that a power cut interrupted."
    ),
    "time and place": (
        "The clock jumps; the volume is unmounted, replaced or read-only; links and directories "
        "have the names of documents; there are ten thousand documents, or one of 32 MiB."
    ),
    "clock": "The wall clock jumps back and forth while documents are saved and rotated.",
    "place": (
        "The data directory is replaced, removed, read-only, locked by another process, without "
        "user attributes, full of foreign files, or has ten thousand documents."
    ),
    "cancellation": (
        "Callers are cancelled at every point where they wait, also twice, and the store is closed "
        "during their calls. A change must happen completely or not at all, and nothing may leak."
    ),
    "soak": (
        "All operations run at once and are compared with a model: saves, edits, transactions, "
        "restores, exports, kills, flipped bits, a full disk. The use of memory, descriptors and "
        "disk must not grow."
    ),
}
"""What each suite does, in the order of the document."""

HOW_TO_READ: Final = """\
`make prove` generates this document from its own output. *Tried* is the number of injected faults.
After each one the guarantees are checked that can be observed from outside: no acknowledged change
is lost, no broken content is served as sound, changes of several documents are complete, backups
are kept, no stray file is left, and the next operation works. *Broken* is the number of faults
after which one of these guarantees did not hold.
"""
CONTROLS: Final = """\
## The same suites on wrong stores

A suite without findings could be unable to find anything. So each suite also runs on stores that
are wrong on purpose, and must flag every one of them.
"""
STORES: Final = """\
### Other stores

Seven saves and a power cut at every step. *Flagged* is the number of states in which an
acknowledged save is lost or only broken bytes remain.
"""
BUILDS: Final = """\
### Seline without one safeguard

Each line is a build of Seline that lacks one sync, link, checksum or check. A test fails if a
safeguard in the code has no such build.
"""
OTHERS: Final = """\
### The other suites

The same check of the other suites.
"""
KINDS: Final[Mapping[str, str]] = {"store": STORES, "build": BUILDS, "": OTHERS}
"""The kinds of negative controls, each with its introduction."""
SHOWN_APART: Final = frozenset(
    {"suite", "what", "tried", "failures", "where", "date", "possible", "kind"}
)


def main() -> None:
    """Write the document and print its headline."""
    path = Path(os.environ.get("SELINE_FIGURES") or DEFAULT)
    if not path.exists():
        sys.exit(f"There are no figures in {path}: run `make prove` first.")
    figures = read(path.read_text(encoding="utf-8"))
    slice_only = bool(os.environ.get("SELINE_PROVE_MINUTES"))
    target = path.with_name(DOCUMENT.name) if slice_only else DOCUMENT
    target.write_text(document(figures), encoding="utf-8")
    print(f"{headline(figures)}\n({target}; the README quotes this line of docs/{DOCUMENT.name})")


def read(lines: str) -> list[Figure]:
    """Return the last figure of each round."""
    figures = [json.loads(line) for line in lines.splitlines()]
    return list({(figure["suite"], figure["what"]): figure for figure in figures}.values())


def document(figures: Sequence[Figure]) -> str:
    """Return the document."""
    faults, controls = _faults(figures), _controls(figures)
    parts = ["# Reliability, in figures\n", HOW_TO_READ, headline(figures) + "\n"]
    parts += [_overview(faults), *_sections(faults)]
    if controls:
        parts += [CONTROLS, *_control_sections(controls)]
    return "\n".join(parts)


def headline(figures: Sequence[Figure]) -> str:
    """Return the total in one sentence, which the README quotes."""
    faults, controls = _faults(figures), _controls(figures)
    flagged = sum(figure["failures"] > 0 for figure in controls)
    dates = sorted(figure["date"] for figure in faults) or ["never"]
    return (
        f"**{_sum(faults, 'tried')} faults tried, {_sum(faults, 'failures')} promises broken; "
        f"{flagged} of {len(controls)} wrong stores flagged** "
        f"({dates[-1]}, on {_places(faults) or 'nothing'})."
    )


def _faults(figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure["suite"] != CONTROL]


def _controls(figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure["suite"] == CONTROL]


def _overview(faults: Sequence[Figure]) -> str:
    lines = ["| suite | rounds | tried | broken | on |", "|---|---:|---:|---:|---|"]
    for suite, rounds in _by_suite(faults):
        lines.append(
            f"| [{suite}](#{_anchor(suite)}) | {len(rounds)} | {_sum(rounds, 'tried')} "
            f"| {_sum(rounds, 'failures')} | {_places(rounds)} |"
        )
    return "\n".join(lines) + "\n"


def _sections(faults: Sequence[Figure]) -> Iterator[str]:
    for suite, rounds in _by_suite(faults):
        yield f"## {_title(suite)}\n\n{SUITES[suite]}\n\n{_table(rounds, 'broken')}{_left(rounds)}"


def _by_suite(faults: Sequence[Figure]) -> Iterator[tuple[str, list[Figure]]]:
    for suite in SUITES:
        rounds = [figure for figure in faults if figure["suite"] == suite]
        if rounds:
            yield suite, rounds
    unknown = {figure["suite"] for figure in faults} - SUITES.keys()
    assert not unknown, f"SUITES does not describe {unknown}"


def _control_sections(controls: Sequence[Figure]) -> Iterator[str]:
    for kind, introduction in KINDS.items():
        of_kind = [figure for figure in controls if figure.get("kind", "") == kind]
        if of_kind:
            yield f"{introduction}\n{_table(of_kind, 'flagged')}"


def _table(rounds: Sequence[Figure], counted: str) -> str:
    lines = [f"| what | tried | {counted} | on | also |", "|---|---:|---:|---|---|"]
    lines += map(_row, rounds)
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    cells = (figure["what"], _tried(figure), f"{figure['failures']:,}", figure["where"])
    return f"| {' | '.join(cells)} | {_also(figure)} |"


def _tried(figure: Figure) -> str:
    """Return how many faults were tried, and of how many if there was no time for all."""
    tried, possible = figure["tried"], figure.get("possible", figure["tried"])
    return f"{tried:,}" if tried >= possible else f"{tried:,} of {possible:,}"


def _left(rounds: Sequence[Figure]) -> str:
    left = sum(max(0, figure.get("possible", 0) - figure["tried"]) for figure in rounds)
    return f"\nThere was no time for {left:,} others; the choice is random.\n" if left else ""


def _also(figure: Figure) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in figure.items()
        if name not in SHOWN_APART
    )


def _sum(figures: Iterable[Figure], what: str) -> str:
    return f"{sum(figure[what] for figure in figures):,}"


def _places(figures: Iterable[Figure]) -> str:
    places = (place for figure in figures for place in str(figure["where"]).split(", "))
    return ", ".join(dict.fromkeys(places))


def _title(suite: str) -> str:
    return f"{suite[:1].upper()}{suite[1:]}"


def _anchor(suite: str) -> str:
    """Return a heading's anchor: lower case, hyphens for spaces, no other signs."""
    kept = "".join(letter for letter in suite.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main()
