"""SIGTERM, SIGINT and SIGKILL in every phase of a server: no confirmed change is lost.

SIGTERM and SIGINT end the process in order, within a time limit and without a traceback.
"""

import ast
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from itertools import count
from pathlib import Path
from textwrap import indent
from typing import Any, Final

import pytest

from seline.blocking import Seline, open_seline
from tests.command_line import Line, line_at
from tests.docs.blocks import blocks
from tests.proof.history import Read, Stopped, Write, check
from tests.proof.judge import stray

ADMIN: Final = "an-admin-token-for-tests"
API: Final = "/api/v1/data-admin"
DOCUMENTS: Final = 60
ENDS_WITHIN_S: Final = 30.0
SAVES: Final = 5
CAUGHT: Final = (signal.SIGTERM, signal.SIGINT)
CALL_ERRORS: Final = (OSError, HTTPException, AssertionError)
"""The errors of a call to a server that ends before or during its response."""


@dataclass
class ServerRun:
    """One server process, its output, and the saves sent to it."""

    process: subprocess.Popen[bytes]
    out: Path
    saves: dict[str, Write] = field(default_factory=dict)
    """By state: the document's name and the number saved."""

    @property
    def acknowledged(self) -> set[str]:
        """The documents of which a save was confirmed."""
        saves = list(self.saves.values())
        return {name for save in saves if save.outcome == "acknowledged" for name in save.changes}

    @property
    def output(self) -> str:
        return self.out.read_text("utf-8", errors="replace")

    def wait_for(self, pattern: str) -> str:
        ends_at = time.monotonic() + 30
        while time.monotonic() < ends_at and self.process.poll() is None:
            if found := re.search(pattern, self.output):
                return found[found.lastindex or 0]
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} in: {self.output}")

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


def save_repeatedly(run: ServerRun, name: str) -> None:
    """Save until the server ends; record each request and each confirmation."""
    with suppress(*CALL_ERRORS):
        for number in count(1):
            state = f"{name} {number}"
            save = Write(changes={name: state}, began=time.monotonic())
            run.saves[state] = save
            run.call("PUT", f"/documents/{name}", {"by": state})
            run.saves[state] = replace(save, ended=time.monotonic(), outcome="acknowledged")


def at_once(_run: ServerRun) -> None:
    """Return at once: the process is still importing."""


def while_waiting(run: ServerRun) -> None:
    run.wait_for("waiting for the volume")


def when_ready(run: ServerRun) -> None:
    run.url()


def while_saving(run: ServerRun) -> None:
    run.url()
    for number in range(SAVES):
        arguments = (run, f"saved{number}.json")
        threading.Thread(target=save_repeatedly, args=arguments, daemon=True).start()
    ends_at = time.monotonic() + 20
    while len(run.acknowledged) < SAVES and time.monotonic() < ends_at:
        time.sleep(0.005)


def while_a_job_runs(run: ServerRun) -> None:
    run.call("POST", "/jobs/integrity/run")


def while_an_export_streams(run: ServerRun) -> None:
    def export() -> None:
        with suppress(*CALL_ERRORS):
            run.call("GET", "/export?form=folder")

    run.url()
    threading.Thread(target=export, daemon=True).start()
    time.sleep(0.01)


def while_stopping(run: ServerRun) -> None:
    run.url()
    run.process.send_signal(signal.SIGTERM)
    with suppress(AssertionError):
        run.wait_for("stopping")


PHASES: Final[Mapping[str, Callable[[ServerRun], None]]] = {
    "importing": at_once,
    "waiting for the lock": while_waiting,
    "ready": when_ready,
    "saving": while_saving,
    "a job": while_a_job_runs,
    "an export": while_an_export_streams,
    "stopping": while_stopping,
}


