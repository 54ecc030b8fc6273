"""The verbs for documents: save, load, delete, documents."""

import os
import re
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import (
    Api,
    VerbOptions,
    api_verb,
    carry_out,
    local_verb,
    preview_options,
    with_api,
)
from seline.domain.plural import counted
from seline.errors import InvalidRequest

_HELD_BYTES: Final = 1 << 20
_REVISION: Final = re.compile(r"[0-9a-f]{64}")


@local_verb("save")
@click.argument("name")
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option("--no-backup", is_flag=True, help="Make no backup of the previous content.")
@click.option(
    "--if-match",
    metavar="REVISION",
    help="Save only if this revision is current; `absent`: only if the document does not exist.",
)
def save(
    options: VerbOptions, name: str, file: str, no_backup: bool, if_match: str | None
) -> Exit | None:
    """Save a document from a file, or from stdin.

    Prints the revision (the SHA-256 of the stored bytes) once the document is durable.

    Examples:
      seline save user_profile.json profile.json
      echo '{"userName": "Alex"}' | seline save user_profile.json
      seline save user_profile.json new.json --if-match "$REVISION"
      seline save user_profile.json new.json --if-match absent
    """
    from seline.domain.document import check_document_name

    check_document_name(name)
    headers = precondition(if_match)
    query = {"backup": "false"} if no_backup else {}

    async def put(api: Api) -> None:
        saved = await api.request(
            "PUT", "/documents/{}", name, query=query, body=body, headers=headers
        )
        if options.json:
            terminal.out_json(saved)
        else:
            terminal.out(saved["revision"])
        terminal.notice(f"{name} is saved{' (new)' if saved['created'] else ''}.")
        terminal.notice_undo(saved)

    with json_source(file) as body:
        return with_api(options, put, create=True)


@api_verb("load")
@click.argument("name")
@click.option("--backup", metavar="BACKUP", help="Print this backup instead of the document.")
async def load(api: Api, options: VerbOptions, name: str, backup: str | None) -> None:
    """Print a document's value, or one of its backups.

    A broken document is recovered first; `seline status` shows the recovery.

    Examples:
      seline load user_profile.json
      seline load user_profile.json | jq .userName
      seline load user_profile.json --backup user_profile_20250106_143022.json
    """
    del options  # a document is JSON already
    if backup is None:
        data = await api.read("/documents/{}", name)
    else:
        data = await api.read("/documents/{}/backups/{}", name, backup)
    terminal.out_bytes(data)


@api_verb("documents")
@click.option("--deleted", is_flag=True, help="List the deleted ones that can be restored.")
async def documents(api: Api, options: VerbOptions, deleted: bool) -> None:
    """List the documents: size, age, state, number of backups.

    `seline restore NAME` brings a deleted one back.

    Examples:
      seline documents
      seline documents --deleted
      seline documents --json | jq -r '.documents[].name'
    """
    query = {"deleted": "true"} if deleted else {}
    listed = await api.request("GET", "/documents", query=query)
    rows = [
        (
            document["name"],
            terminal.size_text(document["size_bytes"]),
            document["updated_at"],
            document["verdict"],
            str(document["backup_count"]),
        )
        for document in listed["documents"]
    ]
    terminal.out_list(
        listed,
        ("NAME", "SIZE", "UPDATED", "STATE", "BACKUPS"),
        rows,
        as_json=options.json,
        empty="No deleted document has a backup."
        if deleted
        else "There are no documents yet. Next: `seline save NAME FILE`.",
    )


@api_verb("delete")
@click.argument("name")
@click.option("--purge", is_flag=True, help="Erase its backups and quarantined bytes as well.")
@preview_options
async def delete(api: Api, options: VerbOptions, name: str, purge: bool) -> None:
    """Delete a document; its content stays as its newest backup.

    --purge also erases every backup and quarantined item of it, which cannot be undone: dated
    copies in backups/ that Seline did not write, too.

    Copies off the volume still hold it until they expire. After --purge no new copy has it, and the
    answer and `seline status` say when the last older one is removed. docs/recover.md says how to
    erase it there at once.

    Examples:
      seline delete old.json --dry-run
      seline delete old.json
      seline delete chat_4711.json --purge --yes
    """
    from seline.domain.retention import NOT_OURS

    purging = {"purge": "true"} if purge else {}

    async def send(query: dict[str, str]) -> dict[str, Any]:
        kept = (await api.get("/documents/{}/backups", name))["backups"] if purge and query else ()
        path = "/documents/{}"
        done: dict[str, Any] = await api.request("DELETE", path, name, query=query | purging)
        if not kept:
            return done
        foreign = sum(backup["because"].endswith(NOT_OURS) for backup in kept)
        return done | {"backups": [backup["name"] for backup in kept], "foreign_backups": foreign}

    deleted = await carry_out(api, options, send, _delete_plan)
    if deleted is None:
        return
    terminal.notice(f"{name} is {'erased' if purge else 'deleted'}.{_held(deleted)}")
    if deleted["kept_in"] == "quarantine":
        terminal.notice("Its broken bytes are in quarantine/. To see them: seline quarantine")
    terminal.notice_undo(deleted)


