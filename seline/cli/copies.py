"""The verbs exports list, fetch and restore: the copies that a destination keeps.

A destination that the settings of this machine name is read from here: no volume is opened.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.keys import sealer_of_identity
from seline.cli.verbs import (
    Api,
    VerbOptions,
    agrees_in_scratch,
    carry_out,
    front,
    local_verb,
    preview_options,
    run_async,
    settings_of,
    url_of,
    with_api,
    with_options,
    would_make_store,
)

if TYPE_CHECKING:
    from datetime import datetime

    from seline.domain.copy import Copy
    from seline.domain.manifest import PackedDocument
    from seline.operations.copies import Copies
    from seline.ports.destinations import ObjectStore


_NAMES_SHOWN_MAX: Final = 20
_OUTCOMES: Final = ("created", "changed", "unchanged")


@front.group("exports")
def exports() -> None:
    """List, fetch and restore the copies that a destination keeps."""


@local_verb("list", group=exports)
@click.argument("destination")
def list_copies(options: VerbOptions, destination: str) -> None:
    """List the copies at a destination, the newest first.

    A destination of this machine's settings is read from here, so that works without the volume.
    Any other one is read by the store's process, such as the server at --url.

    Examples:
      seline exports list nas
      seline exports list bucket --json
    """
    with terminal.busy(f"Reading {destination}"):
        if url_of(options) is None and _is_configured(options, destination):
            listed = run_async(_listed_here(options, destination))
        else:
            listed = _listed_there(options, destination)
    terminal.out_list(
        listed,
        ("COPY", "KIND", "VOLUME", "TAKEN AT", "DOCUMENTS", "SIZE", "PROVEN", "PROBLEM"),
        [_row(copy) for copy in listed["copies"]],
        as_json=options.json,
        empty=f"{destination} has no copy.",
    )


def _instant(_context: click.Context, _option: click.Parameter, value: str | None) -> object:
    """Read an ISO 8601 instant, such as `2026-11-28 14:30`; without an offset it is UTC."""
    from seline.clock import parse_instant

    try:
        return None if value is None else parse_instant(value)
    except ValueError:
        example = "2026-11-28T14:30:00Z or '2026-11-28 14:30' (UTC)"
        raise click.BadParameter(f"{value!r} is not an instant, such as {example}.") from None


volume_option = click.option("--volume", default="", metavar="ID", help="A copy of this volume.")
identity_option = click.option(
    "--identity",
    metavar="FILE",
    help="Decrypt with this identity (else the setting exports.passphrase).",
)
copy_options = with_options(
    click.option(
        "--at",
        callback=_instant,
        metavar="INSTANT",
        help="The last copy until then (UTC), in doubt or not.",
    ),
    click.option("--only", multiple=True, metavar="NAME", help="This document; may be repeated."),
    volume_option,
    identity_option,
    click.option(
        "--unencrypted", is_flag=True, help="Take a copy of the time before encryption was set."
    ),
)
"""Add the options that choose a copy, and what of it."""


@local_verb("fetch", group=exports)
@click.argument("destination")
@click.argument("folder")
@copy_options
def fetch(
    options: VerbOptions,
    destination: str,
    folder: str,
    at: "datetime | None",
    only: tuple[str, ...],
    volume: str,
    identity: str | None,
    unencrypted: bool,
) -> None:
    """Write a copy as plain JSON files into a new folder, with the backups in its backups/.

    It needs the settings of this machine only: no server, and no volume. Every file is compared
    with its digest. The folder is written whole or not at all. `seline serve --data-dir FOLDER`
    takes it as a volume; `seline import FOLDER` brings its documents into another one.

    Examples:
      seline exports fetch bucket ./restored
      seline exports fetch bucket ./restored --at '2026-11-28 14:30'
      seline exports fetch bucket ./one --only user_profile.json
      seline exports fetch bucket ./restored --identity key.txt
    """
    from seline.clock import instant_text
    from seline.domain.copy import lacking_text
    from seline.domain.plural import counted
    from seline.folders import plain

    async def work() -> "tuple[Copy, list[PackedDocument]]":
        async with _copies_at(options, destination, identity, unencrypted=unencrypted) as copies:
            with terminal.busy(f"Reading {destination}"):
                copy = await copies.find(at=at, volume=volume)
            chosen = plain.chosen_documents(copy, only)
            with terminal.progress("Fetching") as advance:
                await plain.write_plain(copy, chosen, folder, advance)
            return copy, chosen

    plain.check_absent(folder)
    copy, chosen = run_async(work())
    documents = sum(bool(document.sha256) for document in chosen)
    backups, taken_at = (
        sum(len(document.backups) for document in chosen),
        instant_text(copy.taken_at),
    )
    counts = {"documents": documents, "backups": backups}
    if options.json:
        terminal.out_json({"folder": folder, "copy": copy.name, "taken_at": taken_at} | counts)
    else:
        terminal.out(folder)
    named = " and ".join(counted(count, name[:-1]) for name, count in counts.items())
    terminal.notice(f"It has {named} as of {taken_at}, each compared with its digest.")
    if lacking := lacking_text(copy.lacking, copy.older):
        terminal.notice(f"Documents could not be read for that copy: {lacking}.")
    _notice_passed_over(copy.passed_over)


@local_verb("restore", group=exports)
@click.argument("destination")
@copy_options
@preview_options
def restore(
    options: VerbOptions,
    destination: str,
    at: "datetime | None",
    only: tuple[str, ...],
    volume: str,
    identity: str | None,
    unencrypted: bool,
) -> None:
    """Put the documents of a copy back into the store, all of them or none.

    The store's process reads the copy, also while it runs. Documents that the copy lacks stay; each
    replaced content becomes a backup; backups and pins that the store lacks are added. With
    --identity the key is sent to that process, which forgets it afterwards.

    Examples:
      seline exports restore bucket --dry-run
      seline exports restore bucket --only user_profile.json
      seline exports restore bucket --at '2026-11-28 14:30' --yes
      seline exports restore bucket --identity key.txt
    """
    query = {"volume": volume, "only": ",".join(only), "at": at.isoformat() if at else ""}
    chosen = {name: value for name, value in query.items() if value}
    chosen |= {"foreign": "true"}  # this command asks
    chosen |= {"unencrypted": "true"} if unencrypted else {}
    body = None if identity is None else {"identity": _identities(options, identity)}

    def send(api: Api, query: dict[str, str]) -> Awaitable[Any]:
        path = "/destinations/{}/restore"
        return api.request("POST", path, destination, query=query | chosen, body=body)

    async def send_new(api: Api, query: dict[str, str]) -> Any:
        is_foreign = settings_of(options).exports.restore_from == "off"  # else a start restores it
        return await send(api, query) | {"foreign": is_foreign}

    async def work(api: Api) -> None:
        done = await carry_out(api, options, partial(send, api), _plan_text)
        if done is not None:
            _report_restored(done)
        elif not options.dry_run:
            await _notice_start(api)

    if options.dry_run and would_make_store(options):
        agrees_in_scratch(options, send_new, _plan_text)
    else:
        with_api(options, work, create=True)


async def _notice_start(api: Api) -> None:
    """Show what the start of the store's process has restored, if that was within a day."""
    for check in (await api.get("/health"))["checks"]:
        if check["name"] == "volume_restored":
            terminal.notice(check["detail"])


