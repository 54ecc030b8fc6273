"""A volume whose changes are mirrored to a folder beside it, and what is in that folder."""

from pathlib import Path

from seline.domain import mirror
from seline.domain.mirror import Head
from seline.manager import DataManager
from seline.manager.managed_store import ManagedStore
from seline.operations import Operations
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import OBJECT_BYTES_MAX, ObjectStore, Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.clocks import FakeClock
from tests.stores import open_managed, scratch_volume

HOUR_S = 3600.0


class Counted(Folder):
    """A folder that counts the calls of one run."""

    def __init__(self, path: Path) -> None:
        super().__init__("bucket", str(path))
        self.puts: list[tuple[str, int]] = []
        self.others: list[str] = []

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        await super().put(key, data, replace=replace)
        self.puts.append((key, len(data)))

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        self.others.append(key)
        return await super().get(key, bytes_max=bytes_max)

    async def list(self, folder: str):  # type: ignore[no-untyped-def]
        self.others.append(folder)
        return await super().list(folder)


class Bot:
    """A volume with its mirror in a folder beside it."""

    def __init__(
        self,
        tmp_path: Path,
        bucket: ObjectStore,
        *,
        target: Target | None = None,
        sealer: Sealer = UNSEALED,
        **settings: object,
    ) -> None:
        self.clock = FakeClock()
        self.store: ManagedStore = open_managed(tmp_path / "data", self.clock, **settings)
        self.data = DataManager(self.store)
        self.bucket = bucket
        target = target or Target(bucket, 3, same_disk=True, mode="mirror")
        self.operations = Operations(
            self.store, [target], version="test", sealer=sealer, open_volume=scratch_volume
        )

    async def mirrored(self) -> str:
        self.clock.advance(1)
        return await self.operations.mirrors.run()

    async def lose_most(self) -> None:
        """Mirror four documents, and delete three of them: the next head is in doubt."""
        for number in range(4):
            await self.data.save_json(f"{number}.json", {"n": number})
        await self.mirrored()
        for number in range(3):
            await self.data.delete(f"{number}.json")


def folder(place: Path) -> Path:
    [volume] = [path for path in (place / mirror.ROOT).iterdir() if path.is_dir()]
    return volume


def heads(place: Path) -> list[Head]:
    """Return the heads, the last one first."""
    found = sorted((folder(place) / "heads").iterdir(), reverse=True)
    return [mirror.decode_head(path.read_bytes(), path.stem) for path in found]


def objects(place: Path) -> set[str]:
    return {path.name for path in (folder(place) / "objects").iterdir()}


def flip(path: Path) -> None:
    """Flip one bit of a stored file's last byte."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
