"""The copies at one destination, of the mirror and as exports: listed, and opened for a restore."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from seline.clock import instant_text, parse_instant
from seline.domain.copy import (
    EXPORT,
    MIRROR,
    Copy,
    CopyInfo,
    age_order,
    check_copy,
    is_made_in_doubt,
    last_first,
    last_in_doubt,
)
from seline.domain.document import Content, Revision
from seline.domain.manifest import (
    LIST_NAME,
    MANIFEST_NAME,
    Manifest,
    decode_manifest,
    parse_export_name,
    volume_of_export,
)
from seline.domain.mirror import Claim, Head, Proof, parse_head_name
from seline.errors import (
    CopyNotEncrypted,
    CopyNotFound,
    ExportDamaged,
    ExportFailed,
    KeyMissing,
    SelineError,
)
from seline.operations.at_once import READS_MAX
from seline.operations.export_folders import ExportFolders
from seline.operations.mirror_store import MirrorStore, in_thread, mirrored_volumes, read_claim
from seline.operations.packs import LIST_BYTES_MAX, members_of, pack_bytes_max, with_names
from seline.ports.destinations import ObjectMissing, ObjectStore
from seline.ports.sealing import UNSEALED, Sealer
from seline.spool import Spool

_IN_DOUBT: Final = "the mirror was in doubt then"
_SEVERAL: Final = "several volumes have copies here, so a restore needs `--volume`"


class DamagedCopy(NamedTuple):
    """A copy of which only the name is known, because its head or manifest is damaged.

    The name of an export has no number.
    """

    name: str
    kind: str
    volume: str
    taken_at: datetime
    sequence: int | None
    error: ExportDamaged

    @property
    def info(self) -> CopyInfo:
        """The copy as it is listed."""
        return CopyInfo(
            name=self.name,
            kind=self.kind,
            volume=self.volume,
            taken_at=self.taken_at,
            sequence=self.sequence or 0,
            doubt=f"it is damaged: {self.error.message}".removesuffix("."),
        )

    def is_after(self, copy: Copy | CopyInfo) -> bool:
        """Whether it was made after another one at the destination."""
        if self.sequence is None:
            return self.taken_at >= copy.taken_at
        return self.sequence > copy.sequence


class Copies:
    """What one destination keeps. Every call raises ExportFailed."""

    def __init__(
        self, destination: ObjectStore, sealer: Sealer, *, takes_plain: bool | None = None
    ) -> None:
        """Decrypt with `sealer`; `takes_plain`: open copies that are not encrypted, too.

        By default that is so without encryption: else, who can write there could make a copy.
        """
        self.destination = destination
        self._takes_plain = not sealer.suffix if takes_plain is None else takes_plain
        self._sealer = sealer
        self._exports = ExportFolders(destination)
        self.in_doubt: list[CopyInfo] = []
        """The last copies of a mirror, if they are in doubt; with `listed`."""
        self.volume = ""
        """Whose copies are here, as far as `usable` knows: also if none of them may be taken."""
        self._damaged: list[DamagedCopy] = []
        """What `listed` left out."""

    async def listed(self, volume: str = "") -> list[CopyInfo]:
        """Return the copies of every volume, or of one, the newest first; nothing is decrypted.

        An export that was made while the mirror was in doubt has what is in doubt. Without
        `volume`, a copy of a volume that `usable` leaves out has a doubt as well, and damaged
        copies are listed.
        """
        self._damaged = []
        heads = await self._heads(volume)
        self.in_doubt = last_in_doubt(heads)
        exports = [
            replace(info, doubt=info.doubt or _IN_DOUBT)
            if is_made_in_doubt(info, self.in_doubt, here=True)
            else info
            for info in await self._whole_exports(volume)
        ]
        damaged = [] if volume else [copy.info for copy in self._damaged]
        found = sorted([*heads, *exports, *damaged], key=age_order, reverse=True)
        return found if volume or not found else await self._with_whose(found)

    async def _with_whose(self, listed: Sequence[CopyInfo]) -> list[CopyInfo]:
        """Return the copies of all volumes; those of volumes that `usable` leaves out have a doubt.

        A claim that cannot be read is as none: the copies are listed all the same.
        """
        claim: Claim | None = None
        with suppress(ExportDamaged):
            claim = await read_claim(self.destination)
        if claim is None and len({info.volume for info in listed}) == 1:
            return list(listed)
        whose = claim.volume if claim else ""
        doubt = f"a restore takes those of the volume {whose}" if whose else _SEVERAL
        return [
            info if whose and info.volume == whose else replace(info, doubt=info.doubt or doubt)
            for info in listed
        ]

    async def find(self, *, at: datetime | None = None, volume: str = "") -> Copy:
        """Open the copy that a restore takes: the last one, or the last one until `at`.

        It is of `volume`, or of the volume that the destination belongs to. A copy in doubt is
        taken only if `at` is given. `Copy.passed_over` names newer ones that are damaged. Raises
        CopyNotFound, ExportDamaged, KeyMissing.
        """
        flawed: list[tuple[datetime, ExportDamaged]] = []
        for info in await self.usable(at=at, volume=volume):
            try:
                copy = await self.open(info)
            except ExportDamaged as error:
                flawed.append((info.taken_at, error))
                continue
            flawed += [
                (damaged.taken_at, damaged.error)
                for damaged in self.damaged_after(copy)
                if at is None or damaged.taken_at <= at
            ]
            return replace(copy, passed_over=tuple(not_whole_text(*flaw) for flaw in flawed))
        if flawed:
            raise flawed[0][1]
        until = f" until {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
        of = f" of the volume {volume}" if volume else ""
        raise CopyNotFound(
            f"{self.destination.name} has no whole copy{of}{until}.",
            destination=self.destination.name,
        )

    async def usable(self, *, at: datetime | None = None, volume: str = "") -> list[CopyInfo]:
        """Return the copies that `find` chooses from, the last one first.

        Raises ExportFailed if it is not known whose, or if the volume that claims the destination
        has none, and CopyNotFound if every copy is in doubt.
        """
        claim = None if volume else await read_claim(self.destination)
        volume = volume or (claim.volume if claim else await self._only_volume())
        self.volume = volume
        listed = [info for info in await self.listed(volume) if info.volume == volume]
        usable = [info for info in listed if (info.taken_at <= at if at else not info.doubt)]
        self._damaged = [copy for copy in self._damaged if copy.volume == volume]
        if listed and not (usable or at):
            raise self._all_in_doubt(listed)
        if claim and not (usable or at):
            raise self._undecided(f"keeps the copy of the volume {volume}, and has no whole one")
        return last_first(usable)

    def damaged_after(self, copy: Copy | CopyInfo | None) -> list[DamagedCopy]:
        """Return what `usable` left out, and was made after a copy; None is before all."""
        return [damaged for damaged in self._damaged if copy is None or damaged.is_after(copy)]

    async def open(self, info: CopyInfo) -> Copy:
        """Open one copy. Raises ExportDamaged, KeyMissing."""
        mirrored = info.kind == MIRROR
        return await (self._mirrored(info) if mirrored else self.open_export(info.name))

    def _check_plain(self, name: str) -> None:
        """Raise ExportDamaged unless a copy that is not encrypted may be opened."""
        if not self._takes_plain:
            raise CopyNotEncrypted(
                f"{name} is not encrypted, and encryption is set: who can write to "
                f"{self.destination.name} may have made it.",
                hint="If it is yours, of the time before encryption: `seline exports restore "
                f"{self.destination.name} --unencrypted` takes it.",
            )

    def _opening(self) -> Sealer:
        """Return what decrypts a copy's files. Raises KeyMissing."""
        if not (self._sealer.suffix and self._sealer.can_open):
            raise KeyMissing
        return self._sealer

    # the mirror

    async def _only_volume(self) -> str:
        """Return the id of the only volume that has copies here, empty if none has.

        Raises ExportFailed if several have: a start would take any other answer for an empty
        destination.
        """
        exports = {volume_of_export(name) for name in await self._exports.complete()}
        volumes = exports | await mirrored_volumes(self.destination)
        if len(volumes) > 1:
            raise self._undecided(f"has the copies of {len(volumes)} volumes")
        return next(iter(volumes), "")

    def _undecided(self, state: str) -> ExportFailed:
        name = self.destination.name
        return ExportFailed(
            f"{name} {state}.",
            hint=f"Name the volume that you mean: `--volume ID`; `seline exports list {name}` "
            f"shows them, and `seline exports restore {name} --volume ID` restores one.",
            destination=name,
        )

    def _all_in_doubt(self, listed: Sequence[CopyInfo]) -> CopyNotFound:
        name, last = self.destination.name, last_first(listed)[0]
        at = instant_text(last.taken_at)
        return CopyNotFound(
            f"Every copy at {name} is in doubt; of the last one: {last.doubt}.",
            hint=f"To take it, run `seline exports restore {name} --at {at} --yes`.",
            destination=name,
        )

    async def _heads(self, only: str) -> list[CopyInfo]:
        found: list[CopyInfo] = []
        volumes = {only} if only else await mirrored_volumes(self.destination)
        for volume in sorted(volumes):
            at = MirrorStore(self.destination, self._sealer, volume)
            proofs = set(await at.proofs())
            names = await at.heads()
            for first in range(0, len(names), READS_MAX):
                batch = names[first : first + READS_MAX]
                infos = await asyncio.gather(*(_head_info(at, name, proofs) for name in batch))
                found += [info for info in infos if isinstance(info, CopyInfo)]
                self._damaged += [info for info in infos if isinstance(info, DamagedCopy)]
        return found

    async def _mirrored(self, info: CopyInfo) -> Copy:
        at = MirrorStore(self.destination, self._sealer, info.volume)
        chain = await at.chain(info.name)
        if not all(head.encrypted for head in chain):
            self._check_plain(info.name)
        if any(head.encrypted for head in chain):
            self._opening()
        return await copy_of_chain(at, chain)

    # exports

    async def _whole_exports(self, volume: str) -> list[CopyInfo]:
        found: list[CopyInfo] = []
        for name in await self._exports.complete():
            if volume and volume_of_export(name) != volume:
                continue
            taken_at = parse_export_name(name)
            try:
                manifest = await self._exports.manifest(name)
            except ObjectMissing:
                continue  # it was removed since it was listed
            except ExportDamaged as error:
                if taken_at is not None:
                    of_volume = volume_of_export(name)
                    self._damaged.append(
                        DamagedCopy(name, EXPORT, of_volume, taken_at, None, error)
                    )
                continue
            summary = await self._exports.summary(manifest)
            proof = await self._export_proof(name)
            found.append(
                CopyInfo(
                    name=name,
                    kind=EXPORT,
                    volume=manifest.volume,
                    taken_at=taken_at or parse_instant(manifest.taken_at),
                    sequence=manifest.sequence,
                    documents=summary.documents,
                    size_bytes=summary.size_bytes,
                    doubt=summary.doubt,
                    proven_at=parse_instant(proof.at) if proof and proof.decrypted else None,
                    proven_by=proof.by if proof and proof.decrypted else "",
                    lacking=manifest.unrecoverable,
                )
            )
        return found

    async def _export_proof(self, name: str) -> Proof | None:
        """Return the proof that a drill has left beside an export, None without one."""
        with suppress(SelineError):  # the copy may be restored without it
            return await self._exports.proof(name)
        return None

    async def open_export(self, name: str) -> Copy:
        """Open an export. Raises ExportDamaged, KeyMissing."""

        def opening(manifest: Manifest) -> Sealer:
            if manifest.encrypted:
                return self._opening()
            self._check_plain(name)
            return UNSEALED

        copy = await copy_of_export(name, partial(self._exports.get, name), opening)
        return replace(copy, destination=self.destination.name)


