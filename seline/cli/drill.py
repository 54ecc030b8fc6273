"""The verb drill: show on this machine that the newest copy can be restored, and leave a proof.

The copy is restored into a temporary directory with the key, opened as a volume, compared, and
removed. No volume of this machine is opened.
"""

import socket
from typing import TYPE_CHECKING

import click

from seline.cli import terminal
from seline.cli.copies import identity_option, open_destination, volume_option
from seline.cli.errors import Exit
from seline.cli.keys import sealer_of_identity
from seline.cli.verbs import VerbOptions, local_verb, run_async, settings_of

if TYPE_CHECKING:
    from seline.domain.copy import Copy
    from seline.ports.destinations import ObjectStore
    from seline.ports.sealing import Sealer


@local_verb("drill")
@click.argument("destination")
@identity_option
@volume_option
def drill(options: VerbOptions, destination: str, identity: str | None, volume: str) -> Exit:
    """Restore the newest copy into a temporary directory, compare everything, and leave a proof.

    Run it on your own machine, with the key: it shows that the key opens the copies, which the
    service cannot show without it. The settings of this machine name the destination. Health of
    the service names the proof within five minutes; that of an export after the next job `export`.

    Examples:
      seline drill bucket --identity key.txt
      SELINE_EXPORTS_PASSPHRASE='…' seline drill bucket
      TMPDIR=/mnt/large seline drill bucket --identity key.txt
    """
    from seline.library import try_restore

    store, sealer = open_destination(options, destination), sealer_of_identity(options, identity)
    with terminal.busy(f"Reading {destination}"):
        copy = run_async(_found(store, sealer, volume))
    with terminal.busy("Restoring and comparing"):
        compared = try_restore(settings_of(options), copy, close=store.close)
    return run_async(_prove(options, store, sealer, copy, compared))


async def _found(store: "ObjectStore", sealer: "Sealer", volume: str) -> "Copy":
    from seline.operations.copies import Copies

    try:
        return await Copies(store, sealer, takes_plain=True).find(volume=volume)
    finally:
        await store.close()


async def _prove(
    options: VerbOptions, store: "ObjectStore", sealer: "Sealer", copy: "Copy", compared: int
) -> Exit:
    from seline.clock import Clock, instant_text
    from seline.domain.copy import lacking_text
    from seline.domain.mirror import Proof, parse_head_name
    from seline.domain.plural import counted
    from seline.http.rendering import plain
    from seline.operations.export_folders import ExportFolders
    from seline.operations.mirror_store import MirrorStore
    from seline.ports.destinations import ObjectForbidden

    proof = Proof(
        head=copy.name,
        at=instant_text(Clock().now()),
        by=f"person at {socket.gethostname()}",
        decrypted=True,
        objects=compared,
    )
    if options.json:
        terminal.out_json(plain(proof))
    terminal.notice(
        f"{copy.name} of {instant_text(copy.taken_at)} is whole: {counted(compared, 'content')} of "
        f"{counted(len(copy.documents), 'document')} restored and compared."
    )
    if lacking := lacking_text(copy.lacking, copy.older):
        terminal.notice(f"Documents could not be read for it: {lacking}.")
    try:
        job = "export" if parse_head_name(copy.name) is None else "mirror"
        if job == "mirror":
            await MirrorStore(store, sealer, copy.volume).put_proof(proof)
        else:
            await ExportFolders(store).put_proof(proof)
        terminal.notice(
            f"The proof is at {store.name}: {proof.at} by {proof.by}. Health shows it once the job "
            f"`{job}` has run."
        )
    except ObjectForbidden as error:
        terminal.report(f"The proof could not be stored: {error.message}", error.hint)
        return Exit.FAILED
    finally:
        await store.close()
    return Exit.DONE