def _held(deleted: dict[str, Any]) -> str:
    """Return the sentence about the copies elsewhere that may still hold what is erased."""
    from seline.domain.purged import held_text

    held = [
        held_text(copy["destination"], copy["until"], copy["newer_exports"])
        for copy in deleted.get("copies", ())
    ]
    return f" It may still be in {'; in '.join(held)}." if held else ""


def _delete_plan(preview: dict[str, Any]) -> str:
    name = preview["document"]
    if preview["purged"]:
        backups = counted(len(preview.get("backups", ())), "backup")
        if foreign := preview.get("foreign_backups", 0):
            backups += f" ({foreign:,} not written by Seline)"
        erased = f"{name}, its {backups} and its quarantined bytes would be erased for good."
        return f"{erased}{_held(preview)}"
    if preview["kept_in"] == "quarantine":
        return (
            f"{name} is broken, so no backup would be made of it: it would be deleted, and its "
            "bytes kept in quarantine/ (`seline quarantine`)."
        )
    return f"{name} would be deleted; its content would be kept as its newest backup."


def precondition(if_match: str | None) -> dict[str, str]:
    """Return the headers of a conditional change; exit 2 for a malformed revision."""
    if if_match is None:
        return {}
    if if_match == "absent":
        return {"If-None-Match": "*"}
    revision = if_match.strip('"')
    if not _REVISION.fullmatch(revision):
        terminal.report(
            f"--if-match takes a revision (64 hex digits) or `absent`, not {if_match[:80]!r}.",
            "`seline documents --json` shows each document's revision; `seline save` prints it.",
        )
        raise click.exceptions.Exit(Exit.USAGE)
    return {"If-Match": f'"{revision}"'}


@contextmanager
def json_source(file: str) -> Generator[IO[bytes]]:
    """Open a file, or stdin for `-`, so that it can be sent more than once.

    An InvalidRequest about the body names the source of its JSON.
    """
    import shutil
    import tempfile

    from seline.cures import step_for_file
    from seline.domain.json_codec import HINTS

    source = "The text on stdin" if file == "-" else file
    if _is_endless(file):
        raise InvalidRequest(
            f"{file} is not a regular file. Nothing was changed.",
            hint="Name a regular file, or `-` to give the text on stdin.",
        )
    if file == "-" and sys.stdin.isatty():
        terminal.notice("Type or paste JSON, then end with Ctrl-D.")
    with click.open_file(file, "rb") as given, tempfile.SpooledTemporaryFile(_HELD_BYTES) as copy:
        body: IO[bytes] = given
        if file == "-" or not given.seekable():
            shutil.copyfileobj(given, copy)
            copy.seek(0)
            body = copy
        if not body.read(1):
            message = f"{source} is not JSON: empty file. Nothing was changed."
            raise InvalidRequest(message, hint=HINTS["empty file"])
        try:
            yield body
        except InvalidRequest as refusal:
            message = re.sub(r"^The body\b", lambda _: source, refusal.message)
            hint = refusal.hint if file == "-" else step_for_file(refusal.hint, file)
            raise InvalidRequest(message, hint=hint) from refusal


def _is_endless(file: str) -> bool:
    """Whether reading a file may never end: a device, a socket, or a pipe that has a name.

    The pipe of a shell's `<(…)` has none, so its target does not exist.
    """
    try:
        kind = stat.S_IFMT(os.stat(file).st_mode)
    except OSError:
        return False
    if kind == stat.S_IFIFO:
        return os.path.exists(os.path.realpath(file))
    return kind not in (stat.S_IFREG, stat.S_IFDIR)
