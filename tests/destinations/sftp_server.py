"""An SFTP server in this process: asyncssh's own, with faults on request."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh

USER, PASSWORD = "seline", "a-password-of-some-length"
OPERATIONS = ("open", "write", "fsync", "posix_rename", "scandir", "read", "remove")
"""What a fault can answer instead of the server."""


@cache
def private_key(number: int = 0) -> asyncssh.SSHKey:
    """Return one of several keys, each made once: of a host, or of a user."""
    return asyncssh.generate_private_key("ssh-ed25519")


def public_line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


class SftpServer:
    """A server on a free port of 127.0.0.1 that keeps its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: Callable[[str], Any] | None = None
        """It is called with each operation. What it raises is the answer; what it returns is
        awaited before the server's own."""
        self.public_key = public_line(private_key(7))
        """The key with which its user may log in."""
        self.free_bytes: int | None = None
        """What the server says is free, instead of the truth."""
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.port = 0
        self.acceptor: asyncssh.SSHAcceptor | None = None

    @property
    def url(self) -> str:
        return f"sftp://{USER}@127.0.0.1:{self.port}"

    async def start(self, *, host_key: asyncssh.SSHKey | None = None) -> None:
        """Serve, again on the same port after a stop."""
        serving = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                serving.connections.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (USER, PASSWORD)

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return key == asyncssh.import_public_key(serving.public_key)

        self.acceptor = await asyncssh.create_server(
            Login,
            "127.0.0.1",
            self.port,
            server_host_keys=[host_key or private_key()],
            sftp_factory=lambda channel: _Files(self, channel),
        )
        self.port = self.acceptor.get_port()

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        assert self.acceptor is not None
        self.acceptor.close()
        self.drop()
        await self.acceptor.wait_closed()

    def drop(self) -> None:
        """End all connections."""
        while self.connections:
            self.connections.pop().abort()


class _Files(asyncssh.SFTPServer):
    def __init__(self, serving: SftpServer, channel: Any) -> None:
        super().__init__(channel, chroot=str(serving.folder).encode())
        self.serving = serving

    def statvfs(self, path: bytes) -> Any:
        if self.serving.free_bytes is None:
            return super().statvfs(path)
        return asyncssh.SFTPVFSAttrs(bavail=self.serving.free_bytes, frsize=1)

    async def _before(self, operation: str) -> None:
        if self.serving.fault is not None:
            waits = self.serving.fault(operation)
            if waits is not None:
                await waits


def _faulty(operation: str) -> Any:
    own = getattr(asyncssh.SFTPServer, operation)

    async def call(self: _Files, *arguments: Any) -> Any:
        await self._before(operation)
        return own(self, *arguments)

    async def scan(self: _Files, *arguments: Any) -> Any:
        await self._before(operation)
        async for entry in own(self, *arguments):
            yield entry

    return scan if operation == "scandir" else call


for _operation in OPERATIONS:
    setattr(_Files, _operation, _faulty(_operation))


def disk_error(number: int = errno.EIO) -> OSError:
    """Return an error as the server's disk reports it."""
    return OSError(number, "the disk of the server")


@asynccontextmanager
async def sftp_server(folder: Path) -> AsyncIterator[SftpServer]:
    """Serve a folder until the block ends."""
    serving = SftpServer(folder)
    await serving.start()
    try:
        yield serving
    finally:
        await serving.stop()
