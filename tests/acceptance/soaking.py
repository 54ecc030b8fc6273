"""A process like a bot's that runs all operations at once, until a test kills or stops it.

`python -m tests.acceptance.soaking DATA_DIR LIFE NOTEBOOK EXPORTS` prints `ready ADDRESS` after it
has locked the volume and read every document, so that all are in its cache. The environment chooses
its form of the commit. Store, admin API and worker run in its event loop. Sixteen tasks save,
update, edit, delete, restore, import, export, verify, prune and read, in addition to the worker's
jobs. SIGTERM stops it cleanly.
"""

import asyncio
import io
import json
import random
import signal
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from seline.domain.manifest import MANIFEST_NAME, decode_manifest
from seline.errors import BackupNotFound, DocumentNotFound, SelineError
from seline.operations.packs import DOCUMENTS, check_documents, members_of
from seline.server import Serving, serving
from seline.server.process import give_memory_back
from seline.settings import Settings, load_settings
from tests.acceptance.saver import (
    MOVED,
    Notebook,
    Writer,
    note_export,
    note_read,
    state_of,
    states_in,
    value_of,
)
from tests.faults.forms import chosen

SAVED: Final = tuple(f"d{number}.json" for number in range(8))
UPDATED: Final = ("u0.json", "u1.json")
COUNTED: Final = ("counted0.json", "counted1.json")
EVERYTHING: Final = (*SAVED, *UPDATED, *COUNTED, *MOVED)
KEEP_NEWEST: Final = 3
ADMIN: Final = "an-admin-token-for-soaks"
API: Final = "/api/v1/data-admin"
SIZES: Final = (0, 200, 900, 2_500, 20_000, 120_000)
WEIGHTS: Final = (10, 30, 30, 20, 8, 2)
EXPORTS_AT_ONCE: Final = 6
CANCEL_WITHIN_S: Final = 0.002
"""A save is cancelled after at most this time."""
ENVIRONMENT: Final = {
    "SELINE_ADMIN_TOKEN": ADMIN,
    "SELINE_STRICT": "1",
    "SELINE_BACKUPS__KEEP_NEWEST": str(KEEP_NEWEST),
    "SELINE_BACKUPS__KEEP_DAILY": "0",
    "SELINE_JOBS__INTEGRITY__SCHEDULE": "every 5 s",
    "SELINE_JOBS__ROTATION__SCHEDULE": "every 3 s",
    "SELINE_JOBS__USAGE__SCHEDULE": "every 2 s",
    "SELINE_JOBS__EXPORT__SCHEDULE": "every 7 s",
    "SELINE_LOG__LEVEL": "error",
    "SELINE_SERVER__HOST": "127.0.0.1",
    "SELINE_SERVER__PORT": "0",
}


def main(data_dir: str, life: str, notebook: str, exports: str) -> None:
    """Run until killed or stopped."""
    give_memory_back()
    asyncio.run(_soak(_settings(data_dir, exports), Notebook(Path(notebook)), life))


def _settings(data_dir: str, exports: str) -> Settings:
    destinations = [{"name": "beside", "url": f"file://{exports}", "keep": 2}]
    environ = {
        **ENVIRONMENT,
        **chosen(),
        "SELINE_DATA_DIR": data_dir,
        "SELINE_EXPORTS__DESTINATIONS": json.dumps(destinations),
    }
    return load_settings(environ=environ)


async def _soak(settings: Settings, notes: Notebook, life: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        serving(settings) as running,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as http,
    ):
        await running.acquired()
        load = Load(running, notes, life, http, f"{running.address}{API}/export")
        await load.begin()
        print("ready", running.address, flush=True)
        tasks = [asyncio.ensure_future(task) for task in (*load.tasks(), stop.wait())]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in ended:
            task.result()


