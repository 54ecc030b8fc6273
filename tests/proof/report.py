"""`python -m tests.proof.report`: write docs/reliability.md from the figures of the last long run.

Nothing in that document is written by hand: what no figure says is not in it. After a slice of the
long run (`SELINE_PROVE_MINUTES`) the document stays as it is, and the slice's own lies beside its
figures. The headline is printed: the README quotes it, and a test holds the two equal.
"""

from __future__ import annotations

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
        "Each operation is done again and again, each time with another of its file-changing calls "
        "refused (EIO, ENOSPC, EROFS, EACCES, a short write). It must fail with a typed error or "
        "succeed, leave nothing stray, and the next operation must work."
    ),
    "power cut": (
        "The calls of each operation are recorded, and every state is rebuilt that a disk may show "
        "after a power cut at any moment: what was not synced lost, torn or filled with zeros, "
        "names in any order, attributes lost with their inode. Seline opens each: what was "
        "acknowledged is there, nothing torn is served, a transaction is whole or absent."
    ),
    "kill -9": (
        "The process is killed at every system call, and at random under sixteen writers with "
        "transactions and rotation running. What was acknowledged is there after the next start."
    ),
    "failing syncs": (
        "A sync fails once: of a file, a directory, the journal. Nothing is reported durable by "
        "trying again, and what is served afterwards is what the disk holds."
    ),
    "full volume": (
        "A small file system is filled by saves, by backups and by strangers, out of inodes too. "
        "Reads, deletes, shrinking saves, restores and exports go on, and the state ends by itself."
    ),
    "rot": (
        "Bits flip, blocks are zeroed, files are truncated or swapped, in documents, backups, the "
        "journal and Seline's own state. Everything is noticed, nothing broken is served, and what "
        "has a sound copy is recovered."
    ),
    "time and place": (
        "The clock jumps, the volume is unmounted, swapped or read-only, links and directories "
        "stand where documents should be, there are ten thousand documents or one of 32 MiB."
    ),
    "clock": "The wall clock jumps back and forth while documents are saved and rotated.",
    "place": (
        "The data directory is swapped, removed, read-only, held by another process, without user "
        "attributes, full of strange things, or of ten thousand documents."
    ),
    "cancellation": (
        "Callers are cancelled at every point where they wait, twice, and the store closed under "
        "them. A change is made whole or not at all, and nothing leaks."
    ),
    "soak": (
        "Everything at once against a model kept beside it: saves, edits, transactions, restores, "
        "exports, kills, flips, a full disk. Memory, descriptors and disk stay flat."
    ),
}
"""What each suite does; its figures stand in this order."""

HOW_TO_READ: Final = """\
Written by `make prove` from its own output; nothing here is typed by hand. Every number under
*tried* is a fault that was made on purpose, after which every promise was checked that can be
seen from outside: nothing acknowledged is lost, nothing broken is served as if it were sound,
changes of several documents are whole, backups are kept, nothing is left lying about, the next
operation works. *Broken* counts the faults after which one of them did not hold.
"""
CONTROLS: Final = """\
## What the same suites say of wrong stores

A suite that finds nothing could be blind. So each is turned on stores that are wrong on purpose,
and has to flag every one of them.
"""
STORES: Final = """\
### Whole stores that are wrong

Seven saves in a row, and a power cut at every step of them: in so many of the states an
acknowledged save is lost, or broken bytes are all that is left.
"""
BUILDS: Final = """\
### Seline without one care

Each line is a build of Seline that lacks one sync, link, checksum or check. A place in the code
that has no such build fails the tests.
"""
OTHERS: Final = """\
### Other wrong stores

The checks of the other suites, tried in the same way.
"""
KINDS: Final[Mapping[str, str]] = {"store": STORES, "build": BUILDS, "": OTHERS}
"""Kinds of negative controls, each with what stands above it."""
SHOWN_APART: Final = frozenset(
    {"suite", "what", "tried", "failures", "where", "date", "possible", "kind"}
)


