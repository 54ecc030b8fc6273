"""The verbs exports list, fetch and restore: the copies that a destination keeps.

A destination that the settings of this machine name is read from here: no volume is opened.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from seline.cli import terminal
from seline.cli.keys import sealer_of_identity
from seline.cli.verbs import (
    VerbOptions,
    front,
    local_verb,
    run_async,
    settings_of,
    url_of,
    with_api,
)

if TYPE_CHECKING:
    from seline.operations.copies import Copies


@front.group("exports")
def exports() -> None:
    """List the copies that a destination keeps."""


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
        ("COPY", "KIND", "VOLUME", "TAKEN AT", "DOCUMENTS", "SIZE", "PROVEN", "DOUBT"),
        [_row(copy) for copy in listed["copies"]],
        as_json=options.json,
        empty=f"{destination} has no copy.",
    )


def _row(copy: dict[str, Any]) -> tuple[str, ...]:
    is_readable = copy["documents"] is not None
    proven = f"{copy['proven_at']} by {copy['proven_by']}" if copy["proven_at"] else "-"
    return (
        copy["name"],
        copy["kind"],
        copy["volume"] or "-",
        copy["taken_at"],
        f"{copy['documents']:,}" if is_readable else "encrypted",
        terminal.size_text(copy["size_bytes"]) if is_readable else "-",
        proven,
        copy["doubt"] or "-",
    )


async def _listed_here(options: VerbOptions, destination: str) -> Any:
    from seline.http.rendering import plain

    async with _copies_at(options, destination, None) as copies:
        return plain({"destination": destination, "copies": await copies.listed()})


def _listed_there(options: VerbOptions, destination: str) -> Any:
    from seline.client import is_new_store

    if url_of(options) is None and is_new_store(settings_of(options)):
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


@asynccontextmanager
async def _copies_at(
    options: VerbOptions, destination: str, identity: str | None
) -> "AsyncGenerator[Copies]":
    """Give the copies at a destination of this machine's settings. Raises DestinationNotFound."""
    from seline.operations.copies import Copies
    from seline.outbound.destinations.table import build_destination

    _refuse_unknown(options, destination)
    known = {found.name: found for found in settings_of(options).exports.destinations}
    store = build_destination(known[destination])
    try:
        yield Copies(store, sealer_of_identity(options, identity))
    finally:
        await store.close()