class Load:
    """Sixteen tasks, each of which repeats one operation."""

    def __init__(
        self,
        running: Serving,
        notes: Notebook,
        life: str,
        http: aiohttp.ClientSession,
        export_url: str,
    ) -> None:
        self.data = running.data
        self._operations = running.operations
        self.notes = notes
        self._life = life
        self._http = http
        self._export_url = export_url
        self._chance = random.Random(int(life))

    async def begin(self) -> None:
        """Read everything, create the documents that are only updated, and warm up.

        A thread that has packed an export keeps some memory, so every thread packs one here.
        """
        for name in EVERYTHING:
            await note_read(self.data, self.notes, name)
        writer = self._writer("first")
        for name in UPDATED:
            if not await self.data.load_json(name):
                await writer.save(name, 0)
        await asyncio.gather(*(self._take_export("folder") for _ in range(EXPORTS_AT_ONCE)))

    def tasks(self) -> Sequence[Awaitable[None]]:
        return (
            *(self._repeat(self._save, f"save{number}", 0.02) for number in range(3)),
            self._repeat(self._save_and_cancel, "cancelled", 0.05),
            *(self._repeat(self._update, f"update{number}", 0.03) for number in range(2)),
            *(self._repeat(self._edit, f"edit{number}", 0.03) for number in range(2)),
            *(self._repeat(self._move, f"move{number}", 0.05) for number in range(2)),
            self._repeat(self._restore, "restore", 0.1),
            self._repeat(self._delete, "delete", 0.2),
            self._repeat(self._import, "import", 0.2),
            self._repeat(self._export, "export", 0.7),
            self._repeat(self._verify_and_prune, "verify and prune", 1.0),
            self._repeat(self._read, "read", 0.01),
        )

    async def _repeat(
        self, operation: Callable[[Writer], Awaitable[None]], name: str, pause_s: float
    ) -> None:
        """Repeat an operation. Records an error, because no operation should fail here."""
        writer = self._writer(name)
        while True:
            try:
                await operation(writer)
            except (SelineError, aiohttp.ClientError) as error:
                self.notes.line("wrong", f"{name}: {type(error).__name__}: {error}")
            await asyncio.sleep(self._chance.expovariate(1 / pause_s))

    def _writer(self, name: str) -> Writer:
        return Writer(self.data, self.notes, f"{self._life}.{name}")

    def _size(self) -> int:
        return self._chance.choices(SIZES, WEIGHTS)[0]

    # writing

    async def _save(self, writer: Writer) -> None:
        await writer.save(self._chance.choice(SAVED), self._size())

    async def _save_and_cancel(self, writer: Writer) -> None:
        """Save, and cancel the call; the save may happen nevertheless."""
        try:
            async with asyncio.timeout(self._chance.uniform(0, CANCEL_WITHIN_S)):
                await self._save(writer)
        except TimeoutError:
            pass

    async def _update(self, writer: Writer) -> None:
        name, state = self._chance.choice(UPDATED), writer.next()
        with self.notes.note_write() as write:
            write.begin({name: state})
            await self.data.update_field(name, "by", value_of(state)["by"])

    async def _edit(self, writer: Writer) -> None:
        await writer.edit(self._chance.choice(COUNTED))

    async def _move(self, writer: Writer) -> None:
        await writer.move()

    async def _delete(self, writer: Writer) -> None:
        name = self._chance.choice(SAVED)
        with self.notes.note_write() as write:
            write.begin({name: None})
            await self.data.delete(name)

    async def _restore(self, writer: Writer) -> None:
        """Restore a backup of any age after reading it."""
        name = self._chance.choice(EVERYTHING)
        try:
            sound = [item for item in await self.data.backups(name) if item.verdict == "sound"]
        except DocumentNotFound:
            return  # it was never saved
        if not sound:
            return
        backup = self._chance.choice(sound)
        try:
            state = state_of(await self.data.read_backup(name, backup.name))
        except BackupNotFound:
            return  # it was rotated away
        with self.notes.note_write() as write:
            write.begin({name: state})
            await self.data.restore(name, backup.name)

    async def _import(self, writer: Writer) -> None:
        names = self._chance.sample([*SAVED, *MOVED], 3)
        state = writer.next()
        with self.notes.note_write() as write:
            write.begin(dict.fromkeys(names, state))
            files = {name: value_of(state, self._size()) for name in names}
            await self.data.import_data({"files": files})

    # reading

    async def _read(self, writer: Writer) -> None:
        if self._chance.random() < 0.02:
            await note_export(self.data, self.notes, EVERYTHING)
        else:
            await note_read(self.data, self.notes, self._chance.choice(EVERYTHING))

    async def _export(self, writer: Writer) -> None:
        """Take an export over HTTP, readable or as a folder of packs, and record its contents."""
        await self._take_export(self._chance.choice(["json", "folder"]))

    async def _take_export(self, form: str) -> None:
        began = time.monotonic()
        async with self._http.get(self._export_url, params={"form": form}) as answer:
            answer.raise_for_status()
            body = await answer.read()
        files = json.loads(body)["data"]["files"] if form == "json" else _unpacked(body)
        self.notes.read(began, states_in(files, EVERYTHING))
        self.notes.line("exported", form)

    async def _verify_and_prune(self, writer: Writer) -> None:
        """Verify everything and prune."""
        report = await self._operations.verify()
        self.notes.line("verified", len(report.findings))
        await self._operations.prune()


def _unpacked(body: bytes) -> dict[str, Any]:
    """Return the documents of an export folder sent as a tar; checks every digest."""
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        parts = {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = decode_manifest(parts[MANIFEST_NAME])
    members = {
        name: data for pack in manifest.packs for name, data in members_of(pack, parts[pack.name])
    }
    documents = {
        name.removeprefix(DOCUMENTS): data
        for name, data in members.items()
        if name.startswith(DOCUMENTS)
    }
    check_documents(manifest, documents)
    return {name: json.loads(data) for name, data in documents.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