def main() -> None:
    """Write the document, and print its headline."""
    path = Path(os.environ.get("SELINE_FIGURES") or DEFAULT)
    if not path.exists():
        sys.exit(f"There are no figures in {path}: run `make prove` first.")
    figures = read(path.read_text(encoding="utf-8"))
    slice_only = bool(os.environ.get("SELINE_PROVE_MINUTES"))
    target = path.with_name(DOCUMENT.name) if slice_only else DOCUMENT
    target.write_text(document(figures), encoding="utf-8")
    print(f"{headline(figures)}\n({target}; the README quotes this line of docs/{DOCUMENT.name})")


def read(lines: str) -> list[Figure]:
    """Return the figures, of each round the one that was noted last."""
    figures = [json.loads(line) for line in lines.splitlines()]
    return list({(one["suite"], one["what"]): one for one in figures}.values())


def document(figures: Sequence[Figure]) -> str:
    """Return the document."""
    faults, controls = _faults(figures), _controls(figures)
    parts = ["# Reliability, in figures\n", HOW_TO_READ, headline(figures) + "\n"]
    parts += [_overview(faults), *_sections(faults)]
    if controls:
        parts += [CONTROLS, *_control_sections(controls)]
    return "\n".join(parts)


def headline(figures: Sequence[Figure]) -> str:
    """Return one sentence over everything that was tried, for the README."""
    faults, controls = _faults(figures), _controls(figures)
    flagged = sum(one["failures"] > 0 for one in controls)
    dates = sorted(one["date"] for one in faults) or ["never"]
    return (
        f"**{_sum(faults, 'tried')} faults tried, {_sum(faults, 'failures')} promises broken; "
        f"{flagged} of {len(controls)} wrong stores flagged** "
        f"({dates[-1]}, on {_places(faults) or 'nothing'})."
    )


def _faults(figures: Iterable[Figure]) -> list[Figure]:
    return [one for one in figures if one["suite"] != CONTROL]


def _controls(figures: Iterable[Figure]) -> list[Figure]:
    return [one for one in figures if one["suite"] == CONTROL]


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
        rounds = [one for one in faults if one["suite"] == suite]
        if rounds:
            yield suite, rounds
    unknown = {one["suite"] for one in faults} - SUITES.keys()
    assert not unknown, f"no sentence in SUITES says what {unknown} does"


def _control_sections(controls: Sequence[Figure]) -> Iterator[str]:
    for kind, above in KINDS.items():
        of_kind = [one for one in controls if one.get("kind", "") == kind]
        if of_kind:
            yield f"{above}\n{_table(of_kind, 'flagged')}"


def _table(rounds: Sequence[Figure], counted: str) -> str:
    lines = [f"| what | tried | {counted} | on | also |", "|---|---:|---:|---|---|"]
    lines += [
        f"| {one['what']} | {_tried(one)} | {one['failures']:,} | {one['where']} | {_also(one)} |"
        for one in rounds
    ]
    return "\n".join(lines) + "\n"


def _tried(figure: Figure) -> str:
    """Return how many were tried, and of how many where there was no time for all."""
    tried, possible = figure["tried"], figure.get("possible", figure["tried"])
    return f"{tried:,}" if tried >= possible else f"{tried:,} of {possible:,}"


def _left(rounds: Sequence[Figure]) -> str:
    left = sum(max(0, one.get("possible", 0) - one["tried"]) for one in rounds)
    return f"\n{left:,} were left for want of time; which ones was drawn by lot.\n" if left else ""


def _also(figure: Figure) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in figure.items()
        if name not in SHOWN_APART
    )


def _sum(figures: Iterable[Figure], what: str) -> str:
    return f"{sum(one[what] for one in figures):,}"


def _places(figures: Iterable[Figure]) -> str:
    kinds = (kind for one in figures for kind in str(one["where"]).split(", "))
    return ", ".join(dict.fromkeys(kinds))


def _title(suite: str) -> str:
    return f"{suite[:1].upper()}{suite[1:]}"


def _anchor(suite: str) -> str:
    """Return the anchor that a heading gets: small, hyphens for spaces, no other signs."""
    kept = "".join(letter for letter in suite.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main()
