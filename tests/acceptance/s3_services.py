"""Real S3 services on loopback, each in a separate process: OpenStack Swift, and moto.

Their packages are installed once, by pip, into environments under `.prove/`.
"""

import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.installing import installing

SWIFT = ("swift==2.38.3", "keystonemiddleware==13.0.1")
MOTO = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
MOTO_SERVER = """
import signal
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
signal.alarm(900)
signal.pause()
"""
END_S = 20


def python_with(*requirements: str) -> str:
    """Return the interpreter of an environment with these packages; skip without them."""
    with installing() as installed:
        folder = installed / requirements[0].replace("==", "-")
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            install = [python, "-m", "pip", "install", "--quiet", *requirements]
            if subprocess.run(install, check=False).returncode != 0:
                pytest.skip(f"pip cannot install {requirements[0]}")
            (folder / "complete").touch()
    return str(python)


@contextmanager
def served(*command: str) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Run a server that prints its port; yield its address and its process, and end it."""
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            log.seek(0)
            assert port, log.read()
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.communicate(timeout=END_S)


@contextmanager
def swift(
    folder: Path, *, clock_offset_s: float = 0
) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Serve Swift with its data in a folder; `swift_server.py` has the buckets and the keys."""
    script = str(Path(__file__).with_name("swift_server.py"))
    with served(python_with(*SWIFT), script, str(folder), str(clock_offset_s)) as running:
        yield running


@contextmanager
def moto() -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Serve moto with an empty bucket `copies`; it takes any key."""
    with served(python_with(*MOTO), "-c", MOTO_SERVER) as running:
        urllib.request.urlopen(urllib.request.Request(f"{running[0]}/copies", method="PUT"))
        yield running
