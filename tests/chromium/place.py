"""A server with a volume as a bot leaves it after nine days: some of it broken, most of it well."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from seline.http import PREFIX
from seline.library import open_seline
from seline.manager import DataManager
from seline.operations import Operations
from tests.clocks import FakeClock
from tests.command_line import Line, line_at
from tests.http_client import ADMIN
from tests.stores import open_managed

PROFILE: Final = "user_profile.json"
BROKEN: Final = "broken.json"
DELETED: Final = "old_plan.json"
SET_ASIDE: Final = "habits.json"
LIST: Final = "lessons_learned.json"
NEVER_SAVED: Final = "never_saved.json"
LONG: Final = (
    "conversation_summary_of_the_first_week_of_november_2026_with_everything_that_was_said.json"
)
TORN: Final = b'{"r\xc3\xa9veil": "7 h", "jours": ["lundi", "mar'
DAYS: Final = 9
START_S: Final = 30
LIMIT_MB: Final = 5


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server in its own process, and what the tests do around it."""

    line: Line
    address: str
    sink: "Sink"
    token: str = ADMIN
    link: str = ""
    """The link that signs in once; only the first start on a terminal prints one."""

    def save(self, name: str, value: object) -> None:
        """Save a document as the bot does, beside what the browser does."""
        self.call("PUT", f"/documents/{name}", value)

    def load(self, name: str) -> Any:
        """Return a document."""
        return self.call("GET", f"/documents/{name}")

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the API with the admin token, and return what it answers."""
        request = urllib.request.Request(
            self.address + PREFIX + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def command(self, *arguments: str) -> str:
        """Run a command of Seline and return what it prints."""
        ran = self.line(*arguments)
        assert ran.code == 0, ran.err
        return ran.out.strip()


@dataclass
class Sink:
    """A receiver of alerts, which answers only while `answers` is set."""

    address: str
    answers: threading.Event = field(default_factory=threading.Event)


@contextmanager
def sink() -> Iterator[Sink]:
    """Receive alerts on a free port during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            made.answers.wait(20)
            with suppress(OSError):
                self.send_response(204)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Sink(f"http://127.0.0.1:{server.server_port}/")
    made.answers.set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.answers.set()
        server.shutdown()
        server.server_close()


@contextmanager
def lived_in(folder: Path) -> Iterator[Place]:
    """Serve a volume with nine days of history during the block."""
    folder.mkdir()
    for making in (_live(folder / "data"), _mirror_another(folder)):
        _carry_out(making)
    with sink() as alerts:
        line = line_at(folder, SELINE_ADMIN_TOKEN=ADMIN, **_settings(folder, alerts))
        with serving(line, alerts) as place:
            place.command("jobs", "run", "export")
            shutil.rmtree(folder / "usb")
            place.command("token", "create", "--label", "dashboard", "--scope", "read")
            place.command("token", "create", "--label", "Portable de Zoé", "--expires-days", "90")
            for job in ("export", "mirror", "drill", "usage"):
                place.line("jobs", "run", job)
            yield place


@contextmanager
def new(folder: Path) -> Iterator[Place]:
    """Serve an empty volume on a terminal during the block: the first start."""
    folder.mkdir()
    with sink() as alerts, serving(line_at(folder), alerts) as place:
        yield place


@contextmanager
def serving(line: Line, alerts: Sink) -> Iterator[Place]:
    """Run `seline serve` on a terminal during the block; yield when it is ready."""
    with started(line) as greeting:
        address = re.search(r"http://127\.0\.0\.1:\d+", greeting)
        link = re.search(r"http://\S+/sign-in\?once=\S+", greeting)
        token = re.search(r"sel_[\w-]+", greeting)
        assert address is not None, greeting
        yield Place(
            line=line,
            address=address[0],
            sink=alerts,
            token=token[0] if token else ADMIN,
            link=link[0] if link else "",
        )


@contextmanager
def started(line: Line) -> Iterator[str]:
    """Run `seline serve` on a terminal during the block; yield what it prints at its start."""
    terminal, end = pty.openpty()
    with (line.folder / "serve.err").open("wb") as errors:
        server = line.start(
            "serve", "--host", "127.0.0.1", "--port", "0", stdout=end, stderr=errors
        )
    os.close(end)
    text = ""
    reading = threading.Thread(target=_drain, args=(terminal,), daemon=True)
    try:
        until = time.monotonic() + START_S
        while not re.search(r"Next: .*\n", text) and time.monotonic() < until:
            text += os.read(terminal, 4096).decode()
        reading.start()
        yield text
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        os.close(terminal)


