"""Programs as servers of destinations: nginx with its WebDAV modules, and OpenSSH's sshd."""

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

USER: Final = "seline"
PASSWORD: Final = "a-password-of-some-length"
START_S: Final = 60.0
DAV_MODULE: Final = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so"
NGINX: Final = """
{user}
daemon off; master_process off; pid {home}/pid; error_log {home}/log;
load_module {module};
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {files};
        auth_basic files; auth_basic_user_file {home}/passwords;
        client_max_body_size 0;
        dav_methods PUT DELETE MKCOL MOVE;
        dav_ext_methods PROPFIND;
        location /small/ {{ client_max_body_size 1m; }}
        location /plain/ {{ dav_ext_methods off; }}
    }}
}}
"""
SSHD: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
PidFile none
AuthorizedKeysFile {home}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def program(name: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class RealServer:
    """One program on a port of 127.0.0.1 that keeps its files in a folder."""

    def __init__(self, command: list[str], port: int, files: Path) -> None:
        self.command, self.port, self.files = command, port, files
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, again after a kill, and wait until it accepts connections."""
        log = (self.files.parent / "output").open("ab")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert self.process.poll() is None, (self.files.parent / "output").read_text()
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    def kill(self) -> None:
        """End the program and the processes that it started, at once."""
        assert self.process is not None
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)


def _descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from _descendants(int(child))


@asynccontextmanager
async def _running(server: RealServer) -> AsyncIterator[RealServer]:
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def _home(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield a folder for the files of a program, and a port that is free."""
    home = path / "home"
    home.mkdir()
    yield home, free_port()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def nginx(path: Path, files: Path | None = None) -> AsyncIterator[RealServer]:
    """Serve a folder, `files` in `path` by default, by WebDAV until the block ends."""
    executable = program("nginx")
    if not Path(DAV_MODULE).exists():
        pytest.skip("nginx has no module dav-ext")
    with _home(path) as (home, port):
        files = files or home / "files"
        files.mkdir(exist_ok=True)
        (home / "passwords").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        text = NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            module=DAV_MODULE,
            home=home,
            port=port,
            files=files,
        )
        (home / "nginx.conf").write_text(text)
        command = [executable, "-c", str(home / "nginx.conf"), "-e", str(home / "log")]
        async with _running(RealServer(command, port, files)) as server:
            yield server


@asynccontextmanager
async def sshd(path: Path, files: Path | None = None) -> AsyncIterator[RealServer]:
    """Serve this machine by SFTP until the block ends; the keys are in `home` in `path`."""
    executable = program("sshd")
    with _home(path) as (home, port):
        files = files or home / "files"
        files.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "user"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
            subprocess.run(key, check=True)
        (home / "sshd.conf").write_text(SSHD.format(home=home, port=port))
        command = [executable, "-D", "-e", "-f", str(home / "sshd.conf")]
        async with _running(RealServer(command, port, files)) as server:
            yield server


def sshd_url(server: RealServer) -> str:
    return f"sftp://{getpass.getuser()}@127.0.0.1:{server.port}{server.files}"
