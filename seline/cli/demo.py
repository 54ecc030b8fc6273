"""The verb demo: a bit flips, Seline finds it and mends it; in scratch space, or for real."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import GlobalOptions, own_verb, run_to_its_end

if TYPE_CHECKING:
    from seline.cli.bit_flip import Flip
    from seline.cli.client import Api

NAME: Final = "user_profile.json"
_FIRST: Final = {"userName": "Alex", "location": "Paris"}
_SECOND: Final = {"userName": "Alex", "location": "Lyon"}


@own_verb(
    front,
    "demo",
    section="Damage",
    examples="""
    seline demo
    seline demo --flip user_profile.json --dry-run
    seline demo --flip user_profile.json
    """,
)
@click.option("--flip", metavar="NAME", help="Flip one bit of this real document.")
@click.option("--dry-run", is_flag=True, help="With --flip: only say which bit it would be.")
def demo(options: GlobalOptions, flip: str | None, dry_run: bool) -> Exit | None:
    """Show save, bit flip, detection and recovery in a scratch directory.

    With --flip NAME one bit of a real document is flipped in its file, as a bad disk does; the
    rest is left to the next read or verify. A copy of the sound bytes is kept aside.
    """
    import tempfile

    if flip is not None:
        return run_to_its_end(_flip_for_real(options, flip, dry_run=dry_run))
    if dry_run:
        raise click.UsageError("--dry-run goes with --flip NAME.")
    with tempfile.TemporaryDirectory(prefix="seline-demo-") as scratch:
        run_to_its_end(_show(scratch))
    return None


async def _show(scratch: str) -> None:
    import logging

    from seline.cli.bit_flip import choose_flip, flip_in_place
    from seline.cli.reach import reached

    logging.getLogger("seline").setLevel(logging.ERROR)
    elsewhere: dict[str, Any] = {"storage.require_mount": False}
    async with reached(GlobalOptions(data_dir=scratch), makes=True, **elsewhere) as api:
        path = os.path.join(scratch, NAME)
        terminal.out(f"1. Save. Two saves of {NAME} in {scratch}:")
        await _save(api, _FIRST)
        await _save(api, _SECOND)
        backup = (await _backups(api))[0]["name"]
        terminal.out(f"   Before the second one, the first became a backup: backups/{backup}")

        flip = choose_flip(_bytes_of(path))
        flip_in_place(path, flip)
        terminal.out()
        terminal.out(f"2. Flip. One bit on the disk, the file's time kept: {_flip_text(flip)}.")
        terminal.out(f"   The file now says {_on_one_line(_bytes_of(path))}")
        terminal.out("   It is valid JSON: a program that only parses it serves the wrong value.")

        terminal.out()
        terminal.out("3. Detection and recovery. The next read compares the checksum:")
        value = (await api.request("GET", f"/documents/{NAME}")).data
        terminal.out(f"   Seline answers {_on_one_line(value)}")
        terminal.out(f"   The file says  {_on_one_line(_bytes_of(path))}")

        terminal.out()
        terminal.out("4. Nothing is hidden. Health says:")
        for check in await _warnings(api):
            terminal.out(f"   {check['name']}: {check['detail']}")
        for item in (await api.get("/quarantine"))["quarantine"]:
            terminal.out(f"   The broken bytes are kept: quarantine/{item['name']}")
    terminal.out()
    terminal.out("The scratch directory is gone again.")
    terminal.out("Next, for real: `seline demo --flip NAME` on a document of yours, then `verify`.")


async def _flip_for_real(options: GlobalOptions, name: str, *, dry_run: bool) -> Exit | None:
    from seline.cli.bit_flip import choose_flip, flip_in_place
    from seline.cli.client import document_path
    from seline.cli.reach import reached, settings_of

    path = document_path(name)
    if options.url or (settings_of(options).url and not options.data_dir):
        raise Problem(
            "A bit can be flipped only on the machine of the data directory.",
            "Run it there, without --url and SELINE_URL.",
            exit=Exit.USAGE,
        )
    async with reached(options, makes=False) as api:
        sound = (await api.request("GET", path)).data
        backups = await _backups(api, name)
        data_dir, alone = api.settings.data_dir, api.door.alone
    flip = choose_flip(sound)
    file = os.path.join(data_dir, name)
    if dry_run:
        terminal.out(
            f"This would flip {_flip_text(flip)} of {file}. Nothing was changed (--dry-run)."
        )
        return None
    copy = _copy_aside(name, sound)
    flip_in_place(file, flip)
    terminal.out(f"Flipped {_flip_text(flip)} of {file}; the file's time is as before.")
    terminal.out(
        "It is still valid JSON: only the checksum can tell."
        if flip.stays_json
        else "It is no longer valid JSON."
    )
    terminal.out()
    sound_backups = [one for one in backups if one["verdict"] == "sound"]
    terminal.out(_forecast(name, sound_backups, alone=alone))
    terminal.out(_way_back(name, copy, is_lost=alone and not sound_backups))
    terminal.out()
    terminal.out("Next, whichever comes first:")
    load = _what_load_does(has_backup=bool(sound_backups), alone=alone)
    terminal.out(f"  {f'seline load {name}':<36} {load}")
    terminal.out(f"  {'seline verify':<36} reads everything, and reports what it found")
    terminal.out("Then:")
    terminal.out(
        f"  {'seline status':<36} how everything stands, and what happened since the start"
    )
    terminal.out(f"  {'seline quarantine':<36} the broken bytes, kept for you to look at")
    return None


def _forecast(name: str, backups: list[dict[str, Any]], *, alone: bool) -> str:
    newest = f"its newest sound backup, taken {backups[0]['taken_at']}" if backups else ""
    if not alone:
        otherwise = f", else from {newest}" if newest else ""
        return (
            "The next read or verify finds it, sets the broken bytes aside in quarantine/ and "
            f"brings {name} back: from the running process's memory{otherwise}."
        )
    if newest:
        return (
            "No process holds the content in memory. The next read or verify finds it, sets the "
            f"broken bytes aside in quarantine/ and brings {name} back from {newest}; what was "
            "saved after it is named as lost."
        )
    return (
        f"{name} has no backup and no process holds it in memory: it cannot be recovered, and "
        "Seline will say so rather than serve something else."
    )


def _way_back(name: str, copy: str, *, is_lost: bool) -> str:
    """Say how the copy comes back: over what cannot be recovered only an explicit step goes."""
    first = f"`seline reset {name}`, then " if is_lost else ""
    brings = "bring" if is_lost else "brings"
    return f"The sound bytes were copied: {first}`seline save {name} {copy}` {brings} them back."


def _what_load_does(*, has_backup: bool, alone: bool) -> str:
    if has_backup:
        return "reads it: found and mended before you see it"
    if alone:
        return "finds it and refuses to print it (exit code 3)"
    return "reads it: found and mended, as long as that process runs"


def _copy_aside(name: str, sound: bytes) -> str:
    import tempfile

    descriptor, copy = tempfile.mkstemp(prefix="seline-demo-", suffix=f"-{name}")
    with open(descriptor, "wb") as file:
        file.write(sound)
    return copy


def _flip_text(flip: Flip) -> str:
    before, after = (ascii(chr(byte)) for byte in (flip.before, flip.after))
    return f"bit {flip.bit} of byte {flip.offset} ({before} becomes {after})"


async def _save(api: Api, value: object) -> None:
    answer = await api.request("PUT", f"/documents/{NAME}", body=value)
    terminal.out(f"   {value}  revision {answer.revision[:12]}…")


async def _backups(api: Api, name: str = NAME) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await api.get(f"/documents/{name}/backups"))["backups"]
    return listed


async def _warnings(api: Api) -> list[dict[str, Any]]:
    checks = (await api.get("/health"))["checks"]
    return [check for check in checks if check["name"] == "recovered"]


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _on_one_line(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())
