"""A WebDAV server in this process: WsgiDAV, with faults on request."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

USER, PASSWORD = "seline", "a-password-of-some-length"
Fault = Callable[[dict[str, Any], Any], Iterable[bytes] | None]
"""A fault answers a request itself, or returns None to have the server answer it."""


class WebDavServer:
    """A server on a free port of 127.0.0.1 that keeps its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: Fault | None = None
        self.requests: list[str] = []
        """The methods of the requests so far."""
        app = WsgiDAVApp(
            {
                "provider_mapping": {"/": FilesystemProvider(str(folder))},
                "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
                "http_authenticator": {"accept_digest": False, "default_to_digest": False},
                "dir_browser": {"enable": False},
                "lock_storage": False,
                "property_manager": False,
                "verbose": 0,
                "logging": {"enable": False},
            }
        )

        writing = threading.Lock()

        def answer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            self.requests.append(environ["REQUEST_METHOD"])
            answered = self.fault(environ, start_response) if self.fault else None
            if answered is not None:
                yield from answered
                return
            # What a client sends again is not mixed with the upload that it gave up.
            with writing if environ["REQUEST_METHOD"] == "PUT" else nullcontext():
                yield from app(environ, start_response)

        self.server = wsgi.Server(
            ("127.0.0.1", 0), answer, numthreads=4, timeout=5, shutdown_timeout=1
        )
        self.server.expiration_interval = 0.02  # it stops within this time
        self.server.error_log = lambda *_, **__: None  # a client that has gone is no failure

    @property
    def url(self) -> str:
        return f"webdav://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self.server.bind_addr[1])


@contextmanager
def webdav_server(
    folder: Path, *, certificate: tuple[str, str] | None = None
) -> Iterator[WebDavServer]:
    """Serve a folder until the block ends, over TLS with the paths of a certificate and its key."""
    logging.getLogger("wsgidav").setLevel(logging.CRITICAL)
    serving = WebDavServer(folder)
    if certificate is not None:
        serving.server.ssl_adapter = BuiltinSSLAdapter(*certificate)
    serving.server.prepare()
    thread = threading.Thread(target=serving.server.serve, daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        serving.server.stop()
        thread.join(5)


def refusing(status: str, method: str = "") -> Fault:
    """Return a fault that answers each request, or those of one method, with a status."""

    def fault(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if method and environ["REQUEST_METHOD"] != method:
            return None
        start_response(status, [("Content-Length", "0")])
        return [b""]

    return fault