def _identities(options: VerbOptions, file: str) -> str:
    """Return the identities of a file as the body of a request has them."""
    from seline.client import is_readable_on_the_way
    from seline.outbound.sealing import identities_in

    url = url_of(options)
    if url is not None and is_readable_on_the_way(url):
        raise click.UsageError(
            f"The key would go to {url} unencrypted. Use its https:// address, or run this there."
        )
    return " ".join(identities_in(file))


def _plan_text(plan: dict[str, Any]) -> str:
    """Return the plan in words, empty if there is nothing to do."""
    named = [f"  {outcome}: {_shown(plan[outcome])}" for outcome in _OUTCOMES if plan[outcome]]
    added = [f"  {what} to add: {plan[what]:,}" for what in ("backups", "pins") if plan[what]]
    whose = " of ANOTHER volume" if plan["foreign"] else ""
    head = f"The copy {plan['copy']}{whose}, of {plan['taken_at']}, would change this:"
    named += [f"  created, and purged since: {_shown(plan['purged'])}"] if plan["purged"] else []
    named += [f"  Not taken: {reason}." for reason in plan["passed_over"]]
    if any(plan[outcome] for outcome in _OUTCOMES[:2]) or added:
        return "\n".join([head, *named, *added])
    terminal.notice("\n".join([f"The copy {plan['copy']} would change nothing.", *named]))
    return ""