async def copy_of_chain(
    at: MirrorStore, chain: Sequence[Head], *, fetched: set[str] | None = None
) -> Copy:
    """Open the copy of a head, given with those that it changes, the base first.

    With `fetched` the stored bytes are compared as well, and the key of each object whose content
    was fetched is added to it. Raises ExportDamaged, KeyMissing.
    """
    head, (documents, keys, manifest) = chain[-1], await at.contents(chain)
    stored = {entry.key: (entry, head.encrypted) for head in chain for entry in head.objects}
    sizes = {
        file.sha256: file.size_bytes
        for document in documents.values()
        for file in (document, *document.backups)
    }

    async def fetch(digest: Revision) -> bytes:
        entry, sealed = stored[keys[digest]]
        data = await at.content(
            entry, sealed=sealed, bytes_max=sizes[digest], as_stored=fetched is not None
        )
        if await in_thread(lambda: hashlib.sha256(data).hexdigest()) != digest:
            raise ExportDamaged(f"{at.destination.name} has another content for {digest}.")
        if fetched is not None:
            fetched.add(entry.key)
        return data

    copy = Copy(
        name=head.name,
        taken_at=parse_instant(head.taken_at),
        volume=head.volume,
        sequence=head.sequence,
        destination=at.destination.name,
        documents=tuple(documents[name] for name in sorted(documents)),
        pins=manifest.pins,
        lacking=manifest.lacking,
        older=manifest.older,
        fetch=fetch,
    )
    await in_thread(partial(check_copy, copy))
    return copy