SIGNAL_AS_THE_LOOP_CLOSES: Final = """
import asyncio, os, signal, sys
from seline.server import run_server
from seline.settings import load_settings

closed = asyncio.selector_events.BaseSelectorEventLoop._close_self_pipe

def close(loop):
    closed(loop)
    os.kill(os.getpid(), signal.{name})

asyncio.selector_events.BaseSelectorEventLoop._close_self_pipe = close
settings = load_settings(environ={{**os.environ, "SELINE_DATA_DIR": sys.argv[1]}})
asyncio.run(run_server(settings, announce=lambda run: os.kill(os.getpid(), signal.SIGTERM)))
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a volume with documents that tests copy."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    with open_seline(folder) as seline:
        for number in range(DOCUMENTS):
            seline.data.save_json(f"d{number}.json", {"n": number, "filler": "x" * 2000})
    return folder


@contextmanager
def serving(line: Line) -> Iterator[ServerRun]:
    out = line.folder / "out"
    with out.open("wb") as output:
        process = line.start(
            "serve", "--host", "127.0.0.1", "--port", "0", stdout=output, stderr=output
        )
    try:
        yield ServerRun(process, out)
    finally:
        process.kill()
        process.wait()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", CAUGHT, ids=lambda number: number.name)
def test_a_signal_while_the_event_loop_closes_prints_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    program = SIGNAL_AS_THE_LOOP_CLOSES.format(name=number.name)
    arguments = [sys.executable, "-c", program, str(tmp_path / "data")]
    ended = subprocess.run(
        arguments,
        env={"SELINE_ADMIN_TOKEN": ADMIN, "PORT": "0"},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(it, marks=pytest.mark.prove) for it in (signal.SIGINT, signal.SIGKILL)),
    ],
    ids=lambda number: number.name,
)
def test_a_signal_in_any_phase_loses_no_confirmed_change(
    number: signal.Signals, phase: str, tmp_path: Path, filled: Path
) -> None:
    subprocess.run(["cp", "-a", str(filled), str(tmp_path / "data")], check=True)
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN)
    held = _holder(tmp_path / "data") if phase == "waiting for the lock" else nullcontext()
    with held, serving(line) as run:
        PHASES[phase](run)
        run.process.send_signal(number)
        code = run.process.wait(ENDS_WITHIN_S)
    assert "Traceback" not in run.output
    if number in CAUGHT and phase not in ("importing", "stopping"):
        assert code == 0, run.output
        assert "stopped; every confirmed change is on the disk" in run.output.splitlines()[-1]
    _check(tmp_path / "data", run)


def _check(directory: Path, run: ServerRun) -> None:
    stopped = Stopped(at=time.monotonic())
    with open_seline(directory) as seline:
        read = _read(seline, sorted(run.acknowledged))
        assert check([*run.saves.values(), stopped, read]) == []
        assert len(seline.data.documents()) >= DOCUMENTS
        assert seline.verify().findings == ()
    assert stray(directory) == []


def _read(seline: Seline, names: Sequence[str]) -> Read:
    start = time.monotonic()
    files: Any = seline.data.export_all_data()["files"]
    found = {name: files[name]["by"] if name in files else None for name in names}
    return Read(found=found, began=start, ended=time.monotonic())


@contextmanager
def _holder(directory: Path) -> Iterator[None]:
    with open_seline(directory):
        yield


STOPPED: Final = """
import asyncio, contextlib, signal
from seline.server import serving

class bot:
    async def run():
        print("polling", flush=True)
        await asyncio.Event().wait()

async def main():
{lines}
    print("stopped in order", flush=True)

asyncio.run(main())
"""


@pytest.mark.prove
def test_the_documented_bot_stops_in_order_on_sigterm(tmp_path: Path) -> None:
    [lines] = blocks("docs/deploy.md", "python")
    code = STOPPED.format(lines=indent(lines, "    "))
    line = line_at(tmp_path, PORT="0", SELINE_SERVER__HOST="127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path, stdout=subprocess.PIPE, env=line.environ, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "polling\n"
        process.terminate()
        assert process.wait(ENDS_WITHIN_S) == 0
        assert process.stdout.read() == "stopped in order\n"
    finally:
        process.kill()
        process.wait()


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


@pytest.mark.prove
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.prove)],
    ids=lambda n: n.name,
)
def test_a_new_container_polls_only_after_the_old_one_has_ended(
    number: signal.Signals, tmp_path: Path
) -> None:
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN)
    with serving(line) as old:
        old.url()
        threading.Thread(target=save_repeatedly, args=(old, "saved0.json"), daemon=True).start()
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
            ready, _, _ = select.select([new.stdout], [], [], 0.3)
            assert ready == [], "it polls while another process holds the data"
            old.process.send_signal(number)
            old.process.wait(ENDS_WITHIN_S)
            stopped = time.monotonic()
            word, _, value = new.stdout.readline().partition(" ")
            assert word == "polling"
            found = {"saved0.json": ast.literal_eval(value)["by"]}
            read = Read(found=found, began=stopped, ended=time.monotonic())
            assert check([*old.saves.values(), Stopped(at=stopped), read]) == []
            assert old.acknowledged
            assert new.wait(ENDS_WITHIN_S) == 0
        finally:
            new.kill()
            new.communicate()
