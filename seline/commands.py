"""The control socket in the data directory: how commands reach the process that holds it (V10).

Only its owner may open it. A process with `seline serve` or `serving()` listens on it in its event
loop; `Commands` listens for one that only opened the volume.
"""

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Generator
from functools import partial
from importlib import import_module
from typing import Final, TypeAlias

from seline.errors import StoreClosed

CONTROL_SOCKET: Final = "control.sock"
STOP_S: Final = 10.0
"""How long a stop waits for the commands that are being answered."""
RETRY_S: Final = 1.0
"""The pause after an error, before commands are answered again."""
RemoveSocket: TypeAlias = Callable[[], None]
"""Removes the file of a socket that this process created, unless another has replaced it."""
_ADDRESS_BYTES_MAX: Final = 107
"""The longest path that the address of a Unix socket can hold."""
_SERVER: Final = "seline.server"
_log = logging.getLogger("seline.commands")
_listening: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Commands:
    """Answers commands on the control socket, in a thread, until `stop`.

    The web server is imported when the first command connects: a bot that needs none loads none.
    """

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._pid = os.getpid()
        self._sockets: tuple[socket.socket, socket.socket, socket.socket] | None = None
        """The one that listens, and a pair: shutting down its first ends `serve`."""
        self._remove_socket: RemoveSocket = lambda: None
        self._ended = threading.Event()

    def listen(self) -> None:
        """Let commands connect; log why not, for example for a volume without room for the file."""
        try:
            with contextlib.ExitStack() as undo:
                listening, self._remove_socket = listen_in(self._data_dir)
                undo.enter_context(listening)
                undo.callback(self._remove_socket)
                self._sockets = listening, *socket.socketpair()
                undo.pop_all()
        except OSError as error:
            _log.warning("no control socket: %s; commands cannot reach this process", error)

    def serve(self, opened: object | None) -> None:
        """Answer commands with an open Seline, if it could be opened. Blocks until `stop`."""
        if self._sockets is None:
            return
        listening, wake, woken = self._sockets
        try:
            with listening, wake, woken:
                if opened is not None:
                    self._answer_until_stop(opened, listening, woken)
        except OSError as error:
            _log.warning("commands can no longer reach this process: %s", error)
        finally:
            self._remove_socket()
            self._ended.set()

    def stop(self) -> None:
        """End `serve`, and wait until the commands in progress are answered; idempotent.

        The store is closing: it carries out their queued changes, and refuses their other calls.
        """
        if self._sockets is None or self._pid != os.getpid():
            return  # a forked child has the sockets of its parent, and not its thread
        with contextlib.suppress(OSError):
            self._sockets[1].shutdown(socket.SHUT_WR)
        self._ended.wait(STOP_S)

    def _answer_until_stop(
        self, opened: object, listening: socket.socket, woken: socket.socket
    ) -> None:
        """Answer commands; after an error log it, unless it was the last one, and try again."""
        reported = ""
        while _has_connected(listening, woken):
            try:
                self._answer(opened, listening, woken)
            except StoreClosed:
                return  # a command connected during the close
            except Exception as error:  # noqa: BLE001  # the bot works on; commands are tried again
                described = f"{type(error).__name__}: {error}"
                if described != reported:
                    reported = described
                    _log.warning("could not answer commands, trying again: %s", described)
                _pause(woken)

    def _answer(self, opened: object, listening: socket.socket, woken: socket.socket) -> None:
        async def stopped() -> None:
            woken.setblocking(False)
            await asyncio.get_running_loop().sock_recv(woken, 1)
            self._remove_socket()  # before the listening ends, so that no new client connects

        answer = import_module(_SERVER).answer_commands
        with (
            _registered(listening.dup()) as control,  # the server closes it
            asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        ):
            runner.run(answer(opened, control, until=stopped))


def _has_connected(listening: socket.socket, woken: socket.socket) -> bool:
    """Wait for either; return whether a command has connected and no stop has begun."""
    poll = select.poll()
    for waited in (listening, woken):
        poll.register(waited, select.POLLIN)
    return woken.fileno() not in dict(poll.poll())


def _pause(woken: socket.socket) -> None:
    """Wait for RETRY_S, or until a stop."""
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.poll(RETRY_S * 1000)


def listen_in(data_dir: str) -> tuple[socket.socket, RemoveSocket]:
    """Listen on the control socket of a data directory that this process holds. Raises OSError."""
    file = control_socket_path(data_dir)
    with addressable(file) as path:
        return listen_at(path, file=file)


def listen_at(path: str, *, file: str | None = None) -> tuple[socket.socket, RemoveSocket]:
    """Listen on a Unix socket that only its owner may open. Raises OSError.

    Replaces one that a crash left. What is returned removes it, from `file` if given.
    """
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.setblocking(False)
        os.fchmod(listening.fileno(), 0o600)  # before bind, which gives the file this mode
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            os.unlink(path)
            listening.bind(path)
        listening.listen()
        return _registered(listening), partial(_remove, file or path, _identity(path))
    except BaseException:
        listening.close()
        raise


def _registered(listening: socket.socket) -> socket.socket:
    """Let a forked child close a socket that listens."""
    _listening.add(listening)
    return listening


def control_socket_path(data_dir: str) -> str:
    """Return the path of the control socket."""
    return os.path.join(data_dir, ".seline", CONTROL_SOCKET)


def control_socket(data_dir: str) -> contextlib.AbstractContextManager[str]:
    """Give a path of the control socket that a socket's address can hold."""
    return addressable(control_socket_path(data_dir))


@contextlib.contextmanager
def addressable(file: str) -> Generator[str]:
    """Give a path of a socket's file that the address of a socket can hold, in this process."""
    directory, name = os.path.split(os.path.abspath(file))
    path = os.path.join(directory, name)
    if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX or not os.path.isdir(directory):
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _remove(path: str, identity: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        if _identity(path) == identity:
            os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino


def _close_in_child() -> None:
    """Close the sockets in a forked child, where commands would connect and nothing answers."""
    for listening in list(_listening):
        with contextlib.suppress(OSError):
            os.close(listening.detach())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
