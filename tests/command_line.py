"""The command line as tests use it: `python -m seline …` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RUN_S: Final = 60
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LANG", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command did: exit code, data, talk."""

    code: int
    out: str
    err: str

    def value(self) -> Any:
        """Return stdout as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A command line at one data directory, with nothing of the environment but what is named."""

    folder: Path
    environ: Mapping[str, str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def __call__(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
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
        """Start a command and leave it running."""
        return subprocess.Popen(
            self._command(*arguments), cwd=self.folder, env=dict(self.environ), **pipes
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "seline", *arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server of its own process, as its first words tell."""

    pid: int
    url: str
    token: str
    greeting: str


def line_at(folder: Path, **environ: str) -> Line:
    """Return a command line whose data directory is `folder/data`."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return Line(folder=folder, environ={**passed_on, "SELINE_DATA_DIR": "data", **environ})


@contextmanager
def served(line: Line, *arguments: str) -> Iterator[Served]:
    """Run `seline serve` on a free port for as long as the block lasts."""
    command = ("serve", "--host", "127.0.0.1", "--port", "0", *arguments)
    with (line.folder / "serve.err").open("wb") as talk:
        process = line.start(*command, stdout=subprocess.PIPE, stderr=talk)
    try:
        greeting = _greeting(process)
        url = re.search(r"listens on (http://\S+)", greeting)
        token = re.search(r"sel_[\w-]+", greeting)
        assert url is not None, greeting
        yield Served(
            pid=process.pid,
            url=url[1],
            token="" if token is None else token[0],
            greeting=greeting,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=RUN_S)


def _greeting(process: subprocess.Popen[bytes]) -> str:
    """Return what the server prints until it says what to do next."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.decode())
        if "Next:" in lines[-1]:
            break
    return "".join(lines)