def _shown(names: list[str]) -> str:
    from seline.domain.plural import shortened

    return f"{len(names):,}  {shortened(names, _NAMES_SHOWN_MAX)}"


def _report_restored(done: dict[str, Any]) -> None:
    from seline.domain.plural import counted

    documents = counted(len(done["created"]) + len(done["changed"]), "document")
    backups = counted(done["backups"], "backup")
    terminal.notice(f"Restored {documents} as of {done['taken_at']}, and {backups} more.")
    if done["purged"]:
        terminal.notice(f"Restored, and purged since that copy: {_shown(done['purged'])}.")
    _notice_passed_over(done["passed_over"])
    terminal.notice_undo(done)


def _notice_passed_over(reasons: Iterable[str]) -> None:
    for reason in reasons:
        terminal.notice(f"Not taken: {reason}.")


def _row(copy: dict[str, Any]) -> tuple[str, ...]:
    from seline.domain.copy import lacking_text

    is_readable = copy["documents"] is not None
    proven = f"{copy['proven_at']} by {copy['proven_by']}" if copy["proven_at"] else "-"
    return (
        copy["name"],
        copy["kind"],
        copy["volume"] or "-",
        copy["taken_at"],
        f"{copy['documents']:,}" if is_readable else "-",
        terminal.size_text(copy["size_bytes"]) if is_readable else "-",
        proven,
        "; ".join(filter(None, (copy["doubt"], lacking_text(copy["lacking"])))) or "-",
    )


async def _listed_here(options: VerbOptions, destination: str) -> Any:
    from seline.http.rendering import plain

    async with _copies_at(options, destination, None) as copies:
        return plain({"destination": destination, "copies": await copies.listed()})


def _listed_there(options: VerbOptions, destination: str) -> Any:
    from seline.client import is_new_store

    settings = settings_of(options)
    is_local = url_of(options) is None
    if is_local and (not os.path.exists(settings.data_dir) or is_new_store(settings)):
        _refuse_unknown(options, destination)
    return with_api(options, lambda api: api.get("/destinations/{}/copies", destination))


def _is_configured(options: VerbOptions, destination: str) -> bool:
    return any(known.name == destination for known in settings_of(options).exports.destinations)


def _refuse_unknown(options: VerbOptions, destination: str) -> None:
    """Raise DestinationNotFound unless the settings of this machine name the destination."""
    from seline.errors import DestinationNotFound

    if not _is_configured(options, destination):
        raise DestinationNotFound(
            f"The settings of this machine name no destination {destination}.",
            hint="Set `exports.destinations` here as it was where the copies were made; `seline "
            "config show` shows what is set.",
            destination=destination,
        )


def open_destination(options: VerbOptions, destination: str) -> "ObjectStore":
    """Return a destination of this machine's settings. Raises DestinationNotFound."""
    from seline.outbound.destinations.table import build_destination

    _refuse_unknown(options, destination)
    known = {found.name: found for found in settings_of(options).exports.destinations}
    return build_destination(known[destination])


@asynccontextmanager
async def _copies_at(
    options: VerbOptions, destination: str, identity: str | None, *, unencrypted: bool = False
) -> "AsyncGenerator[Copies]":
    """Give the copies at a destination of this machine's settings. Raises DestinationNotFound."""
    from seline.operations.copies import Copies

    exports = settings_of(options).exports
    takes_plain = unencrypted or not (exports.encrypt_to or exports.passphrase)
    store = open_destination(options, destination)
    try:
        yield Copies(store, sealer_of_identity(options, identity), takes_plain=takes_plain)
    finally:
        await store.close()
