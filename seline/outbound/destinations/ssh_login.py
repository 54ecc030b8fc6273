"""Log in to an SSH server whose host key is known (extra `sftp`).

No file of the user's SSH configuration is read, except `~/.ssh/known_hosts`.
"""

# for where asyncssh is not installed
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false

import asyncio
import base64
import binascii
import importlib
import logging
import os
import shlex
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from seline.errors import ExportFailed
from seline.outbound.destinations.own_thread import OwnThread

if TYPE_CHECKING:
    import asyncssh  # else imported at the first connection: it takes 0.6 s and 30 MB

PORT: Final = 22
KNOWN_HOSTS: Final = "~/.ssh/known_hosts"
CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""The first to propose, before the others: they take half of the processor that chacha20 takes."""
CONNECT_S: Final = 30.0
KEEPALIVE_S: Final = 15.0
_LOADING_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SshLogin:
    """A server, and how to log in there: with a private key, a password, or both.

    `name` is the destination's. `host_key` is a public key as `public_key` returns it, "" to look
    in known_hosts.
    """

    name: str
    host: str
    port: int
    user: str
    host_key: str = ""
    key_file: str = ""
    password: str = field(default="", repr=False)

    async def connect(self) -> "asyncssh.SSHClientConnection":
        """Return a connection. Raises ExportFailed, OSError, and what asyncssh raises."""
        await load()
        import asyncssh

        known, key = await OwnThread("seline-sftp").run(
            lambda: (self._known(), self._key()), limit_s=_LOADING_S
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncssh.connect(
                    self.host,
                    self.port,
                    username=self.user,
                    known_hosts=known,
                    client_keys=None if key is None else [key],
                    password=self.password or None,
                    config=None,
                    agent_path=None,
                    encryption_algs=CIPHERS,
                    keepalive_interval=KEEPALIVE_S,
                )
        except TimeoutError as error:
            raise asyncssh.ConnectionLost(f"no login within {CONNECT_S:g} s") from error
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
            if "host key" not in error.reason.lower():
                raise  # no cipher in common, for example
            raise self._refused(known) from error

    def _known(self) -> "asyncssh.SSHKnownHosts":
        import asyncssh

        if self.host_key:
            return asyncssh.import_known_hosts(f"* {self.host_key}\n")
        try:
            return asyncssh.read_known_hosts(os.path.expanduser(KNOWN_HOSTS))
        except (OSError, ValueError):
            return asyncssh.import_known_hosts("")

    def _key(self) -> "asyncssh.SSHKey | None":
        import asyncssh

        if not self.key_file:
            return None
        try:
            return asyncssh.read_private_key(self.key_file)
        except (OSError, asyncssh.KeyImportError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise ExportFailed(
                f"{self.key_file}, the `key_file` of {self.name}, cannot be used: {why}.",
                hint=f"Set `key_file` of {self.name} in `exports.destinations` to a private key "
                "without a passphrase, as `ssh-keygen -t ed25519 -N '' -f FILE` makes one, then "
                "restart; the server needs FILE.pub.",
            ) from error

    def _refused(self, known: "asyncssh.SSHKnownHosts") -> ExportFailed:
        """Return why the host's key is not accepted: no key is known, or another one."""
        import asyncssh

        port = "" if self.port == PORT else f"-p {self.port} "
        command = f"`ssh-keyscan {port}{shlex.quote(self.host)}`"
        hosts, authorities, *_ = asyncssh.match_known_hosts(known, self.host, "", self.port)
        if not hosts and not authorities:
            return ExportFailed(
                f"The host key of {self.host} is not known, so its server could be another one.",
                hint=f"{command} prints its keys. Compare one with what the owner of the server "
                f"publishes, set `host_key` of {self.name} in `exports.destinations` to its line, "
                "then restart.",
            )
        source = "`host_key`" if self.host_key else KNOWN_HOSTS
        return ExportFailed(
            f"{self.host} does not have the host key of {source}. Nothing was sent there.",
            hint=f"{command} prints the keys that it has now. If the owner of the server confirms "
            f"one of them, set `host_key` of {self.name} in `exports.destinations` to its line, "
            "then restart; else another server answers.",
        )


async def load() -> None:
    """Import asyncssh in a thread, because it takes 0.6 s."""
    if "asyncssh" not in sys.modules:
        thread = OwnThread("seline-sftp")
        await thread.run(lambda: importlib.import_module("asyncssh"), limit_s=_LOADING_S)
        logging.getLogger("asyncssh").setLevel(logging.WARNING)


def public_key(line: str) -> str:
    """Return the public key in a line of `ssh-keyscan`, of known_hosts or of a `.pub` file.

    Raises ValueError.
    """
    words = line.split()
    for kind, data in pairwise(words):
        try:
            decoded = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            continue
        if decoded.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
            return f"{kind} {data}"
    raise ValueError("it is no line of a public key, such as `ssh-ed25519 AAAA…`")
