"""The operator's verbs: HTTP handlers, the command line, the jobs and `Seline` call these."""

from collections.abc import Sequence

from seline.domain.document import Json
from seline.domain.readable_export import ImportMode, ImportReport
from seline.domain.report import Pruned, VerifyReport
from seline.manager.managed_store import ManagedStore
from seline.operations.exports import Exporter
from seline.operations.health import Health
from seline.operations.imports import import_spool
from seline.operations.prune import Pruner
from seline.operations.spool import Spool
from seline.operations.usage import UsageMonitor, storage_info
from seline.operations.verify import Verifier
from seline.ports.destinations import Destination
from seline.ports.store import DocumentStore


class Operations:
    """The verbs over one store, and what each found last."""

    def __init__(
        self,
        store: ManagedStore,
        destinations: Sequence[tuple[Destination, int]] = (),
        *,
        version: str = "",
    ) -> None:
        """Work over a store that may not be open yet; `version` is written into exports."""
        self.store = store
        self.verifier = Verifier(store)
        self.usage = UsageMonitor(store)
        self.exports = Exporter(store, destinations, version=version)
        self._pruner = Pruner(store)
        self._health = Health(store, self.verifier, self.usage, self.exports)

    async def load(self) -> None:
        """Read what an earlier process found. Raises VolumeBusy, StoreClosed."""
        store = await self.store.open()
        await self.store.reading(lambda: self._read(store))

    async def health(self) -> dict[str, Json]:
        """Return the body of `GET /health`."""
        return await self._health.report()

    async def storage_info(self) -> dict[str, Json]:
        """Return the body of `GET /storage-info`."""
        return await storage_info(self.store)

    async def verify(self, *, full: bool | None = True) -> VerifyReport:
        """Check every document and backup by checksum; recover, adopt, and report.

        `full=False` checks what changed since the pass before, `None` does so except once a day.
        """
        return await self.verifier.run(full=full)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Discard the backups that the retention policy drops; `dry_run` only lists them."""
        return await self._pruner.run(dry_run=dry_run)

    async def import_spool(
        self, upload: Spool, mode: ImportMode, *, dry_run: bool = False
    ) -> ImportReport:
        """Import an uploaded export, all of it or nothing; `dry_run` only decides."""
        return await import_spool(self.store, upload, mode, dry_run=dry_run)

    def _read(self, store: DocumentStore) -> None:
        self.verifier.read(store)
        self.exports.read(store)