async def copy_of_export(
    name: str, get: Callable[[str, int], Awaitable[bytes]], opening: Callable[[Manifest], Sealer]
) -> Copy:
    """Open an export: its packs are read into a spool, one after the other.

    `get` returns a file of the export, of at most so many bytes, `opening` what decrypts the export
    by its manifest. Raises ExportDamaged and what they raise.
    """
    data = await get(MANIFEST_NAME, LIST_BYTES_MAX)
    manifest = await in_thread(partial(decode_manifest, data))
    sealer = opening(manifest)
    if manifest.encrypted:
        sealed = await get(LIST_NAME, LIST_BYTES_MAX)
        manifest = await in_thread(lambda: with_names(manifest, sealed, sealer))
    contents = await _contents(manifest, get, sealer)

    async def fetch(digest: Revision) -> bytes:
        if digest not in contents:
            raise ExportDamaged(f"{name} lacks the content {digest}.")
        content = contents[digest]
        return await in_thread(lambda: content.data)

    copy = Copy(
        name=name,
        taken_at=parse_instant(manifest.taken_at),
        volume=manifest.volume,
        sequence=manifest.sequence,
        documents=manifest.documents,
        lacking=manifest.unrecoverable,
        older=tuple(sorted(manifest.from_backups)),
        fetch=fetch,
    )
    await in_thread(partial(check_copy, copy))
    return copy


