"""The verb key new: make the key for encrypted copies. It is shown once and stored nowhere."""

import os
from typing import TYPE_CHECKING

import click

from seline.cli import terminal
from seline.cli.verbs import VerbOptions, front, local_verb, settings_of

if TYPE_CHECKING:
    from seline.ports.sealing import Sealer


@front.group("key")
def key() -> None:
    """Make the key for encrypted exports."""


@local_verb("new", group=key)
@click.option("--output", metavar="FILE", help="Write it into a new file that only you can read.")
def new(options: VerbOptions, output: str | None) -> None:
    """Make an age key and show it once; Seline stores it nowhere.

    The key has two parts. The recipient (age1…) encrypts and is no secret: it goes into
    `exports.encrypt_to`. The identity (AGE-SECRET-KEY-1…) decrypts: keep it where the volume is
    not, such as in a password manager. Without the identity, no one can read the exports.

    What is written is an identity file: `seline import` takes it with --identity, and the
    program `age` with -i.

    Examples:
      seline key new
      seline key new --output ~/seline-key.txt
      SELINE_EXPORTS__ENCRYPT_TO=age1… seline serve
    """
    from seline.clock import Clock, instant_text
    from seline.outbound.sealing import new_key

    _refuse_beside_the_data(options, output or os.path.realpath("/proc/self/fd/1"))
    made, created = new_key(), instant_text(Clock().now())
    lines = f"# created: {created}\n# public key: {made.recipient}\n{made.identity}\n"
    if output is not None:
        _write(output, lines)
    if options.json:
        secret = {"file": output} if output else {"identity": made.identity}
        terminal.out_json({"created": created, "recipient": made.recipient} | secret)
    else:
        terminal.out(made.recipient if output else lines.rstrip("\n"))
    place = f"it is in {output}" if output else "it is not shown again"
    terminal.notice(
        "The identity decrypts every export, and nothing else does. Keep it off this volume, in a "
        f"password manager or on paper: {place}."
    )
    terminal.notice(f'Next: set `exports.encrypt_to = ["{made.recipient}"]` and restart.')


def sealer_of_identity(options: VerbOptions, identity: str | None) -> "Sealer":
    """Return what decrypts copies: with an identity file, with the passphrase, or nothing."""
    from seline.outbound.sealing import AgeSealer, identities_in
    from seline.ports.sealing import UNSEALED

    passphrase = settings_of(options).exports.passphrase or ""
    if identity is None and not passphrase:
        return UNSEALED
    identities = identities_in(identity) if identity is not None else ()
    return AgeSealer(passphrase=passphrase, identities=identities)


def _refuse_beside_the_data(options: VerbOptions, output: str) -> None:
    """Raise UsageError if a file is inside the data directory, where it would be lost with it."""
    data_dir, path = os.path.realpath(settings_of(options).data_dir), os.path.realpath(output)
    if os.path.commonpath([data_dir, path]) == data_dir:
        raise click.UsageError(
            f"{path} is in the data directory. A key there is lost with the volume, and whoever "
            "takes the volume has it. Write it elsewhere."
        )


def _write(output: str, lines: str) -> None:
    """Write a new file with mode 600."""
    from seline.outbound.whole_file import whole_file

    if os.path.lexists(output):
        raise click.UsageError(f"{output} exists, and a key is never replaced: name a new file.")
    with whole_file(output, replace=False) as file:
        file.write(lines.encode())
