"""The mirrors of one store: a lane for each destination, so that one that hangs delays no other."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final, NoReturn

from msgspec.structs import replace

from seline.domain.copy import STILL_COPYING, lacking_text
from seline.domain.mirror import Claim, shown_safely
from seline.domain.plural import counted, shortened
from seline.errors import ExportDamaged, ExportFailed
from seline.manager.managed_store import ManagedStore
from seline.operations.changed_names import Waiting
from seline.operations.destinations import AnotherDestination, Destinations
from seline.operations.drill import (
    SERVICE,
    Drilled,
    all_in_doubt_text,
    drilled_text,
    proof_of,
    put_proof,
    read_back,
)
from seline.operations.exports import Exporter
from seline.operations.mirror import Mirror, damaged
from seline.operations.mirror_store import MirrorStore, mirrored_volumes, put_claim, read_claim
from seline.operations.mirror_sweep import Sweep, Swept
from seline.operations.outcomes import Outcome, joined
from seline.operations.purges import mirror_policy
from seline.operations.scratch import Scratch
from seline.ports.destinations import OBJECT_BYTES_MAX, ObjectForbidden, ObjectMissing, Target
from seline.ports.sealing import Sealer

WAIT_S: Final = 20.0
"""How long one run of the job waits for a copy that takes long; the copy goes on."""
CLOSE_S: Final = 2.0
"""How long a copy that is cancelled may take to end."""
SWEEP_EVERY: Final = timedelta(hours=1)
PROOFS_MAX: Final = 8
"""Proofs that are read for the newest one with the key."""
LOOK_EVERY: Final = timedelta(minutes=5)
"""How soon a process notices another one that mirrors the same volume."""
_log = logging.getLogger("seline.mirror")


class Mirrors:
    """The destinations that are mirrored."""

    def __init__(
        self, store: ManagedStore, exports: Exporter, sealer: Sealer, *, version: str
    ) -> None:
        """Mirror to those of the exporter's destinations that take a mirror."""
        self._lanes = {
            target.destination.name: _Lane(store, exports, target, sealer, version)
            for target in exports.destinations.targets
            if target.takes_mirror
        }

    async def run(self) -> str:
        """Copy to each destination what changed; return what was done, empty if nothing.

        A copy that takes long goes on after this returns. Raises ExportFailed naming each
        destination that failed.
        """
        for lane in self._lanes.values():
            lane.begin()
        running = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if running:
            await asyncio.wait(running, timeout=WAIT_S)
        return joined((name, lane.outcome()) for name, lane in self._lanes.items())

    async def drill(self, name: str, scratch: Scratch | None) -> str:
        """Read the newest copy at a destination back; return what was found in a line.

        It is restored in `scratch` space, if there is one. What is damaged is copied again. Raises
        ExportFailed.
        """
        return await self._lanes[name].drill(scratch)

    async def accept(self, name: str) -> None:
        """Copy now to a destination that is mirrored, and make that the copy which a restore takes.

        Raises ExportFailed.
        """
        await self._lanes[name].accept()

    def waiting(self, name: str) -> Waiting:
        """Return what the destination of this name has not copied yet."""
        lane = self._lanes.get(name)
        return Waiting() if lane is None else lane.mirror.waiting

    def backups_added(self, names: Sequence[str]) -> None:
        """Note the documents to which a restore added backups."""
        for lane in self._lanes.values():
            lane.mirror.backups_added(names)

    async def close(self) -> None:
        """Cancel the copies in progress; what is stored without a head counts for nothing.

        Takes twice `CLOSE_S` at most. The connections are released first, because a call may wait
        for the server while it is cancelled; and again, because it may have opened another one.
        """
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await self._release()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        await self._release()

    async def _release(self) -> None:
        closing = [asyncio.ensure_future(lane.close()) for lane in self._lanes.values()]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S / 2)
            for release in late:
                release.cancel()


