"""Does everything at once, without end, in a process like a bot's; it is there to be killed.

`python -m tests.acceptance.soaking DATA_DIR LIFE NOTEBOOK EXPORTS` says `ready ADDRESS` once the
volume is held and every document was read; from then on it remembers them all. Store, admin API
and worker run in its event loop; sixteen tasks save, update, edit, delete, restore, import, export,
verify, prune and read beside the worker's own jobs. SIGTERM stops it in order.
"""

from __future__ import annotations

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

from seline import DataManager
from seline.domain.manifest import MANIFEST_NAME, decode_manifest
from seline.errors import BackupNotFound, DocumentNotFound, SelineError
from seline.operations.packs import DOCUMENTS, check_documents, members_of
from seline.server import serving
from seline.server.memory import give_memory_back
from seline.settings import Settings, load_settings
from tests.acceptance.saver import (
    MOVED,
    Notebook,
    Writer,
    look_at,
    look_at_everything,
    state_of,
    states_in,
    value_of,
)

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
IMPATIENCE_S: Final = 0.002
"""How long an impatient caller waits before it cancels its save."""
ENVIRONMENT: Final = {
    "SELINE_ADMIN_TOKEN": ADMIN,
    "SELINE_STRICT": "1",
    "SELINE_BACKUPS__KEEP_NEWEST": str(KEEP_NEWEST),
    "SELINE_JOBS__INTEGRITY__SCHEDULE": "every 5 s",
    "SELINE_JOBS__ROTATION__SCHEDULE": "every 3 s",
    "SELINE_JOBS__USAGE__SCHEDULE": "every 2 s",
    "SELINE_JOBS__EXPORT__SCHEDULE": "every 7 s",
    "SELINE_LOG__LEVEL": "error",
    "SELINE_SERVER__HOST": "127.0.0.1",
    "SELINE_SERVER__PORT": "0",
}


def main(data_dir: str, life: str, notebook: str, exports: str) -> None:
    """Soak until killed or told to stop."""
    give_memory_back()
    asyncio.run(_soak(_settings(data_dir, exports), Notebook(Path(notebook)), life))


def _settings(data_dir: str, exports: str) -> Settings:
    beside = [{"name": "beside", "url": f"file://{exports}", "keep": 2}]
    environ = {
        **ENVIRONMENT,
        "SELINE_DATA_DIR": data_dir,
        "SELINE_EXPORTS__DESTINATIONS": json.dumps(beside),
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
        load = Load(running.data, notes, life, http, f"{running.address}{API}/export")
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
    """Sixteen tasks, each doing one thing again and again."""

    def __init__(
        self,
        data: DataManager,
        notes: Notebook,
        life: str,
        http: aiohttp.ClientSession,
        export_url: str,
    ) -> None:
        self.data = data
        self.notes = notes
        self._life = life
        self._http = http
        self._export_url = export_url
        self._chance = random.Random(int(life))

    async def begin(self) -> None:
        """Read everything, make the documents that are only updated, and warm up.

        Each thread that packs an export keeps some memory from then on: let them all do so now.
        """
        for name in EVERYTHING:
            await look_at(self.data, self.notes, name)
        writer = self._writer("first")
        for name in UPDATED:
            if not await self.data.load_json(name):
                await writer.save(name, 0)
        await asyncio.gather(*(self._take_export("folder") for _ in range(EXPORTS_AT_ONCE)))

    def tasks(self) -> Sequence[Awaitable[None]]:
        return (
            *(self._again(self._save, f"save{number}", 0.02) for number in range(3)),
            self._again(self._save_impatiently, "impatient", 0.05),
            *(self._again(self._update, f"update{number}", 0.03) for number in range(2)),
            *(self._again(self._edit, f"edit{number}", 0.03) for number in range(2)),
            *(self._again(self._move, f"move{number}", 0.05) for number in range(2)),
            self._again(self._restore, "restore", 0.1),
            self._again(self._delete, "delete", 0.2),
            self._again(self._import, "import", 0.2),
            self._again(self._export, "export", 0.7),
            self._again(self._tidy, "tidy", 1.0),
            self._again(self._read, "read", 0.01),
        )

    async def _again(
        self, once: Callable[[Writer], Awaitable[None]], name: str, pause_s: float
    ) -> None:
        """Do it again and again; an error that nobody should see is noted."""
        writer = self._writer(name)
        while True:
            try:
                await once(writer)
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

    async def _save_impatiently(self, writer: Writer) -> None:
        """Save, and cancel it in the middle: it may be done all the same."""
        try:
            async with asyncio.timeout(self._chance.uniform(0, IMPATIENCE_S)):
                await self._save(writer)
        except TimeoutError:
            pass

    async def _update(self, writer: Writer) -> None:
        name, state = self._chance.choice(UPDATED), writer.next()
        with self.notes.asking() as asked:
            asked.writes({name: state})
            await self.data.update_field(name, "by", value_of(state)["by"])

    async def _edit(self, writer: Writer) -> None:
        await writer.edit(self._chance.choice(COUNTED))

    async def _move(self, writer: Writer) -> None:
        await writer.move()

    async def _delete(self, writer: Writer) -> None:
        name = self._chance.choice(SAVED)
        with self.notes.asking() as asked:
            asked.writes({name: None})
            await self.data.delete(name)

    async def _restore(self, writer: Writer) -> None:
        """Restore a backup of any age, having looked at what it holds."""
        name = self._chance.choice(EVERYTHING)
        try:
            sound = [one for one in await self.data.backups(name) if one.verdict == "sound"]
        except DocumentNotFound:
            return  # it was never saved
        if not sound:
            return
        backup = self._chance.choice(sound)
        try:
            state = state_of(await self.data.read_backup(name, backup.name))
        except BackupNotFound:
            return  # it was rotated away meanwhile
        with self.notes.asking() as asked:
            asked.writes({name: state})
            await self.data.restore(name, backup.name)

    async def _import(self, writer: Writer) -> None:
        names = self._chance.sample([*SAVED, *MOVED], 3)
        state = writer.next()
        with self.notes.asking() as asked:
            asked.writes(dict.fromkeys(names, state))
            files = {name: value_of(state, self._size()) for name in names}
            await self.data.import_data({"files": files})

    # reading

    async def _read(self, writer: Writer) -> None:
        if self._chance.random() < 0.02:
            await look_at_everything(self.data, self.notes, EVERYTHING)
        else:
            await look_at(self.data, self.notes, self._chance.choice(EVERYTHING))

    async def _export(self, writer: Writer) -> None:
        """Take an export over HTTP, readable or as a folder of packs, and look at all of it."""
        await self._take_export(self._chance.choice(["json", "folder"]))

    async def _take_export(self, form: str) -> None:
        began = time.monotonic()
        async with self._http.get(self._export_url, params={"form": form}) as answer:
            answer.raise_for_status()
            body = await answer.read()
        files = json.loads(body)["data"]["files"] if form == "json" else _unpacked(body)
        self.notes.read(began, states_in(files, EVERYTHING))
        self.notes.line("exported", form)

    async def _tidy(self, writer: Writer) -> None:
        """Look after everything; broken backups are all that may be found."""
        report = await self.data.verify()
        self.notes.line("verified", len(report.findings))
        await self.data.prune()


def _unpacked(body: bytes) -> dict[str, Any]:
    """Return the documents of an export folder that came as one tar, every digest checked."""
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        parts = {one.name.partition("/")[2]: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
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
