"""The next steps about WebDAV and SFTP servers: each is taken as it is printed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import sftp, webdav
from seline.outbound.destinations.table import build_targets
from seline.ports.destinations import Listed, ObjectStore
from seline.settings import load_settings
from tests.command_line import line_at
from tests.destinations.failing import failure
from tests.hints.following import Step, run, shell

pytest.importorskip("asyncssh")
pytest.importorskip("wsgidav")
SSH_CLIENT = pytest.mark.skipif(
    shutil.which("ssh-keyscan") is None, reason="the programs of OpenSSH are not installed"
)
Follow = Callable[[str], Step]


@pytest.fixture
def dav(tmp_path: Path) -> Iterator[Any]:
    from tests.destinations.webdav_server import webdav_server

    (tmp_path / "files" / "top").mkdir(parents=True)
    with webdav_server(tmp_path / "files") as server:
        yield server


@pytest.fixture
async def ssh(tmp_path: Path) -> AsyncIterator[Any]:
    from tests.destinations.sftp_server import sftp_server

    (tmp_path / "ssh-files" / "top").mkdir(parents=True)
    async with sftp_server(tmp_path / "ssh-files") as server:
        yield server


def dav_table(dav: Any, **more: Any) -> dict[str, Any]:
    from tests.destinations.webdav_server import PASSWORD, USER

    given = {"name": "nas", "url": f"{dav.url}/top", "user": USER, "password": PASSWORD}
    return {**given, "timeout_s": 10, **more}


def ssh_table(ssh: Any, **more: Any) -> dict[str, Any]:
    from tests.destinations.sftp_server import PASSWORD, private_key, public_line

    given = {"name": "nas", "url": f"{ssh.url}/top", "password": PASSWORD}
    return {**given, "host_key": public_line(private_key()), "timeout_s": 10, **more}


def built(table: dict[str, Any]) -> ObjectStore:
    """Return the destination of a table of the settings."""
    given = {name: value for name, value in table.items() if value != ""}
    settings = load_settings(environ={}, arguments={"exports.destinations": [given]})
    [target] = build_targets(settings)
    return target.destination


async def works(table: dict[str, Any]) -> None:
    store = built(table)
    await store.put("marker", b"1")
    assert await store.list("") == [Listed("marker", 1)]
    await store.close()


async def refusal(table: dict[str, Any]) -> ExportFailed:
    store = built(table)
    error = await failure(store.put("marker", b"1"), str(table["password"]))
    await store.close()
    return error


def refused_settings(table: dict[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        built(table)
    return raised.value


@pytest.mark.follows("outbound/destinations/failures:timed_out")
async def test_a_slow_server_gets_more_time(dav: Any, follow: Follow) -> None:
    ends = threading.Event()

    def waits(environ: dict[str, Any], _: Any) -> None:
        if environ["REQUEST_METHOD"] == "PUT":
            assert ends.wait(20)

    dav.fault = waits
    error = await refusal(dav_table(dav, timeout_s=1))
    follow(error.hint).asks("raise `timeout_s` of nas in `exports.destinations`")
    threading.Timer(0.2, ends.set).start()
    await works(dav_table(dav, timeout_s=20))


@pytest.mark.follows("outbound/destinations/failures:unreachable")
async def test_the_address_of_a_server_is_corrected(dav: Any, follow: Follow) -> None:
    error = await refusal(dav_table(dav, url="webdav://127.0.0.1:1/top"))
    follow(error.hint).asks("the host and the port in `url` of nas")
    await works(dav_table(dav))


@pytest.mark.follows("outbound/destinations/failures:login_refused")
async def test_a_login_is_corrected(dav: Any, ssh: Any, follow: Follow) -> None:
    error = await refusal(dav_table(dav, password="a-wrong-one"))
    follow(error.hint).asks("Correct `user` and `password` of nas")
    await works(dav_table(dav))
    error = await refusal(ssh_table(ssh, password="a-wrong-one"))
    follow(error.hint).asks("Correct the user in `url`, `key_file` or `password` of nas")
    await works(ssh_table(ssh))


@pytest.mark.follows("outbound/destinations/failures:forbidden")
async def test_a_user_gets_the_rights(ssh: Any, follow: Follow) -> None:
    def denied(operation: str) -> None:
        if operation == "open":
            raise PermissionError(errno.EACCES, "no")

    ssh.fault = denied
    error = await refusal(ssh_table(ssh))
    follow(error.hint).asks("let the user of nas read and write there")
    ssh.fault = None
    await works(ssh_table(ssh))


@pytest.mark.follows("outbound/destinations/failures:top_missing")
async def test_a_folder_that_is_missing_is_made(dav: Any, tmp_path: Path, follow: Follow) -> None:
    (dav.folder / "top").rmdir()
    [command] = follow((await refusal(dav_table(dav))).hint).commands()
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([dav_table(dav)]))
    assert line("save", "a.json", stdin="[1]").code == 0
    ran = run(line, command)
    assert ran.code == 0, ran.err

    store = built(dav_table(dav))
    await store.put("new", b"1")
    await store.close()
    assert (dav.folder / "top" / "new").exists()


@pytest.mark.follows("outbound/destinations/failures:full")
async def test_space_is_freed(dav: Any, follow: Follow) -> None:
    from tests.destinations.webdav_server import refusing

    dav.fault = refusing("507 Insufficient Storage", "PUT")
    follow((await refusal(dav_table(dav))).hint).asks("Free space there", "lower `keep` of nas")
    dav.fault = None
    await works(dav_table(dav, keep=1))


@pytest.mark.follows("outbound/destinations/webdav:_resources")
async def test_the_path_behind_a_proxy_is_named(dav: Any, follow: Follow) -> None:
    (dav.folder / "outside").mkdir()

    def rewrites(environ: dict[str, Any], _: Any) -> None:
        environ["PATH_INFO"] = environ["PATH_INFO"].replace("/outside", "/top")

    dav.fault = rewrites
    store = built(dav_table(dav, url=f"{dav.url}/outside"))
    for call in (store.list(""), store.put("marker", b"1")):
        error = await failure(call)
    await store.close()
    follow(error.hint).asks("name the path behind it in `url` of nas")
    await works(dav_table(dav))


@pytest.mark.follows(
    "outbound/destinations/webdav:_refused",
    "outbound/destinations/webdav:_refused#2",
    "outbound/destinations/webdav:_refused#3",
)
async def test_what_a_server_refuses_is_allowed_there(dav: Any, follow: Follow) -> None:
    from tests.destinations.webdav_server import refusing

    asked = {
        "302 Elsewhere": "Set `url` of nas in `exports.destinations` to the address it leads to",
        "405 Not Allowed": "allow PUT, DELETE, MKCOL, MOVE and PROPFIND there",
        "413 Too Large": "Raise the limit of a request's body on the server",
    }
    for status, phrase in asked.items():
        dav.fault = refusing(status, "PUT")
        follow((await refusal(dav_table(dav))).hint).asks(phrase)
        dav.fault = None
        await works(dav_table(dav))


LISTS: str = """
import asyncio, sys
from seline.outbound.destinations.webdav import WebDav

