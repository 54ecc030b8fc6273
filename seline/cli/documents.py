"""The verbs for documents: save, load, delete, documents."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import (
    GlobalOptions,
    agreed,
    api_verb,
    dry_run_option,
    own_verb,
    with_api,
    yes_option,
)
from seline.domain.plural import counted
from seline.errors import DocumentUnrecoverable, InvalidRequest

if TYPE_CHECKING:
    from seline.cli.client import Api

SECTION: Final = "Documents"
_ABSENT: Final = "absent"
_REVISION: Final = re.compile(r"[0-9a-f]{64}")


@own_verb(
    front,
    "save",
    section=SECTION,
    examples="""
    seline save user_profile.json profile.json
    echo '{"userName": "Alex"}' | seline save user_profile.json
    seline save user_profile.json new.json --if-match "$REVISION"
    seline save user_profile.json new.json --if-match absent
    """,
)
@click.argument("name")
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option("--no-backup", is_flag=True, help="Keep no backup of the content before.")
@click.option(
    "--if-match",
    metavar="REVISION",
    help="Save only if this revision is current; `absent`: only if there is no document.",
)
def save(
    options: GlobalOptions, name: str, file: str, no_backup: bool, if_match: str | None
) -> Exit | None:
    """Save a document from a file, or from stdin.

    Prints the revision (the SHA-256 of the stored bytes) once the document is durable.
    """
    from seline.domain.document import check_document_name

    check_document_name(name)
    headers = condition(if_match)
    query = {"backup": "false"} if no_backup else {}
    body = read_source(file)
    with told_of_source(file, body):
        return with_api(options, lambda api: _save(api, name, body, query, headers), makes=True)


async def _save(
    api: Api, name: str, body: bytes, query: dict[str, str], headers: dict[str, str]
) -> None:
    from seline.cli.client import document_path

    answer = await api.request("PUT", document_path(name), query=query, body=body, headers=headers)
    saved = answer.value()
    if api.options.json:
        terminal.out_json(saved)
    else:
        terminal.out(answer.revision)
    terminal.say(f"{name} is saved{' (new)' if saved['created'] else ''}.")


@api_verb(
    front,
    "load",
    section=SECTION,
    examples="""
    seline load user_profile.json
    seline load user_profile.json | jq .userName
    seline load user_profile.json --backup user_profile_20250106_143022.json
    """,
)
@click.argument("name")
@click.option("--backup", metavar="BACKUP", help="Print this backup instead of the document.")
async def load(api: Api, name: str, backup: str | None) -> None:
    """Print a document's value, or one of its backups.

    A document that is found broken is recovered first; see `seline status` afterwards.
    """
    from seline.cli.client import document_path

    rest = () if backup is None else ("backups", backup)
    answer = await api.request("GET", document_path(name, *rest))
    terminal.out_bytes(answer.data)


@api_verb(
    front,
    "documents",
    section=SECTION,
    examples="""
    seline documents
    seline documents --json | jq -r '.documents[].name'
    """,
)
async def documents(api: Api) -> None:
    """List the documents: size, age, backups, and whether each is sound."""
    listed = await api.get("/documents")
    if api.options.json:
        terminal.out_json(listed)
        return
    rows = [document_row(document) for document in listed["documents"]]
    terminal.out_table(("NAME", "SIZE", "UPDATED", "STATE", "BACKUPS"), rows)
    if not rows:
        terminal.say("There are no documents yet. Next: `seline save NAME FILE`.")


@api_verb(
    front,
    "delete",
    section=SECTION,
    examples="""
    seline delete old.json --dry-run
    seline delete old.json
    seline delete chat_4711.json --purge --yes
    """,
)
@click.argument("name")
@click.option("--purge", is_flag=True, help="Erase its backups and quarantined bytes as well.")
@dry_run_option
@yes_option
async def delete(api: Api, name: str, purge: bool, dry_run: bool, yes: bool) -> None:
    """Delete a document; its content stays as its newest backup.

    With --purge nothing of it stays: that cannot be undone.
    """
    from seline.cli.client import document_path

    path = document_path(name)
    if not await agreed(await _delete_plan(api, name, purge=purge), dry_run=dry_run, yes=yes):
        return
    query = {"purge": "true"} if purge else {}
    answer = (await api.request("DELETE", path, query=query)).value()
    if api.options.json:
        terminal.out_json(answer)
    terminal.say(f"{name} is {'erased' if purge else 'deleted'}.")
    if answer["backup"] is not None:
        terminal.say(f"To take it back: seline restore {name}")
    elif not purge:
        terminal.say("Its broken bytes lie in quarantine/. To look at them: seline quarantine")


async def _delete_plan(api: Api, name: str, *, purge: bool) -> str:
    """Say what would be deleted, and what would be left of it."""
    from seline.cli.client import document_path
    from seline.cli.standing import trouble_with

    kept = len((await api.get(document_path(name, "backups")))["backups"])
    backups = counted(kept, "backup")
    if purge:
        return f"{name}, its {backups} and its quarantined bytes would be erased for good."
    trouble = await trouble_with(api, name)
    if trouble is not None:
        if trouble.code != DocumentUnrecoverable.code:
            raise trouble
        return (
            f"{name} is broken, so no backup would be made of it: it would be deleted, and its "
            f"bytes kept in quarantine/ (`seline quarantine`; it has {backups} now)."
        )
    return (
        f"{name} would be deleted; its content would be kept as its newest backup "
        f"(it has {backups} now)."
    )


def document_row(document: dict[str, Any]) -> tuple[str, ...]:
    """Return a document as a line of the list."""
    return (
        document["name"],
        terminal.size_text(document["size_bytes"]),
        document["updated_at"],
        document["verdict"],
        str(document["backup_count"]),
    )


def condition(if_match: str | None) -> dict[str, str]:
    """Return the headers that make a change conditional. Raises Problem for what is no revision."""
    if if_match is None:
        return {}
    if if_match == _ABSENT:
        return {"If-None-Match": "*"}
    revision = if_match.strip('"')
    if not _REVISION.fullmatch(revision):
        raise Problem(
            f"--if-match takes a revision (64 hex digits) or `absent`, not {if_match[:80]!r}.",
            "`seline documents --json` shows each document's revision; `seline save` prints it.",
            exit=Exit.USAGE,
        )
    return {"If-Match": f'"{revision}"'}


@contextmanager
def told_of_source(file: str, body: bytes) -> Generator[None]:
    """Where the body is refused for its JSON, name the file and the place in it."""
    from seline.domain.json_codec import why_not_json

    try:
        yield
    except Problem as problem:
        flaw = why_not_json(body) if problem.code == InvalidRequest.code else None
        if flaw is None:
            raise
        from seline.cli.legacy_folder import cure

        source = "What came on stdin" if file == "-" else file
        message = f"{source} is not JSON: {flaw}. Nothing was changed."
        raise Problem(message, cure(flaw), code=problem.code) from problem


def read_source(file: str) -> bytes:
    """Return the bytes of a file, of stdin for `-`."""
    if file != "-":
        with open(file, "rb") as source:
            return source.read()
    if sys.stdin.isatty():
        terminal.say("Type or paste JSON, then end with Ctrl-D.")
    return sys.stdin.buffer.read()
