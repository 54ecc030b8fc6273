"""The drill: restore the newest copy of a mirror in scratch space, and compare everything in it.

Each object is compared as it is stored. Where the key is there, the copy is restored, and the
contents compared; without room for that each is decrypted, unpacked, and compared with the digest
that gave it its name. Memory holds a few of them at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from seline.clock import instant_text
from seline.domain.copy import Copy
from seline.domain.mirror import Head, Proof, parse_head_name
from seline.domain.plural import counted
from seline.errors import ExportDamaged, KeyMissing
from seline.operations.at_once import batches
from seline.operations.copies import copy_of_chain
from seline.operations.mirror_store import MirrorStore
from seline.ports.destinations import ObjectMissing

SERVICE: Final = "service"
TryRestore: TypeAlias = Callable[[Copy], Awaitable[str]]
"""Restores a copy and compares it; returns why it did not try, empty if it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """A copy that was read back: how many objects, and which of them are damaged.

    `decrypted`: every content was decrypted and compared. `flaw` is the first that was found, also
    in a head or a manifest; None for a whole copy. `not_restored`: why no restore was tried.
    """

    head: Head
    objects: int
    decrypted: bool
    not_restored: str = ""
    damaged: tuple[str, ...] = ()
    flaw: ExportDamaged | None = None


async def read_back(
    at: MirrorStore,
    *,
    content_bytes_max: int,
    sequence: int = 0,
    try_restore: TryRestore | None = None,
) -> Drilled | None:
    """Read the newest copy that is not in doubt; None if there is none.

    A content of more than `content_bytes_max` counts as damaged: who can write there may have
    stored it. `sequence` is the number of the newest one that was stored there. `try_restore`
    restores the copy where it can be decrypted; it returns why it did not try. What it does not
    fetch is read here, and everything if it finds damage. Raises ExportFailed, what `try_restore`
    raises, and ExportDamaged if there is nothing to read.
    """
    chain, flaw = await _newest(at, sequence)
    if not chain:
        if flaw is not None:
            raise flaw
        return None
    name_key = None
    fetched: set[str] = set()
    not_restored = ""
    try:
        for head in chain:
            await at.check_manifest(head)
        name_key = (await at.contents(chain)).name_key
        if try_restore is not None and flaw is None:
            not_restored = await try_restore(await copy_of_chain(at, chain, fetched=fetched))
    except ExportDamaged as error:
        flaw = flaw or error
        fetched.clear()
    except KeyMissing:
        pass  # the objects are compared as they are stored
    damaged, found = await _checked(at, chain, fetched, name_key, content_bytes_max)
    return Drilled(
        head=chain[-1],
        objects=sum(len(head.objects) for head in chain),
        decrypted=name_key is not None,
        not_restored=not_restored,
        damaged=tuple(damaged),
        flaw=flaw or found,
    )


async def _checked(
    at: MirrorStore,
    chain: Sequence[Head],
    fetched: Collection[str],
    name_key: str | None,
    bytes_max: int,
) -> tuple[list[str], ExportDamaged | None]:
    """Compare the objects that were not fetched; return the damaged ones, and the first flaw."""
    damaged: list[str] = []
    flaw: ExportDamaged | None = None
    objects = [(entry, head.encrypted) for head in chain for entry in head.objects]
    left = [item for item in objects if item[0].key not in fetched]
    for batch in batches(left, lambda item: item[0].size_bytes):
        checks = (
            at.check(entry, sealed=sealed, name_key=name_key, bytes_max=bytes_max)
            for entry, sealed in batch
        )
        results = await asyncio.gather(*checks, return_exceptions=True)
        for (entry, _), result in zip(batch, results, strict=True):
            if isinstance(result, ExportDamaged):
                damaged.append(entry.key)
                flaw = flaw or result
            elif result is not None:
                raise result
    return damaged, flaw


def proof_of(drilled: Drilled, *, at: datetime, by: str) -> Proof:
    """Return the proof of a copy that was read back whole."""
    return Proof(
        head=drilled.head.name,
        at=instant_text(at),
        by=by,
        decrypted=drilled.decrypted,
        objects=drilled.objects,
    )


def drilled_text(name: str, proof: Proof, not_restored: str) -> str:
    """Return what a drill found in a line."""
    how = "restored, and compared"
    if not proof.decrypted:
        how = "compared as stored, without a key"
    elif not_restored:
        how = f"decrypted and compared without a restore: {not_restored}"
    return f"{name}: {counted(proof.objects, 'content')} {how}"


def all_in_doubt_text(name: str) -> str:
    """Return the line of a drill of a destination whose copies are all in doubt."""
    return (
        f"{name}: every copy there is in doubt, so none was read; if the loss is meant, run "
        f"`seline destinations accept {name}`, then `seline jobs run drill`"
    )


async def put_proof(at: MirrorStore, proof: Proof) -> None:
    """Store a proof; one with the key is not replaced by one without. Raises ExportFailed."""
    if not proof.decrypted:
        with suppress(ObjectMissing, ExportDamaged):
            if (await at.proof(proof.head)).decrypted:
                return
    await at.put_proof(proof)


async def _newest(at: MirrorStore, sequence: int) -> tuple[list[Head], ExportDamaged | None]:
    """Return the chain of the newest sound head, and what is wrong with a newer one."""
    flaws: list[ExportDamaged] = []
    names = await at.heads()
    newest = next(filter(None, map(parse_head_name, names)), None)
    if sequence > (newest[1] if newest else 0):
        lost = f"{at.destination.name} has lost the newest head, number {sequence}."
        flaws.append(ExportDamaged(lost))
    chain = await at.newest_chain(names, accepted=True, on_damage=flaws.append)
    return chain, next(iter(flaws), None)
