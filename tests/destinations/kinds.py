"""The kinds of destinations, each on an empty place: a new kind is one more row of `KINDS`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from _pytest.mark.structures import ParameterSet

from seline.outbound.destinations.folder import Folder
from seline.outbound.destinations.s3 import S3
from seline.outbound.destinations.sftp import Sftp
from seline.outbound.destinations.table import build_targets
from seline.outbound.destinations.webdav import WebDav
from seline.ports.destinations import ObjectStore
from seline.settings import load_settings
from tests import azure_server as azure
from tests import gcs_server as gcs
from tests import s3_server as s3
from tests.destinations import chat_server as chats
from tests.destinations import real_server as real
from tests.destinations.azurite import azurite

LIMIT_S: Final = 20.0


@asynccontextmanager
async def folder(path: Path) -> AsyncIterator[ObjectStore]:
    yield Folder("nas", str(path / "top"), timeout_s=LIMIT_S)


@asynccontextmanager
async def webdav_store(path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("wsgidav")
    from tests.destinations import webdav_server as webdav

    with webdav.webdav_server(path) as server:
        store = WebDav(
            "nas",
            f"{server.url}/top",
            user=webdav.USER,
            password=webdav.PASSWORD,
            timeout_s=LIMIT_S,
        )
        yield store
        await store.close()


@asynccontextmanager
async def sftp_store(path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("asyncssh")
    from tests.destinations import sftp_server as sftp

    async with sftp.sftp_server(path) as server:
        host_key = sftp.public_line(sftp.private_key())
        store = Sftp(
            "nas", f"{server.url}/top", host_key=host_key, password=sftp.PASSWORD, timeout_s=LIMIT_S
        )
        yield store
        await store.close()


@asynccontextmanager
async def s3_store(path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("obstore")
    async with s3.s3_server() as server:
        yield S3(
            "nas",
            f"s3://{s3.BUCKET}/prefix",
            endpoint=server.url,
            access_key_id=s3.KEY_ID,
            secret_access_key=s3.SECRET,
            timeout_s=LIMIT_S,
        )


@asynccontextmanager
async def gcs_store(_path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("obstore")
    async with gcs.gcs_server() as server:
        yield built(gcs_table(server.url))


def gcs_table(endpoint: str, **options: Any) -> dict[str, Any]:
    """Return the table of a bucket at the stand-in of Google Cloud Storage."""
    given = {"name": "nas", "url": f"gs://{s3.BUCKET}/prefix", "endpoint": endpoint}
    return {**given, "service_account": gcs.service_account(), "timeout_s": LIMIT_S, **options}


@asynccontextmanager
async def azure_store(_path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("obstore")
    async with azure.azure_server() as server:
        yield built(azure_table(server.url))


def azure_table(endpoint: str, **options: Any) -> dict[str, Any]:
    """Return the table of a container at the stand-in of Azure."""
    given = {"name": "nas", "url": f"az://{s3.BUCKET}/prefix", "endpoint": endpoint}
    login = {"account": azure.ACCOUNT, "account_key": azure.KEY}
    return {**given, **login, "timeout_s": LIMIT_S, **options}


@asynccontextmanager
async def azurite_store(_path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("obstore")
    async with azurite() as table:
        yield built({**table, "timeout_s": LIMIT_S})


@asynccontextmanager
async def nginx_store(path: Path) -> AsyncIterator[ObjectStore]:
    async with real.nginx(path) as server:
        store = webdav_at(server)
        yield store
        await store.close()


def webdav_at(server: real.RealServer, *, top: str = "top", timeout_s: float = LIMIT_S) -> WebDav:
    url = f"webdav://127.0.0.1:{server.port}/{top}"
    return WebDav("nas", url, user=real.USER, password=real.PASSWORD, timeout_s=timeout_s)


@asynccontextmanager
async def sshd_store(path: Path) -> AsyncIterator[ObjectStore]:
    pytest.importorskip("asyncssh")
    async with real.sshd(path) as server:
        store = sftp_at(server, path)
        yield store
        await store.close()


def sftp_at(server: real.RealServer, path: Path, *, timeout_s: float = LIMIT_S) -> Sftp:
    return Sftp(
        "nas",
        f"{real.sshd_url(server)}/top",
        host_key=(path / "home" / "host.pub").read_text(),
        key_file=str(path / "home" / "user"),
        timeout_s=timeout_s,
    )


def chat_table(kind: str, server: str, **options: Any) -> dict[str, Any]:
    """Return the table of a chat at the stand-in."""
    token = chats.TELEGRAM_TOKEN if kind == "telegram" else chats.DISCORD_TOKEN
    api = server if kind == "telegram" else f"{server}/api/v10"
    given = {"name": "nas", "url": f"{kind}://{chats.CHAT}", "token": token, "api": api}
    return {**given, "timeout_s": LIMIT_S, **options}


def built(table: dict[str, Any]) -> ObjectStore:
    """Return the destination of a table of the settings; everything is encrypted."""
    arguments = {"exports.destinations": [table], "exports.passphrase": "a-long-enough-passphrase"}
    [target] = build_targets(load_settings(environ={}, arguments=arguments))
    return target.destination


@asynccontextmanager
async def chat_store(kind: str, _path: Path) -> AsyncIterator[ObjectStore]:
    async with chats.chat_server() as server:
        store = built(chat_table(kind, server.url))
        yield store
        await store.close()


class Kind(NamedTuple):
    """How a destination is opened.

    `has_top`: it is a folder that must be made first. `is_real`: its server is another program.
    """

    opened: Callable[[Path], AbstractAsyncContextManager[ObjectStore]]
    has_top: bool = True
    is_real: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "folder": Kind(folder),
    "s3": Kind(s3_store, has_top=False),
    "gcs": Kind(gcs_store, has_top=False),
    "azure": Kind(azure_store, has_top=False),
    "webdav": Kind(webdav_store),
    "sftp": Kind(sftp_store),
    "telegram": Kind(partial(chat_store, "telegram"), has_top=False),
    "discord": Kind(partial(chat_store, "discord"), has_top=False),
    "nginx": Kind(nginx_store, is_real=True),
    "sshd": Kind(sshd_store, is_real=True),
    "azurite": Kind(azurite_store, has_top=False, is_real=True),
}


def kinds() -> list[ParameterSet]:
    """Return the names of the kinds as parameters; another program runs in the long tier."""
    return [
        pytest.param(name, marks=[pytest.mark.prove] if kind.is_real else [])
        for name, kind in KINDS.items()
    ]