async def _contents(
    manifest: Manifest, get: Callable[[str, int], Awaitable[bytes]], sealer: Sealer
) -> dict[Revision, Content]:
    spool, contents = Spool(), dict[Revision, Content]()
    bytes_max = pack_bytes_max(manifest)

    def keep(data: bytes) -> None:
        for _, member in members_of(pack, data, sealer, bytes_max=bytes_max):
            content = Content.of(member)
            if content.revision not in contents:
                contents[content.revision] = content.moved_to(spool.keep(content.data))

    for pack in manifest.packs:
        data = await get(pack.name, pack.size_bytes)
        await in_thread(lambda data=data: keep(data))  # type: ignore[misc]
    return contents


def not_whole_text(taken_at: datetime, error: SelineError, at: str = "") -> str:
    """Return why a copy is not taken; `at`: the destination that has it."""
    where = f" at {at}" if at else ""
    found = "is refused" if isinstance(error, CopyNotEncrypted) else "is not whole"
    named = f"the copy of {taken_at:%Y-%m-%d %H:%M:%S} UTC{where} {found}: {error.message}"
    return named.removesuffix(".")


async def _head_info(
    at: MirrorStore, name: str, proofs: Collection[str]
) -> CopyInfo | DamagedCopy | None:
    """Return a head as it is listed, None if it was removed."""
    proof: Proof | None = None
    try:
        head = await at.head(name)
    except ObjectMissing:
        return None
    except ExportDamaged as error:
        found = parse_head_name(name)
        return found and DamagedCopy(name, MIRROR, at.volume, *found, error)
    if name in proofs:
        with suppress(SelineError):  # the copy may be restored without it
            proof = await at.proof(name)
    return CopyInfo(
        name=head.name,
        kind=MIRROR,
        volume=head.volume,
        taken_at=parse_instant(head.taken_at),
        sequence=head.sequence,
        documents=head.documents,
        size_bytes=head.size_bytes,
        doubt=head.doubt,
        lacking=head.lacking,
        proven_at=parse_instant(proof.at) if proof and proof.decrypted else None,
        proven_by=proof.by if proof and proof.decrypted else "",
    )
