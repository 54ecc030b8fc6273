"""What is known of each destination: its marker, its last whole export, why the last run failed.

The first export puts a marker there. A later one that does not find it writes nothing: the
destination is not mounted, or it is another folder. `use` takes a destination into use again.
"""

import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from msgspec import field
from msgspec.structs import replace

from seline.clock import parse_instant
from seline.domain.doubt import DaySize, size_of_last_days
from seline.domain.mirror import Head, Proof
from seline.domain.stored import Stored
from seline.errors import DestinationNotFound, ExportFailed, SelineError
from seline.manager.managed_store import ManagedStore
from seline.manager.state import State
from seline.operations.export_folders import ExportFolders
from seline.operations.mirror_store import in_thread
from seline.operations.outcomes import explained
from seline.ports.destinations import ObjectStore, Target
from seline.ports.sealing import Sealer
from seline.ports.store import DocumentStore

STOPPED: Final = "It was stopped before it was done."
_FORGOTTEN: Final[dict[str, Any]] = {
    "whole_at": None,
    "whole_since": None,
    "encrypted": "",
    "revisions": "",
    "mirror_began_at": None,
    "mirrored_at": None,
    "mirrored_since": None,
    "checked_at": None,
    "proven_at": None,
    "proven_by": "",
    "not_restored": "",
    "drill_failure": "",
    "drill_cure": "",
}
"""What is known of copies that are no longer there."""
_log = logging.getLogger("seline.exports")


class AnotherDestination(ExportFailed):
    """The destination has another marker than the one that was used, or none."""


class DestinationRecord(Stored, frozen=True, kw_only=True):
    """What is known of a destination.

    `whole_at` is when it was last seen to have a whole export of everything, `whole_since` when it
    was first. `failure` and `cure`
    are of the last export, empty if it succeeded; `lacking` are the documents that it lacks.
    `encrypted` is the newest encrypted export there, `revisions` a digest of what it has.
    `export_sizes` are the sizes that the next export is compared with to find a loss.
    `mirror_began_at` is when the first copy of the mirror was begun, `mirrored_since` the instant
    of it, `mirrored_at` that of the newest one, and `sequence` the number of that.
    `largest` are the sizes that the next head is compared with.
    `mirror_failed_at` to `mirror_older` are of the mirror's last run: why it failed, what the copy
    lacks, and what it has an older content of. `life` is that of the volume when it claimed the
    destination (`VolumeFile.life`).

    `checked_at` is when the drill last read a copy back; `proven_at` when one was decrypted and
    compared, and `proven_by` whom. `not_restored` is why the service's last drill restored nothing.
    `drill_failure` and `drill_cure` are of the last drill, empty if it succeeded.
    """

    marker: str = ""
    on_data_disk: bool = False
    whole_at: datetime | None = None
    whole_since: datetime | None = None
    failed_at: datetime | None = None
    failure: str = ""
    cure: str = ""
    lacking: tuple[str, ...] = ()
    encrypted: str = ""
    revisions: str = ""
    export_sizes: tuple[DaySize, ...] = ()
    mirror_began_at: datetime | None = None
    mirrored_at: datetime | None = None
    mirrored_since: datetime | None = None
    sequence: int = 0
    largest: tuple[DaySize, ...] = ()
    mirror_failed_at: datetime | None = None
    mirror_failure: str = ""
    mirror_cure: str = ""
    mirror_lacking: tuple[str, ...] = ()
    mirror_older: tuple[str, ...] = ()
    life: str = ""
    checked_at: datetime | None = None
    proven_at: datetime | None = None
    proven_by: str = ""
    not_restored: str = ""
    drill_failure: str = ""
    drill_cure: str = ""


class ExportsFile(Stored, frozen=True, kw_only=True):
    """The value of `exports.json`: when any destination was last seen to have a whole export.

    `name_key` is the secret, in hex, that gives the encrypted objects of a mirror their names, and
    `sealed_for` a digest of the recipients that it was made for.
    """

    verified_at: datetime | None = None
    name_key: str = ""
    sealed_for: str = ""
    destinations: dict[str, DestinationRecord] = field(default_factory=dict)


