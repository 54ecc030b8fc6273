"""Restore one value of a document: the rest stays, and a dry run shows what would change."""

from pathlib import Path
from typing import Any

import pytest

from seline.domain.json_pointer import replaced_at, value_at
from seline.errors import PathNotFound
from tests.command_line import Line, line_at
from tests.http_client import NAME, Client

OLD = {"name": "Alex", "bag": {"a/b": [1, 2**80], "": 0}, "gone": {"x": 1}}
NEW = {"name": "Sam", "bag": {"a/b": [5], "": 0}}


async def backup_of(client: Client) -> str:
    """Save two contents; return the backup of the first."""
    await client.call("PUT", f"/documents/{NAME}", OLD)
    await client.call("PUT", f"/documents/{NAME}", NEW)
    listed = (await client.call("GET", f"/documents/{NAME}/backups"))[1]["backups"]
    return str(listed[0]["name"])


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("/name", {**NEW, "name": "Alex"}),
        ("/bag/a~1b/0", {**NEW, "bag": {"a/b": [1], "": 0}}),
        ("/bag/a~1b/1", {**NEW, "bag": {"a/b": [5, 2**80], "": 0}}),
        ("/gone", {**NEW, "gone": {"x": 1}}),
        ("", OLD),
    ],
)
async def test_one_value_is_restored_and_the_restore_can_be_undone(
    client: Client, path: str, after: Any
) -> None:
    body = {"filename": NAME, "backup": await backup_of(client), "path": path}

    _, preview, _ = await client.call("POST", "/restore-backup?dry_run=true", body)
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == NEW
    status, done, headers = await client.call("POST", "/restore-backup", body)

    assert (status, done["kept_in"], done["restored"]["path"]) == (200, "backups", path)
    _, value, read = await client.call("GET", f"/documents/{NAME}")
    assert (value, read["ETag"]) == (after, headers["ETag"])
    _, compared, _ = await client.call(
        "GET", f"/documents/{NAME}/diff?from={done['undo'][0]['body']['backup']}&to=current"
    )
    assert preview["difference"] == {name: compared[name] for name in preview["difference"]}
    assert preview["difference"]["changes"]
    assert done["difference"] is None
    await client.call("POST", "/restore-backup", done["undo"][0]["body"])
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == NEW


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "path_not_found"),
        ("/bag/a~1b/7", 404, "path_not_found"),
        ("/bag/a~1b/01", 404, "path_not_found"),
        ("/bag/a~1b/-", 404, "path_not_found"),
        ("/gone/x", 404, "path_not_found"),
        ("name", 422, "invalid_request"),
        ("/a~2", 422, "invalid_request"),
    ],
)
async def test_a_path_that_cannot_be_restored_is_refused(
    client: Client, path: str, status: int, code: str
) -> None:
    body = {"filename": NAME, "backup": await backup_of(client), "path": path}

    for query in ("?dry_run=true", ""):
        answered, problem, _ = await client.call("POST", f"/restore-backup{query}", body)
        assert (answered, problem["code"], bool(problem["hint"])) == (status, code, True)
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == NEW


async def test_a_path_needs_the_name_of_a_backup(client: Client) -> None:
    await backup_of(client)
    body = {"filename": NAME, "path": "/name"}
    assert (await client.call("POST", "/restore-backup", body))[1]["fields"] == ["backup"]


async def test_a_restore_is_judged_under_if_match(client: Client) -> None:
    backup = await backup_of(client)
    _, _, read = await client.call("GET", f"/documents/{NAME}")
    body = {"filename": NAME, "backup": backup, "path": "/name"}

    stale = await client.call("POST", "/restore-backup", body, If_Match='"0000"')
    created = await client.call("POST", "/restore-backup", body, If_None_Match="*")
    assert (stale[0], created[0]) == (412, 412)
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == NEW

    done = await client.call("POST", "/restore-backup", body, If_Match=read["ETag"])
    assert done[0] == 200
    await client.call("DELETE", f"/documents/{NAME}")
    restored = await client.call("POST", "/restore-backup", {"filename": NAME}, If_None_Match="*")
    assert restored[0] == 200


async def test_a_deleted_document_has_no_part_to_restore(client: Client) -> None:
    body = {"filename": NAME, "backup": await backup_of(client), "path": "/name"}
    await client.call("DELETE", f"/documents/{NAME}")

    status, problem, _ = await client.call("POST", "/restore-backup", body)

    assert (status, problem["code"]) == (404, "path_not_found")
    whole = {**body, "path": ""}
    _, preview, _ = await client.call("POST", "/restore-backup?dry_run=true", whole)
    [change] = preview["difference"]["changes"]
    assert (change["kind"], change["path"], change["after"]) == ("added", "", OLD)


def test_the_error_of_a_path_has_no_value_of_the_document() -> None:
    secret: Any = {"token": "s3cret", "list": ["s3cret"]}
    for path in ("/token/x", "/list/4", "/other"):
        with pytest.raises(PathNotFound) as refused:
            value_at(secret, path, "a.json")
        assert "s3cret" not in str(refused.value)
    with pytest.raises(PathNotFound) as unplaced:
        replaced_at(secret, "/token/x", 1, "a.json")
    assert "s3cret" not in str(unplaced.value)


@pytest.mark.prove
def test_the_command_shows_the_changes_and_restores_one_value(tmp_path: Path) -> None:
    line: Line = line_at(tmp_path)
    line("save", NAME, stdin='{"name": "Alex", "n": 1}')
    line("save", NAME, stdin='{"name": "Sam", "n": 2}')
    [backup] = line("backups", NAME, "--json").value()["backups"]

    tried = line("restore", NAME, backup["name"], "--path", "/n", "--dry-run")
    done = line("restore", NAME, backup["name"], "--path", "/n", "--yes")

    assert (tried.code, done.code) == (0, 0)
    assert "~ /n: 2 → 1\n1 changed.\n/n of user_profile.json would go back to" in tried.err
    assert line("load", NAME).value() == {"name": "Sam", "n": 1}
    assert line("restore", NAME, backup["name"], "--path", "/x", "--yes").code == 4


def test_a_deleted_document_is_listed_until_it_is_restored(tmp_path: Path) -> None:
    line: Line = line_at(tmp_path)
    line("save", NAME, stdin="{}")
    line("save", "other.json", stdin="{}")
    assert "No deleted document" in line("documents", "--deleted").err
    line("delete", NAME, "--yes")

    [deleted] = line("documents", "--deleted", "--json").value()["documents"]

    assert (deleted["name"], deleted["backup_count"]) == (NAME, 1)
    assert line("restore", NAME, "--yes").code == 0
    assert line("documents", "--deleted", "--json").value()["documents"] == []