async def main():
    store = WebDav("nas", sys.argv[1], user="seline", password=sys.argv[2], timeout_s=10)
    try:
        print(await store.list(""))
    except Exception as error:
        print(error, error.hint, sep="|")
    await store.close()

asyncio.run(main())
"""


def certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate of an authority of one's own for 127.0.0.1; return the two paths."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    shell(folder, command)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.follows("outbound/destinations/webdav:_certificate_refused")
def test_an_authority_of_ones_own_is_named(tmp_path: Path, follow: Follow) -> None:
    from tests.destinations.webdav_server import PASSWORD, webdav_server

    (tmp_path / "top").mkdir()
    paths = certificate(tmp_path)

    def listed(url: str, **environ: str) -> str:
        command = [sys.executable, "-c", LISTS, f"{url}/top", PASSWORD]
        given = {**os.environ, **environ}
        return subprocess.run(
            command, env=given, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    with webdav_server(tmp_path, certificate=paths) as server:
        url = server.url.replace("webdav://", "webdavs://")
        message, _, hint = listed(url).partition("|")
        assert "its certificate is refused: self-signed certificate" in message
        follow(hint).asks("the host in `url` of nas", "set SSL_CERT_FILE to its certificate")
        assert listed(url, SSL_CERT_FILE=paths[0]) == "[]"


@pytest.mark.follows(
    "outbound/destinations/webdav:build",
    "outbound/destinations/webdav:build#2",
    "outbound/destinations/webdav:build#3",
)
async def test_the_settings_of_webdav_are_corrected(dav: Any, follow: Follow) -> None:
    for url in (f"webdav://seline@{dav.url[9:]}/top", f"{dav.url}/top?a=1", "webdav://a b/top"):
        error = refused_settings(dav_table(dav, url=url))
        follow(error.hint).asks("webdavs://HOST:PORT/PATH", "the login as `user` and `password`")
    error = refused_settings(dav_table(dav, user="a:b"))
    follow(error.hint).asks("Set `user` to a name without a colon")
    error = refused_settings(dav_table(dav, url="webdav://nas.example/top"))
    follow(error.hint).asks("an address with webdavs://", "`allow_http = true`")
    for table in (
        dav_table(dav),
        dav_table(dav, url="webdavs://nas.example/top"),
        dav_table(dav, url="webdav://nas.example:80/top", allow_http=True),
        dav_table(dav, url="webdav://[::1]:80/top"),
        dav_table(dav, url="webdav://localhost/top"),
    ):
        assert isinstance(built(table), webdav.WebDav)


@pytest.mark.follows(
    "outbound/destinations/sftp:build",
    "outbound/destinations/sftp:build#2",
    "outbound/destinations/sftp:build#3",
)
async def test_the_settings_of_sftp_are_corrected(ssh: Any, follow: Follow) -> None:
    for url in ("sftp://127.0.0.1/top", "sftp://a@host:99999/top", "sftp://a@host/top#1"):
        error = refused_settings(ssh_table(ssh, url=url))
        follow(error.hint).asks("sftp://USER@HOST:PORT/PATH")
    error = refused_settings(ssh_table(ssh, password=""))
    follow(error.hint).asks("`key_file`, the path of a private key, or its `password`")
    assert isinstance(built(ssh_table(ssh, password="", key_file="/key")), sftp.Sftp)
    error = refused_settings(ssh_table(ssh, host_key="not a key"))
    follow(error.hint).asks("a line that `ssh-keyscan 127.0.0.1` prints")
    await works(ssh_table(ssh))


@pytest.mark.follows("outbound/destinations/sftp:_cannot_replace")
async def test_a_server_that_can_replace_is_used(ssh: Any, follow: Follow) -> None:
    import asyncssh

    def unsupported(operation: str) -> None:
        if operation == "posix_rename":
            raise asyncssh.SFTPOpUnsupported("no")

    (ssh.folder / "top" / "marker").write_bytes(b"0")
    ssh.fault = unsupported
    follow((await refusal(ssh_table(ssh))).hint).asks("posix-rename@openssh.com")
    ssh.fault = None
    await works(ssh_table(ssh))


@SSH_CLIENT
@pytest.mark.follows("outbound/destinations/ssh_login:_key")
async def test_a_private_key_without_a_passphrase_is_made(
    ssh: Any, tmp_path: Path, follow: Follow
) -> None:
    missing = str(tmp_path / "key")
    step = follow((await refusal(ssh_table(ssh, key_file=missing))).hint)
    [command] = [quoted for quoted in step.quoted if quoted.startswith("ssh-keygen")]
    shell(tmp_path, command.replace("FILE", "key"))
    ssh.public_key = (tmp_path / "key.pub").read_text()

    store = built(ssh_table(ssh, key_file=missing, password=""))
    assert await store.list("") == []
    await store.close()


@SSH_CLIENT
@pytest.mark.follows(
    "outbound/destinations/ssh_login:_refused", "outbound/destinations/ssh_login:_refused#2"
)
async def test_the_key_of_a_host_is_read_and_set(
    ssh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    import asyncio

    import asyncssh

    from tests.destinations.sftp_server import public_line

    monkeypatch.setenv("HOME", str(tmp_path))
    another = public_line(asyncssh.generate_private_key("ssh-ed25519"))
    for host_key in ("", another):
        step = follow((await refusal(ssh_table(ssh, host_key=host_key))).hint)
        step.asks("set `host_key` of nas in `exports.destinations` to its line")
        printed = await asyncio.to_thread(shell, tmp_path, step.quoted[0])
        [line] = [line for line in printed.splitlines() if not line.startswith("#")]
        await works(ssh_table(ssh, host_key=line))