class Destinations:
    """The configured destinations, with what earlier runs recorded."""

    def __init__(self, store: ManagedStore, targets: Sequence[Target]) -> None:
        self.targets: Final = targets
        self._store = store
        self._users = Counter[str]()
        self._file: State[ExportsFile] = store.state("exports.json", ExportsFile, ExportsFile)

    def read(self, store: DocumentStore) -> None:
        """Read what an earlier process recorded, unless it is known. Blocks."""
        self._file.read_once(store)

    async def load(self) -> None:
        """Read what an earlier process recorded, unless it is known. Raises VolumeBusy."""
        if not self._file.loaded:
            await self._file.load()

    @property
    def is_known(self) -> bool:
        """Whether what an earlier process recorded was read."""
        return self._file.loaded

    @property
    def last_seen_at(self) -> datetime | None:
        """When a destination was last seen to have a whole export of everything."""
        return self._file.value.verified_at

    @property
    def sequence(self) -> int:
        """The highest number of a copy of the mirror, at any destination."""
        return max((known.sequence for known in self._file.value.destinations.values()), default=0)

    @property
    def sizes(self) -> tuple[DaySize, ...]:
        """What the copies had at any destination, also at one that is no longer used."""
        known = self._file.value.destinations.values()
        return size_of_last_days(
            day for record in known for day in (*record.export_sizes, *record.largest)
        )

    def record(self, name: str) -> DestinationRecord:
        """Return what is known of the destination of this name."""
        return self._file.value.destinations.get(name, DestinationRecord())

    def records(self) -> list[tuple[Target, DestinationRecord]]:
        """Return each configured destination with its record, without what its mode left behind.

        The failure of a kind of copy that it no longer takes would never end.
        """
        return [(target, self._recorded(target)) for target in self.targets]

    async def use(self, name: str) -> tuple[Target, DestinationRecord]:
        """Take a destination into use with the marker it has, or a new one.

        What is known of the copies is forgotten if it has another marker than before.
        Raises DestinationNotFound.
        """
        target = self.target(name)
        async with self.using(name):
            seen = await self._marked(target.destination)
            is_another = seen["marker"] != self.record(name).marker
            await self._note(name, **(_FORGOTTEN if is_another else {}), **seen)
        return target, self.record(name)

    @asynccontextmanager
    async def using(self, *names: str) -> AsyncGenerator[None]:
        """Use destinations; the last user of one closes its connections, unless it is mirrored.

        Raises DestinationNotFound.
        """
        targets = [self.target(name) for name in names]
        self._users.update(names)
        try:
            yield
        finally:
            self._users.subtract(names)
            for target in targets:
                if not (target.takes_mirror or self._users[target.destination.name]):
                    await target.destination.close()

    def target(self, name: str) -> Target:
        """Return the configured destination of this name. Raises DestinationNotFound."""
        found = [target for target in self.targets if target.destination.name == name]
        if not found:
            raise DestinationNotFound(
                f"There is no destination {name} in `exports.destinations`.", destination=name
            )
        return found[0]

    def named(self, name: str) -> ObjectStore:
        """Return the destination of this name. Raises DestinationNotFound."""
        return self.target(name).destination

    async def enter(self, destination: ObjectStore, *, job: str) -> None:
        """Check that a destination has its marker; mark it if it was never used.

        Without the marker, the copies that are known are forgotten, unless it is a folder, which
        may not be mounted. Raises ExportFailed with what to do, and the job that then copies to it.
        """
        await self.load()
        known = self.record(destination.name).marker
        seen = await (self._seen(destination) if known else self._marked(destination))
        if known and seen["marker"] != known:
            target = self.target(destination.name)
            if not target.may_be_unmounted:
                await self._note(destination.name, **_FORGOTTEN)
            raise _another(target, seen["marker"], job)
        await self._note(destination.name, **seen)

    async def exported(self, destination: ObjectStore, lacking: Sequence[str]) -> None:
        """Record an export that was read back; it is whole if it lacks no document."""
        now, known = self._store.clock.now(), self.record(destination.name)
        since = known.whole_since or known.whole_at or now
        whole: dict[str, Any] = {} if lacking else {"whole_at": now, "whole_since": since}
        await self._note(destination.name, lacking=tuple(lacking), **whole)

    async def compared(self, destination: ObjectStore, **known: Any) -> None:
        """Record the fields `known`, with which the next copy is compared."""
        await self._note(destination.name, **known)

    async def mirror_began(self, destination: ObjectStore) -> datetime | None:
        """Record when the first copy was begun; return the instant of the newest one."""
        await self.load()
        record = self.record(destination.name)
        if record.mirrored_at is None and record.mirror_began_at is None:
            await self._note(destination.name, mirror_began_at=self._store.clock.now())
        return record.mirrored_at

    async def mirrored(self, destination: ObjectStore, head: Head, **known: Any) -> None:
        """Record a new head of the mirror, and the fields `known` of its run."""
        taken_at = parse_instant(head.taken_at)
        await self._note(
            destination.name,
            mirrored_at=taken_at,
            mirrored_since=self.record(destination.name).mirrored_since or taken_at,
            sequence=head.sequence,
            **known,
        )

    async def claimed(self, destination: ObjectStore, life: str) -> None:
        """Record that the volume, in this life of it, claimed the destination."""
        await self._note(destination.name, life=life)

    async def drilled(self, destination: ObjectStore, proof: Proof, not_restored: str) -> None:
        """Record a drill of this process that succeeded; `not_restored`: why it compared only."""
        await self._note(
            destination.name,
            checked_at=parse_instant(proof.at),
            not_restored=not_restored,
            drill_failure="",
            drill_cure="",
        )
        await self.proven(destination, proof)

    async def proven(self, destination: ObjectStore, proof: Proof) -> None:
        """Record a proof, which a person's machine may have made, unless a later one is known."""
        at = min(parse_instant(proof.at), self._store.clock.now())
        known = self.record(destination.name)
        if proof.decrypted and (known.proven_at is None or at > known.proven_at):
            await self._note(destination.name, proven_at=at, proven_by=proof.by)

    async def drill_failed(self, destination: ObjectStore, error: BaseException) -> None:
        """Record why a drill failed."""
        message, cure = _explained(error, job="drill")
        _log.error("the drill at %s failed: %s", destination.name, message)
        await self._note(destination.name, drill_failure=message, drill_cure=cure)

    async def name_key(self, sealer: Sealer) -> str:
        """Return the key for the names of encrypted objects; other recipients have another one.

        So nothing that was encrypted for a key that is lost is named in a new copy.
        """
        sealed_for = await in_thread(lambda: sealer.sealed_for)

        def keyed(file: ExportsFile) -> ExportsFile:
            if file.name_key and file.sealed_for == sealed_for:
                return file
            return replace(file, name_key=secrets.token_hex(16), sealed_for=sealed_for)

        file: ExportsFile = await keep(self._file, keyed)
        return file.name_key

    async def mirror_works(self, destination: ObjectStore) -> None:
        """Record that a run of the mirror succeeded."""
        await self._note(destination.name, mirror_failure="", mirror_cure="")

    async def export_works(self, destination: ObjectStore) -> None:
        """Record that a run of the exports succeeded."""
        await self._note(destination.name, failure="", cure="")

    async def failed(self, destination: ObjectStore, error: BaseException) -> None:
        """Record why an export failed. One that was stopped leaves why the last one did."""
        message, cure = _explained(error)
        _log.error("export to %s failed: %s", destination.name, message)
        if self.record(destination.name).failure and not isinstance(error, Exception):
            return
        now = self._store.clock.now()
        await self._note(destination.name, failed_at=now, failure=message, cure=cure)

    async def mirror_failed(self, destination: ObjectStore, error: BaseException) -> None:
        """Record why a run of the mirror failed; a stopped one leaves why the last one did."""
        if self.record(destination.name).mirror_failure and not isinstance(error, Exception):
            return
        message, cure = _explained(error, job="mirror")
        await self._note(
            destination.name,
            mirror_failed_at=self._store.clock.now(),
            mirror_failure=message,
            mirror_cure=cure,
        )

    # parts

    def _recorded(self, target: Target) -> DestinationRecord:
        record = self.record(target.destination.name)
        if not target.takes_exports:
            record = replace(record, failed_at=None, failure="", cure="", lacking=())
        if not target.takes_mirror:
            record = replace(
                record,
                mirror_failed_at=None,
                mirror_failure="",
                mirror_cure="",
                mirror_lacking=(),
                mirror_older=(),
            )
        return record

    async def _seen(self, destination: ObjectStore) -> dict[str, Any]:
        """Return the marker that is there, empty without one, and whose disk it is on."""
        data_dir = (await self._store.open()).medium.place
        on_data_disk = await destination.on_data_disk(data_dir)
        marker = await ExportFolders(destination).marker()
        return {"marker": marker, "on_data_disk": on_data_disk}

    async def _marked(self, destination: ObjectStore) -> dict[str, Any]:
        """Return the same, with a new marker if there was none."""
        seen = await self._seen(destination)
        if seen["marker"]:
            return seen
        await ExportFolders(destination).mark(secrets.token_hex(4))
        seen = await self._seen(destination)
        if not seen["marker"]:
            raise ExportFailed(
                f"{destination.where} has not kept the marker that was stored there.",
                hint="Look at what answers there: it takes what is sent, and keeps nothing. "
                "Nothing was copied.",
            )
        return seen

    async def _note(self, name: str, **changed: Any) -> None:
        def change(file: ExportsFile) -> ExportsFile:
            record = replace(file.destinations.get(name, DestinationRecord()), **changed)
            destinations = {**file.destinations, name: record}
            verified_at = changed.get("whole_at") or changed.get("mirrored_at") or file.verified_at
            if _FORGOTTEN.items() <= changed.items():
                seen = [at for r in destinations.values() for at in (r.whole_at, r.mirrored_at)]
                verified_at = max(filter(None, seen), default=None)
            return replace(file, verified_at=verified_at, destinations=destinations)

        await keep(self._file, change)


