"""Test previews: each is decided by the code that then acts, and changes nothing."""

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seline.server import serving
from tests.http_client import Client, settings_for

pytestmark = pytest.mark.usefixtures("files_at_once")

NAME = "user_profile.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[Client]:
    async with serving(settings_for(directory)) as server, aiohttp.ClientSession() as session:
        await server.acquired()
        yield Client(session, server.address)


def contents_of(directory: Path) -> dict[str, bytes]:
    """Return every file of the volume but Seline's own state."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".seline" not in path.parts and path.name != "metadata.json"
    }


def break_file(path: Path) -> None:
    """Overwrite a file with zeros and keep its modification time."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def three_versions(client: Client, _directory: Path) -> None:
    for number in range(3):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})


async def broken_without_backup(client: Client, directory: Path) -> None:
    (directory / NAME).write_text("{ no JSON")
    os.utime(directory / NAME, (1e9, 1e9))
    await client.call("POST", "/verify")


async def broken_backups(client: Client, directory: Path) -> None:
    await three_versions(client, directory)
    for path in (directory / "backups").iterdir():
        break_file(path)


async def nothing(_client: Client, _directory: Path) -> None:
    return


async def seven_versions(client: Client, directory: Path) -> None:
    for number in range(7):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})
    backups = directory / "backups"
    for number in range(3):
        copied = backups / f"user_profile_2020010{number + 1}_000000.json"
        copied.write_text(json.dumps({"copied": number}))


RESTORE = ("POST", "/restore-backup", {"filename": NAME})
IMPORT = ("POST", "/import?mode=replace", {"files": {"a.json": 1}})
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "restore": (three_versions, RESTORE),
    "restore with every backup broken": (broken_backups, RESTORE),
    "restore without a backup": (nothing, RESTORE),
    "restore over a broken document": (broken_without_backup, RESTORE),
    "restore of a backup by name that does not exist": (
        three_versions,
        ("POST", "/restore-backup", {"filename": NAME, "backup": "user_profile_1.json"}),
    ),
    "restore of a backup with an empty name": (
        three_versions,
        ("POST", "/restore-backup", {"filename": NAME, "backup": ""}),
    ),
    "delete": (three_versions, ("DELETE", f"/documents/{NAME}")),
    "delete of a broken document": (broken_without_backup, ("DELETE", f"/documents/{NAME}")),
    "delete of a missing document": (nothing, ("DELETE", f"/documents/{NAME}")),
    "purge": (three_versions, ("DELETE", f"/documents/{NAME}?purge=true")),
    "purge of a missing document": (nothing, ("DELETE", f"/documents/{NAME}?purge=true")),
    "reset": (broken_without_backup, ("POST", f"/documents/{NAME}/reset")),
    "reset of a sound document": (three_versions, ("POST", f"/documents/{NAME}/reset")),
    "reset of a missing document": (nothing, ("POST", f"/documents/{NAME}/reset")),
    "prune": (seven_versions, ("POST", "/prune")),
    "import": (three_versions, IMPORT),
    "import of a wrong name": (nothing, ("POST", "/import", {"files": {"a": 1}})),
}
ONE_OF_THEM_KNOWS = {"undo", "backup", "difference", "dry_run", "message", "took_ms"}


def comparable(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a preview and the act must have in common."""
    fields = {name: value for name, value in answer.items() if name not in ONE_OF_THEM_KNOWS}
    return {"status": status, **fields}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", sorted(CASES))
async def test_a_preview_answers_as_the_act_and_changes_nothing(
    client: Client, directory: Path, case: str
) -> None:
    prepare, (method, path, *body) = CASES[case]
    await prepare(client, directory)
    before = contents_of(directory)

    preview_path = f"{path}{'&' if '?' in path else '?'}dry_run=true"
    status, preview, _ = await client.call(method, preview_path, *body)
    assert contents_of(directory) == before
    act_status, act, _ = await client.call(method, path, *body)

    assert comparable(status, preview) == comparable(act_status, act)
    assert set(preview) == set(act)
    if status == 200:
        assert (preview["dry_run"], act["dry_run"]) == (True, False)
        assert preview.get("undo", []) == []


async def test_a_preview_names_the_backup_that_the_restore_uses(
    client: Client, directory: Path
) -> None:
    await three_versions(client, directory)
    newest, older = sorted((directory / "backups").iterdir(), reverse=True)
    break_file(newest)

    _, preview, _ = await client.call("POST", "/restore-backup?dry_run=true", {"filename": NAME})

    assert preview["restored"]["backup"] == older.name
    assert preview["kept_in"] == "backups"
    assert preview["undo"] == []
    assert "would be restored" in preview["message"]
