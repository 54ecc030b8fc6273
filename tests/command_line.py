"""Run the command line in tests: each command in its own process.

A command that a test waits for is forked from a fork server with all imports done. One that keeps
running, or that depends on how Python starts, is `python -m seline …`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from seline.blocking import open_seline
from seline.cli import main
from tests.faults.forms import chosen

RUN_S: Final = 60
SETTLES_SOON: Final = {"SELINE_STORAGE__SETTLE_S": "0.2"}
"""What a file found broken is given to become whole: else hundreds of tests wait two seconds."""
_FORKS: Final = get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.every_import", "tests.command_line"])
_STARTS_PYTHON: Final = ("PYTHON", "LANG", "LC_")
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def value(self) -> Any:
        """Return stdout as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A command line on one data directory, with only these environment variables.

    With `uid`, a command that ends runs as that user.
    """

    folder: Path
    environ: Mapping[str, str]
    uid: int | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def __call__(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        if any(name.startswith(_STARTS_PYTHON) for name in environ):
            return self._new_python(arguments, given, environ)
        with tempfile.TemporaryDirectory() as scratch:
            process = self._fork(arguments, scratch, given, environ)
            process.join(RUN_S)
            assert process.exitcode is not None, f"{arguments} runs for more than {RUN_S} s"
            out, err = (Path(scratch, name).read_text("utf-8") for name in ("out", "err"))
            return Ran(code=process.exitcode, out=out, err=err)

    @contextmanager
    def running(self, *arguments: str, until: Callable[[], bool]) -> Generator[None]:
        """Run a command during the block, which begins when `until` is true."""
        with tempfile.TemporaryDirectory() as scratch:
            process = self._fork(arguments, scratch, b"", {})
            try:
                ends_at = time.monotonic() + RUN_S
                while not until():
                    assert process.is_alive(), Path(scratch, "err").read_text("utf-8")
                    assert time.monotonic() < ends_at
                    time.sleep(0.02)
                yield
            finally:
                process.terminate()
                process.join(RUN_S)

    def _fork(
        self, arguments: Sequence[str], scratch: str, stdin: bytes, environ: Mapping[str, str]
    ) -> BaseProcess:
        streams = [os.path.join(scratch, name) for name in ("in", "out", "err")]
        Path(streams[0]).write_bytes(stdin)
        process = _FORKS.Process(
            target=_run,
            args=(arguments, str(self.folder), {**self.environ, **environ}, streams, self.uid),
        )
        process.start()
        return process

    def _new_python(
        self, arguments: Sequence[str], given: bytes, environ: Mapping[str, str]
    ) -> Ran:
        done = subprocess.run(
            self._command(*arguments),
            input=given,
            capture_output=True,
            timeout=RUN_S,
            cwd=self.folder,
            env={**self.environ, **environ},
            check=False,
        )
        return Ran(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    def start(self, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        """Start a command and return while it runs."""
        return subprocess.Popen(
            self._command(*arguments), cwd=self.folder, env=dict(self.environ), **pipes
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "seline", *arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server in its own process, with what it printed at its start."""

    pid: int
    url: str
    token: str
    greeting: str


def _run(
    arguments: Sequence[str],
    folder: str,
    environ: Mapping[str, str],
    streams: Sequence[str],
    uid: int | None,
) -> None:
    """Run the command in a forked process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # for the whole process
    if arguments[:1] == ("hold",):
        _hold(*arguments[1:])
    sys.argv = ["seline", *arguments]
    main()


def _hold(data_dir: str, ready: str) -> None:
    """Hold a data directory as a bot does, until this process is terminated."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open_seline(data_dir):
        Path(ready).touch()
        signal.pause()


def line_at(folder: Path, **environ: str) -> Line:
    """Return a command line on `folder/data`; temporary files go to `folder/scratch`."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    own = {"SELINE_DATA_DIR": "data", "TMPDIR": str(scratch), **SETTLES_SOON, **chosen()}
    return Line(folder=folder, environ={**passed_on, **own, **environ})


@contextmanager
def served(line: Line, *arguments: str) -> Iterator[Served]:
    """Run `seline serve` on a free port during the block."""
    command = ("serve", "--host", "127.0.0.1", "--port", "0", *arguments)
    with (line.folder / "serve.err").open("wb") as talk:
        process = line.start(*command, stdout=subprocess.PIPE, stderr=talk)
    try:
        greeting = _greeting(process)
        url = re.search(r"ready on (http://[0-9.:]+)", greeting)
        token = re.search(r"sel_[\w-]+", greeting)
        assert url is not None, greeting
        yield Served(
            pid=process.pid, url=url[1], token="" if token is None else token[0], greeting=greeting
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=RUN_S)


def _greeting(process: subprocess.Popen[bytes]) -> str:
    """Return what the server prints up to the line about tokens."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.decode())
        if "seline token create" in lines[-1]:
            break
    return "".join(lines)