def _drain(terminal: int) -> None:
    """Read what a server prints, so that it never waits for its terminal."""
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


@contextmanager
def waiting_for(place: Place) -> Iterator[str]:
    """Run a second server during the block, which waits for the volume; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (place.line.folder / "second.err").open("wb") as errors:
        command = ("serve", "--host", "127.0.0.1", "--port", str(port))
        second = place.line.start(*command, stdout=errors, stderr=errors)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield address
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(30)


def _settings(folder: Path, alerts: Sink) -> dict[str, str]:
    here = {"same_disk": True}
    destinations = [
        {"name": "nas", "url": f"file://{folder}/nas", "mode": "both", **here},
        {"name": "usb", "url": f"file://{folder}/usb", "mode": "export", **here},
        {"name": "lab", "url": f"file://{folder}/lab", "mode": "mirror", **here},
    ]
    sinks = [{"kind": "webhook", "name": "phone", "url": alerts.address}, {"kind": "log"}]
    return {
        "SELINE_EXPORTS__DESTINATIONS": json.dumps(destinations),
        "SELINE_ALERTS__SINKS": json.dumps(sinks),
        "SELINE_STORAGE__VOLUME_LIMIT_MB": str(LIMIT_MB),
        "SELINE_STORAGE__SETTLE_S": "0.1",
        # The start runs it when the machine is slow, and then nothing is left for Home to remove.
        "SELINE_JOBS__ROTATION__ENABLED": "false",
    }


def _carry_out(making: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a thread: this one may have the loop of Playwright."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, making).result()


async def _live(data: Path) -> None:
    """Save documents and measure the volume day by day, then break two files while it is closed."""
    clock = FakeClock()
    clock.instant = datetime.now(UTC) - timedelta(days=DAYS, hours=3)
    store = open_managed(data, clock, storage__volume_limit_mb=LIMIT_MB)
    bot, usage = DataManager(store), Operations(store).usage
    for day in range(DAYS):
        for name, value in _documents(day).items():
            await bot.save_json(name, value)
        await usage.measure()
        clock.advance(86_400)
    await bot.delete(DELETED)
    await store.close()
    (data / SET_ASIDE).write_bytes(TORN)
    (data / BROKEN).write_bytes(b'{"half": ')
    (data / "données d'été.txt").write_text("notes\n")
    (data / "photos.bin").write_bytes(b"\0" * int(LIMIT_MB * 0.79 * (1 << 20)))


async def _mirror_another(folder: Path) -> None:
    """Leave the mirror of another volume at the destination `lab`."""
    lab = {"name": "lab", "url": f"file://{folder}/lab", "mode": "mirror", "same_disk": True}
    async with open_seline(folder / "other", exports__destinations=[lab], lock_wait_s=0) as seline:
        await seline.data.save_json(PROFILE, {"userName": "Test"})
        await seline.mirrors.run()
    shutil.rmtree(folder / "other")


def _documents(day: int) -> dict[str, object]:
    """Return what a bot saves on one day."""
    return {
        PROFILE: {
            "userName": "Zoé",
            "ville": "Besançon" if day < 5 else "Orléans",
            "préférences": {"thème": "sombre", "rappels": {"matin": "07:30", "soir": "21:00"}},
            "streak": day,
            "objectifs": ["lire", "courir", "dormir à l'heure"][: 1 + day // 3],
            "biographie": "Née à Sète, vit au bord de la Loire. " * 12,
        },
        LIST: [
            {"day": n, "lesson": f"Leçon n° {n} : noter ce qui a marché"} for n in range(day + 1)
        ],
        SET_ASIDE: {"réveil": "7 h", "jours": ["lundi", "mardi"], "semaine": day},
        "settings.json": {"language": "fr", "notifications": day % 2 == 0},
        "reminders.json": {"items": [{"at": f"{hour:02}:00"} for hour in range(24)]},
        "mood_log.json": [{"day": n, "mood": "😀" if n % 2 else "😐"} for n in range(150 + day)],
        "goals.json": {"2026": ["marathon"], "done": day},
        "contacts.json": {"amélie": {"since": 2019}, "jérôme": {"since": 2021}, "n": day},
        "quotes.json": {"today": "« Il n'est pas de vent favorable … »", "n": day},
        "journal_2026.json": {"entries": day, "last": "Une belle journée."},
        LONG: {"summary": "x" * 200, "n": day},
        DELETED: {"plan": "apprendre l'allemand", "n": day},
    }