async def keep(state: State[Any], function: Callable[[Any], Any]) -> Any:
    """Change a state document and return its value.

    Where nothing can be written, only this process has the new value.
    """
    before = state.value if state.loaded else await state.load()
    after = function(before)
    if after == before:
        return before
    try:
        return await state.update(function)
    except SelineError as error:
        _log.warning("%s could not be kept: %s", state.key.name, error.message)
        state.value = after
        return after


def _another(target: Target, marker: str, job: str) -> AnotherDestination:
    name, run = target.destination.name, f"run `seline jobs run {job}`"
    has = "the marker of another destination" if marker else "no marker of Seline's"
    where = target.destination.where
    message = f"{where} is not where {name} was: it has {has}. Nothing was copied there."
    use = f"run `seline destinations use {name}`"
    if target.may_be_unmounted:
        hint = f"Mount it, then {run}. If it was moved or replaced, {use} first."
    else:
        message += " The earlier copies are not counted any more."
        hint = (
            f"Correct its `url` if that is wrong. If it was emptied or replaced, {use}, then {run}."
        )
    return AnotherDestination(message, hint=hint)


def _explained(error: BaseException, job: str = "export") -> tuple[str, str]:
    """Return the message of an error, and what to do."""
    if isinstance(error, Exception):
        return explained(error)
    return STOPPED, f"Run `seline jobs run {job}`."