class _Lane:
    """One destination: its mirror, and the copy in progress."""

    def __init__(
        self, store: ManagedStore, exports: Exporter, target: Target, sealer: Sealer, version: str
    ) -> None:
        self.task: asyncio.Task[str] | None = None
        self._store = store
        self._exports = exports
        self._destinations: Destinations = exports.destinations
        self._target = target
        self._sealer = sealer
        self._sweep = Sweep()
        self._swept_at = store.clock.now() - SWEEP_EVERY
        self._looked_at = self._swept_at
        self._claimed_by = ""
        self._damaged: tuple[str, ...] = ()
        """The heads that the last sweep could not read."""
        self._has_claimed = False
        """Whether this process has seen the claim of its volume."""
        self._host = socket.gethostname()
        self._is_claimant = False
        """Whether the claim there was once this process's own."""
        self._is_unclaimed = True
        """Whether the destination has no claim, and may have this volume's."""
        self._rival = ""
        """Where another process is that mirrors the same volume."""
        self._is_known = False
        self._is_drilling = False
        self._failure: Exception | None = None
        """What made the last copy fail, None if it succeeded."""
        self.mirror = Mirror(
            store,
            target.destination,
            sealer,
            version=version,
            name_key=partial(self._destinations.name_key, sealer),
            volume_id=exports.volume_id,
        )

    def begin(self) -> None:
        """Begin a copy unless one is in progress, or nothing changed and nothing is due."""
        is_due = self._is_due(self._looked_at, LOOK_EVERY) or self._is_sweep_due()
        if self.task is None and (self.mirror.has_changes or is_due):
            name = f"seline-mirror-{self._target.destination.name}"
            self.task = asyncio.get_running_loop().create_task(self._run(), name=name)

    def outcome(self) -> Outcome:
        """Return what the copy did in a line, or what made it fail.

        Without one it is empty, or what made the last one fail: a doubt lasts until a change.
        """
        if self.task is None:
            return self._failure or ""
        if not self.task.done():
            return f"{self._target.destination.name}: {STILL_COPYING}"
        task, self.task = self.task, None
        if task.cancelled():
            return asyncio.CancelledError()
        return task.exception() or task.result()

    async def accept(self) -> None:
        """Claim the destination, and write a head that is not in doubt."""
        await self._run_now(accept=True)

    async def drill(self, scratch: Scratch | None) -> str:
        """Read the newest copy back, record that in a proof, and return a line.

        What is damaged is copied again, and then ExportFailed names it. No head is removed during a
        drill, so that the head of its proof exists.
        """
        self._is_drilling = True
        try:
            return await self._drill(scratch)
        finally:
            self._is_drilling = False

    async def _drill(self, scratch: Scratch | None) -> str:
        destination, name = self._target.destination, self._target.destination.name
        try:
            found = await self._read_back(scratch)
            if found is None:
                is_empty = not await (await self._at()).heads()
                return f"{name}: it has no copy yet" if is_empty else all_in_doubt_text(name)
            proof = proof_of(found, at=self._store.clock.now(), by=SERVICE)
            await put_proof(await self._at(), proof)
        except ObjectForbidden:
            return f"{name}: the key here only writes; `seline drill {name}` reads with another one"
        except Exception as error:
            await self._destinations.drill_failed(destination, error)
            raise
        await self._destinations.drilled(destination, proof, found.not_restored)
        line = drilled_text(name, proof, found.not_restored)
        return "; ".join(filter(None, (line, lacking_text(found.head.lacking))))

    async def _read_back(self, scratch: Scratch | None) -> Drilled | None:
        """Read the newest copy back; copy again what is damaged, and then raise ExportFailed."""
        known = self._destinations.record(self._target.destination.name)
        limits = self._store.limits
        try:
            found = await read_back(
                await self._at(),
                sequence=known.sequence,
                content_bytes_max=max(limits.document_bytes_max, OBJECT_BYTES_MAX),
                try_restore=None if scratch is None else scratch.try_restore,
            )
        except ExportDamaged as error:
            await self._mend((), error)
        if found is not None and found.flaw is not None:
            await self._mend(found.damaged, found.flaw)
        return found

    async def _mend(self, keys: Sequence[str], flaw: ExportDamaged) -> NoReturn:
        """Copy again what is damaged; then raise ExportFailed."""
        await self._idle()
        self.mirror.lost(keys)
        await self._run_now()
        raise damaged(
            f"The newest copy was damaged ({counted(len(keys), 'content')}), and was made again. "
            f"The first flaw: {flaw.message}"
        ) from flaw

    async def _at(self) -> MirrorStore:
        volume = await self._exports.volume_id()
        return MirrorStore(self._target.destination, self._sealer, volume)

    async def close(self) -> None:
        """Release the connections to the destination."""
        await self._target.destination.close()

    async def _run_now(self, *, accept: bool = False) -> None:
        """Run once the copy in progress has ended. Raises what made it fail."""
        await self._idle()
        task = self.task = asyncio.get_running_loop().create_task(self._run(accept=accept))
        await asyncio.wait([task])
        if self.task is task:
            self.task = None
        task.result()

    async def _idle(self) -> None:
        """Wait for the copy in progress."""
        while self.task is not None and not self.task.done():
            await asyncio.wait([self.task])

    async def _run(self, *, accept: bool = False) -> str:
        destination = self._target.destination
        try:
            mirrored_at = await self._destinations.mirror_began(destination)
            await self.mirror.watch(mirrored_at)
            line = await self._copied(accept=accept)
        except BaseException as error:  # a cancelled run failed, too
            self._is_known = False
            self._failure = error if isinstance(error, Exception) else self._failure
            await self._destinations.mirror_failed(destination, error)
            raise
        self._failure = None
        await self._destinations.mirror_works(destination)
        return line

    async def _copied(self, *, accept: bool) -> str:
        destination, name = self._target.destination, self._target.destination.name
        may_differ = self._target.may_be_unmounted or self._is_sweep_due()
        if accept or may_differ or not self._is_known:
            await self._meet(accept=accept)
        elif self._is_due(self._looked_at, LOOK_EVERY):
            await self._look()
        if accept:  # first, so that a crash after the head does not put the next one in doubt
            await self._destinations.compared(destination, largest=())
        known = self._destinations.record(name)
        sequence = max(known.sequence, self._store.volume_file.value.exports)
        head = await self.mirror.run(
            sequence=sequence,
            largest=known.largest,
            elsewhere=self._destinations.sizes,
            accept=accept,
        )
        line = ""
        if head is not None:  # recorded before the claim, which may fail: the copy exists
            await self._destinations.mirrored(
                destination,
                head,
                largest=self.mirror.largest,
                mirror_lacking=self.mirror.lacking,
                mirror_older=self.mirror.older,
            )
            if (choice := self._choice()) is not None:  # now, because the run may be stopped
                await self._destinations.mirror_failed(destination, choice)
            contents = counted(len(head.objects), "content")
            line = f"{name}: {contents} for {counted(head.documents, 'document')}"
        await self._put_claim(accept=accept)
        if not (self._claimed_by or self._rival):
            line = "; ".join(filter(None, (line, await self._swept(is_written=head is not None))))
        if (choice := self._choice()) is not None:
            raise choice
        return line

    async def _meet(self, *, accept: bool) -> None:
        """Check that it is the right destination, and whose copy it keeps."""
        destination = self._target.destination
        volume = await self._exports.volume_id()
        try:
            with suppress(ObjectForbidden):  # the credentials only write
                await self._destinations.enter(destination, job="mirror")
            if not self._is_known or self._is_sweep_due():  # it costs scrypt twice, 0.2 s
                with suppress(ObjectForbidden):
                    await MirrorStore(destination, self._sealer, volume).put_key_file()
            self._is_unclaimed = True
            await self._look()
        except AnotherDestination:
            self.mirror.forget()
            raise
        if accept:
            self.mirror.begin_again()
        self._is_known = True

    async def _put_claim(self, *, accept: bool) -> None:
        """Claim the destination unless a volume has; `accept`: also then.

        A claim follows a head, because without one it would hide the copy of another volume.
        """
        if accept or self._is_unclaimed:
            self._is_unclaimed = False
            with suppress(ObjectForbidden):
                claim = await self._claim()
                await put_claim(self._target.destination, claim, replace=accept)
                await self._look()

    async def _claim(self) -> Claim:
        """Return the claim of this process."""
        volume, place = await self._exports.volume_id(), (await self._store.open()).medium.place
        life = self._store.volume_file.value.life
        claim = Claim(volume=volume, place=f"{place} on {self._host}", life=life)
        return shown_safely(claim)  # as it will be read

    async def _look(self) -> None:
        """Read whose copy the destination keeps, and whether another process writes it, too."""
        self._looked_at = self._store.clock.now()
        destination, mine, rival = self._target.destination, await self._claim(), ""
        try:
            claim = await read_claim(destination)
            if claim is not None and claim.volume == mine.volume:
                rival = await self._rival_of(mine, claim)
            others = {claim.volume} if claim else await mirrored_volumes(destination)
            await self._learn_proof(await self._at())
        except ObjectForbidden:
            return  # the credentials only write
        if rival and not self._rival:
            self.mirror.begin_again()  # the next number is higher than those of the other process
        if claim is None and self._has_claimed:
            others = set()  # the claim was lost
        self._claimed_by = ", ".join(sorted(others - {mine.volume}))
        self._has_claimed = not self._claimed_by and (claim is not None or self._has_claimed)
        self._is_unclaimed = claim is None and not self._claimed_by
        self._rival = rival

    async def _rival_of(self, mine: Claim, claim: Claim) -> str:
        """Return where another process is that mirrors this volume, empty if none was noticed.

        The first run after a restore, or at another place, takes the claim over, because the
        process before is gone as a rule. If it is not, it finds the claim of another life or place,
        and notes itself there.
        """
        destination = self._target.destination
        known = self._destinations.record(destination.name).life
        is_mine = (claim.life, claim.place) == (mine.life, mine.place)
        had_claimed = known == mine.life if claim.life != mine.life else self._is_claimant
        if had_claimed and not is_mine:
            if not claim.rival:
                await put_claim(destination, replace(claim, rival=mine.place), replace=True)
            return claim.place
        if not is_mine:
            await put_claim(destination, mine, replace=True)
            self._swept_at = self._looked_at  # the other process may answer before anything goes
        self._is_claimant = True
        await self._destinations.claimed(destination, mine.life)
        return claim.rival if is_mine else ""

    async def _swept(self, *, is_written: bool) -> str:
        """Remove what the policy drops, once in an hour; not if the newest copy is damaged."""
        if not self._is_sweep_due():
            return ""
        at = await self._at()
        policy = mirror_policy(self._target, self._store.settings.exports)
        try:
            check = partial(self.mirror.check, newest=not is_written)
            swept = await self._sweep.run(at, policy, check, self.mirror.removed)
            if swept.oldest is not None:
                name = self._target.destination.name
                await self._exports.purges.ended(name, mirror=True, oldest=swept.oldest)
        except ObjectForbidden:
            swept = Swept()  # the credentials only write
        self._swept_at = self._store.clock.now()
        self._damaged = swept.damaged
        if not (swept.heads or swept.objects):
            return ""
        return f"removed {swept.heads} older heads and {swept.objects} contents"

    async def _learn_proof(self, at: MirrorStore) -> None:
        """Record the newest proof with the key, which a person's machine may have made."""
        for name in islice(await at.proofs(), PROOFS_MAX):
            with suppress(ExportDamaged, ObjectMissing):
                proof = await at.proof(name)
                await self._destinations.proven(self._target.destination, proof)
                if proof.decrypted:
                    return

    def _is_sweep_due(self) -> bool:
        return not self._is_drilling and self._is_due(self._swept_at, SWEEP_EVERY)

    def _is_due(self, at: datetime, every: timedelta) -> bool:
        elapsed = self._store.clock.now() - at
        return elapsed >= every or elapsed < timedelta(0)

    @property
    def _newest_doubt(self) -> str:
        newest = self.mirror.newest
        return newest.doubt if newest is not None else ""

    def _choice(self) -> ExportFailed | None:
        """Return the error of a run after which a person must choose or mend, None without one."""
        name = self._target.destination.name
        if self._claimed_by:
            return ExportFailed(
                f"It keeps the copy of another volume, {self._claimed_by}. This volume's copy is "
                "beside it; a restore takes the other one, and nothing is removed.",
                hint=f"If this volume replaces that one, run `seline destinations accept {name}`. "
                "If both are in use, give each a folder of its own in `exports.destinations`.",
            )
        if self._rival:
            return ExportFailed(
                f"Another process mirrors this volume: {self._rival}. One of them restored a copy "
                "of it, or has a copy of its disk. A restore takes the newest copy of both, and "
                "nothing is removed.",
                hint="Stop one of them, or give it a folder of its own in `exports.destinations`. "
                f"Then run `seline destinations accept {name}` with the other one.",
            )
        if self._damaged:
            return damaged(
                f"It has {counted(len(self._damaged), 'head')} that cannot be read, "
                f"{shortened(self._damaged)}, so no content is removed. It is removed once a newer "
                "copy was proven, or is over a week old."
            )
        if self._newest_doubt:
            return ExportFailed(
                f"The newest copy is in doubt: {self._newest_doubt}. A restore takes the last "
                "one from before the loss, if one is here, and no such copy is removed.",
                hint=f"If that is meant, run `seline destinations accept {name}`. If not, `seline "
                "restore NAME` brings a deleted document back.",
            )
        return None
