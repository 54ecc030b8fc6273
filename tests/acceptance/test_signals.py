"""SIGTERM, SIGINT and SIGKILL in every phase of a server's life: nothing acknowledged is lost.

A signal that can be heard ends the process in order and within bounds, with no traceback.
"""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from seline.blocking import open_seline
from tests.command_line import Line, line_at
from tests.proof.judge import stray

ADMIN: Final = "an-admin-token-for-tests"
API: Final = "/api/v1/data-admin"
DOCUMENTS: Final = 60
ENDS_WITHIN_S: Final = 30.0
SAVES: Final = 5
HEARD: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Life:
    """One server, what it said, and what it acknowledged."""

    process: subprocess.Popen[bytes]
    out: Path
    acknowledged: dict[str, int] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return self.out.read_text("utf-8", errors="replace")

    def wait_for(self, pattern: str) -> str:
        ends_at = time.monotonic() + 30
        while time.monotonic() < ends_at and self.process.poll() is None:
            if found := re.search(pattern, self.said):
                return found[found.lastindex or 0]
            time.sleep(0.01)
        raise AssertionError(f"never said {pattern!r}: {self.said}")

    def url(self) -> str:
        return self.wait_for(r"ready on (http://[0-9.:]+)")

    def call(self, method: str, path: str, body: object = None) -> None:
        request = urllib.request.Request(
            self.url() + API + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()


def save_without_end(life: Life, name: str) -> None:
    """Save until the server is gone; a number counts once its save was answered."""
    number = 0
    with suppress(OSError, AssertionError):
        while True:
            number += 1
            life.call("PUT", f"/documents/{name}", {"n": number})
            life.acknowledged[name] = number


def at_once(_life: Life) -> None:
    """Say nothing: the process is still importing."""


def while_waiting(life: Life) -> None:
    life.wait_for("waiting for the volume")


def when_ready(life: Life) -> None:
    life.url()


def while_saving(life: Life) -> None:
    life.url()
    for number in range(SAVES):
        arguments = (life, f"saved{number}.json")
        threading.Thread(target=save_without_end, args=arguments, daemon=True).start()
    ends_at = time.monotonic() + 20
    while len(life.acknowledged) < SAVES and time.monotonic() < ends_at:
        time.sleep(0.005)


def while_a_job_runs(life: Life) -> None:
    life.call("POST", "/jobs/integrity/run")


def while_an_export_streams(life: Life) -> None:
    def export() -> None:
        with suppress(OSError, AssertionError):
            life.call("GET", "/export?form=folder")

    life.url()
    threading.Thread(target=export, daemon=True).start()
    time.sleep(0.01)


def while_stopping(life: Life) -> None:
    life.url()
    life.process.send_signal(signal.SIGTERM)
    with suppress(AssertionError):
        life.wait_for("stopping")


PHASES: Final[Mapping[str, Callable[[Life], None]]] = {
    "importing": at_once,
    "waiting for the lock": while_waiting,
    "ready": when_ready,
    "saving": while_saving,
    "a job": while_a_job_runs,
    "an export": while_an_export_streams,
    "stopping": while_stopping,
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a volume with documents, to be copied."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    with open_seline(folder) as seline:
        for number in range(DOCUMENTS):
            seline.data.save_json(f"d{number}.json", {"n": number, "filler": "x" * 2000})
    return folder


@contextmanager
def living(line: Line) -> Iterator[Life]:
    out = line.folder / "out"
    with out.open("wb") as told:
        process = line.start(
            "serve", "--host", "127.0.0.1", "--port", "0", stdout=told, stderr=told
        )
    try:
        yield Life(process, out)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [*HEARD, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_in_any_phase_loses_nothing(
    number: signal.Signals, phase: str, tmp_path: Path, filled: Path
) -> None:
    subprocess.run(["cp", "-a", str(filled), str(tmp_path / "data")], check=True)
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN)
    held = _holder(tmp_path / "data") if phase == "waiting for the lock" else nullcontext()
    with held, living(line) as life:
        PHASES[phase](life)
        life.process.send_signal(number)
        code = life.process.wait(ENDS_WITHIN_S)
    assert "Traceback" not in life.said
    if number in HEARD and phase not in ("importing", "stopping"):
        assert code == 0, life.said
    _check(tmp_path / "data", life.acknowledged)


def _check(directory: Path, acknowledged: Mapping[str, int]) -> None:
    with open_seline(directory) as seline:
        for name, number in acknowledged.items():
            value = seline.data.load_json(name)
            assert isinstance(value, dict)
            assert isinstance(value["n"], int)
            assert value["n"] >= number, name
        assert len(seline.data.documents()) >= DOCUMENTS
        assert seline.data.verify().findings == ()
    assert stray(directory) == []


@contextmanager
def _holder(directory: Path) -> Iterator[None]:
    with open_seline(directory):
        yield


BOT: Final = """
import asyncio, sys
from seline.server import serving
from seline.settings import load_settings

async def main():
    environ = {"SELINE_DATA_DIR": sys.argv[1], "PORT": "0", "SELINE_SERVER__HOST": "127.0.0.1"}
    async with serving(load_settings(environ=environ)) as running:
        print("serving", running.address, flush=True)
        await running.acquired()
        print("polling", await running.data.load_json("saved0.json"), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_new_container_polls_only_once_the_old_one_let_go(
    number: signal.Signals, tmp_path: Path
) -> None:
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN)
    with living(line) as old:
        old.url()
        threading.Thread(target=save_without_end, args=(old, "saved0.json"), daemon=True).start()
        new = subprocess.Popen(
            [sys.executable, "-c", BOT, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            env={**line.environ, "SELINE_DATA_DIR": ""},
            text=True,
        )
        try:
            assert new.stdout is not None
            address = new.stdout.readline().split()[1]
            with urllib.request.urlopen(address + "/livez", timeout=10) as alive:
                assert alive.status == 200
            for _ in range(5):
                with pytest.raises(urllib.error.HTTPError, match="503"):
                    urllib.request.urlopen(address + "/readyz", timeout=10)
            heard, _, _ = select.select([new.stdout], [], [], 0.3)
            assert heard == [], "it polls while another holds the data"
            old.process.send_signal(number)
            old.process.wait(ENDS_WITHIN_S)
            word, _, value = new.stdout.readline().partition(" ")
            assert word == "polling"
            assert int(re.findall(r"\d+", value)[0]) >= old.acknowledged["saved0.json"] > 0
            assert new.wait(ENDS_WITHIN_S) == 0
        finally:
            new.kill()
            new.communicate()
