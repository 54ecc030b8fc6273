"""Test that copies of a volume go to a server and come back, through the whole product."""

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.errors import ExportFailed
from seline.library import Seline
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.export_folders import ExportFolders
from seline.operations.restore import restore_copy
from seline.ports.destinations import Target
from seline.ports.sealing import UNSEALED
from seline.settings import Settings, load_settings
from tests.azure_server import azure_server
from tests.command_line import Ran, line_at
from tests.destinations.azurite import azurite
from tests.destinations.kinds import KINDS, azure_table, gcs_table, kinds
from tests.gcs_server import gcs_server

OF_SERVERS = {"webdav", "sftp", "nginx", "sshd", "azurite"}
SERVERS = [kind for kind in kinds() if kind.values[0] in OF_SERVERS]


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_volume_is_exported_mirrored_and_restored(kind: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    async with KINDS[kind].opened(tmp_path / "server") as store:
        async with open_seline(tmp_path / "data") as seline:
            operations = Operations(seline.store, [Target(store, 7, mode="both")], version="test")
            for number in range(20):
                await seline.data.save_json(f"{number}.json", {"n": number})
            assert "read back" in await operations.exports.run()
            assert "nothing changed" in await operations.exports.run()
            await operations.mirrors.run()
            await seline.data.save_json("7.json", {"n": "changed"})
            await operations.mirrors.run()
        assert len(await ExportFolders(store).complete()) == 1

        copy = await Copies(store, UNSEALED).find()
        async with open_seline(tmp_path / "another") as other:
            await restore_copy(other.store, copy)
            assert len(await other.data.documents()) == 20
            assert await other.data.load_json("7.json") == {"n": "changed"}
        await operations.mirrors.close()


@pytest.mark.parametrize("kind", ["webdav", "sftp"])
async def test_an_empty_volume_is_restored_at_the_start(kind: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    async with KINDS[kind].opened(tmp_path / "server") as store:
        table = {"name": "nas", "url": store.where, **LOGINS[kind]()}

        def settings(directory: str) -> Settings:
            return load_settings(
                environ={"SELINE_EXPORTS__DESTINATIONS": json.dumps([table])},
                arguments={"storage.data_dir": str(tmp_path / directory)},
            )

        async with open_seline(settings=settings("data")) as seline:
            await seline.data.save_json("a.json", {"n": 1})
            await mirrored(seline)
        async with open_seline(settings=settings("another")) as seline:
            assert await seline.data.load_json("a.json") == {"n": 1}
            await seline.data.save_json("a.json", {"n": 2})
            await mirrored(seline)


@asynccontextmanager
async def bucket_table(kind: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the table of a bucket at a stand-in, or at Azurite."""
    pytest.importorskip("obstore")
    if kind == "gcs":
        async with gcs_server() as google:
            yield gcs_table(google.url)
    elif kind == "azure":
        async with azure_server() as azure:
            yield azure_table(azure.url)
    else:
        async with azurite() as table:
            yield table


@pytest.mark.parametrize("kind", ["gcs", "azure", pytest.param("azurite", marks=pytest.mark.prove)])
async def test_a_volume_that_is_lost_is_restored_from_a_bucket(kind: str, tmp_path: Path) -> None:
    async with bucket_table(kind) as table:
        settings = load_settings(
            environ={"SELINE_EXPORTS__DESTINATIONS": json.dumps([table])},
            arguments={"storage.data_dir": str(tmp_path / "data")},
        )
        async with open_seline(settings=settings) as seline:
            await seline.data.save_json("a.json", {"n": 1})
            await mirrored(seline)
        shutil.rmtree(tmp_path / "data")
        async with open_seline(settings=settings) as seline:
            assert await seline.data.load_json("a.json") == {"n": 1}


async def mirrored(seline: Seline) -> None:
    """Mirror what the settings name, once."""
    targets = seline.exports.destinations.targets
    operations = Operations(seline.store, targets, version="test")
    assert "1 document" in await operations.mirrors.run()
    await operations.mirrors.close()


def webdav_login() -> dict[str, Any]:
    from tests.destinations.webdav_server import PASSWORD, USER

    return {"user": USER, "password": PASSWORD}


def sftp_login() -> dict[str, Any]:
    from tests.destinations.sftp_server import PASSWORD, private_key, public_line

    return {"password": PASSWORD, "host_key": public_line(private_key())}


LOGINS: dict[str, Callable[[], dict[str, Any]]] = {"webdav": webdav_login, "sftp": sftp_login}


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["webdav", "sftp"])
async def test_a_copy_on_a_server_is_drilled_and_fetched_on_another_machine(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    async with KINDS[kind].opened(tmp_path / "server") as store:
        table = {"name": "nas", "url": store.where, **LOGINS[kind]()}
        line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))

        async def run(*arguments: str) -> Ran:
            ran = await asyncio.to_thread(line, *arguments)
            assert (ran.code, "Unclosed" in ran.err) == (0, False), ran.err + ran.out
            return ran

        await asyncio.to_thread(line, "save", "a.json", stdin="[1]")
        await run("jobs", "run", "mirror")
        assert "restored, and compared" in (await run("jobs", "run", "drill")).out
        shutil.rmtree(line.data)
        await run("drill", "nas")
        assert "by person at" in (await run("exports", "list", "nas")).out
        await run("exports", "fetch", "nas", "back")
        assert json.loads((tmp_path / "back" / "a.json").read_bytes()) == [1]


HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ91YtX+RY97k8Xxxz0aiCxSVfckoQkcDXvkpMrci/QN"
OPTIONS: dict[str, dict[str, Any]] = {
    "webdav://127.0.0.1": {"user": "bot", "password": "a-password"},
    "sftp://bot@127.0.0.1": {"password": "a-password", "host_key": HOST_KEY},
}


@pytest.mark.parametrize("address", OPTIONS)
async def test_a_server_that_never_answers_delays_no_save_and_no_other_destination(
    address: str, tmp_path: Path
) -> None:
    if address.startswith("sftp"):
        pytest.importorskip("asyncssh")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{address}:{silent.getsockname()[1]}/top"
        hangs = {"name": "gone", "url": url, "mode": "export", "timeout_s": 1, **OPTIONS[address]}
        nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "same_disk": True}
        settings = load_settings(
            environ={"SELINE_EXPORTS__DESTINATIONS": json.dumps([hangs, nas])},
            arguments={"storage.data_dir": str(tmp_path / "data"), "exports.restore_from": "off"},
        )
        async with open_seline(settings=settings) as seline:
            await seline.data.save_json("a.json", [1])
            run = asyncio.create_task(seline.exports.run())
            while not [*(tmp_path / "nas").glob("*/manifest.json")]:
                assert not run.done()
                await asyncio.sleep(0.01)
            await seline.data.save_json("a.json", [2])
            with pytest.raises(ExportFailed, match=r"gone: .* took over 1 s.*[.;] nas: .*read"):
                await run
