"""The verb demo: flip a bit and watch the recovery, in scratch space or in a real document."""

import os
from typing import Final

import click

from seline.cli import terminal
from seline.cli.verbs import VerbOptions, connected, local_verb, run_async, settings_of, url_of

NAME: Final = "user_profile.json"


@local_verb("demo")
@click.option("--flip", metavar="NAME", help="Flip one bit of this real document.")
@click.option("--dry-run", is_flag=True, help="With --flip: only show which bit it would be.")
def demo(options: VerbOptions, flip: str | None, dry_run: bool) -> None:
    """Show a save, a bit flip, its detection and the recovery in a scratch directory.

    --flip NAME flips one bit of a real document in its file, as a bad disk does; the next read or
    verify finds it. A copy of the sound bytes is kept.

    Examples:
      seline demo
      seline demo --flip user_profile.json --dry-run
      seline demo --flip user_profile.json
    """
    import tempfile

    if flip is not None:
        return run_async(_flip_document(options, flip, dry_run=dry_run))
    if dry_run:
        raise click.UsageError("--dry-run goes with --flip NAME.")
    with tempfile.TemporaryDirectory(prefix="seline-demo-") as scratch:
        return run_async(_show(scratch))


async def _show(scratch: str) -> None:
    import logging

    from seline.bit_flip import choose_flip, flip_in_place

    logging.getLogger("seline").setLevel(logging.ERROR)
    async with connected(VerbOptions(), create=True, scratch=scratch) as api:
        file = os.path.join(scratch, NAME)
        terminal.out(f"1. Save. Two saves of {NAME} in {scratch}:")
        for value in (
            {"userName": "Alex", "location": "Paris"},
            {"userName": "Alex", "location": "Lyon"},
        ):
            saved = await api.request("PUT", "/documents/{}", NAME, body=value)
            terminal.out(f"   {value}  revision {saved['revision'][:12]}…")
        backup = (await api.get("/documents/{}/backups", NAME))["backups"][0]["name"]
        terminal.out(f"   Before the second one, the first became a backup: backups/{backup}")

        sound = _bytes_of(file)
        flipped = choose_flip(sound)
        flip_in_place(file, sound, flipped)
        flip = _flip_text(sound, flipped)
        terminal.out(f"\n2. Flip. One bit on the disk, the file's time kept: {flip}.")
        terminal.out(f"   The file now has    {_on_one_line(_bytes_of(file))}")
        terminal.out("   It is valid JSON: a program that only parses it serves the wrong value.")

        terminal.out("\n3. Detection and recovery. The next read compares the checksum:")
        answer = await api.read("/documents/{}", NAME)
        terminal.out(f"   Seline answers      {_on_one_line(answer)}")
        terminal.out(f"   The file again has  {_on_one_line(_bytes_of(file))}")

        terminal.out("\n4. Nothing is hidden. Health reports:")
        for check in (await api.get("/health"))["checks"]:
            if check["name"] == "recovered":
                terminal.out(f"   {check['name']}: {check['detail']}")
        for item in (await api.get("/quarantine"))["quarantine"]:
            terminal.out(f"   The broken bytes are kept: quarantine/{item['name']}")
    terminal.out("\nThe scratch directory is removed.")
    step = "Next: `seline demo --flip NAME` on a document of yours, then `seline verify`."
    terminal.out(step)


async def _flip_document(options: VerbOptions, name: str, *, dry_run: bool) -> None:
    """Flip a bit of a document's file, and print what the next read will do."""
    from seline.bit_flip import choose_flip, flip_in_place
    from seline.domain.json_codec import why_not_json

    settings = settings_of(options)
    if url_of(options):
        raise click.UsageError(
            "A bit can be flipped only on the data directory's machine: run it there, without "
            "--url and SELINE_URL."
        )
    async with connected(options) as api:
        sound = await api.read("/documents/{}", name)
    flipped = choose_flip(sound)
    flip = _flip_text(sound, flipped)
    file = os.path.join(settings.data_dir, name)
    if dry_run:
        terminal.out(f"This would flip {flip} of {file}. Nothing was changed (--dry-run).")
        return
    copy = _copy_of(name, sound)
    flip_in_place(file, sound, flipped)
    terminal.out(f"Flipped {flip} of {file}; the file's time is as before.")
    is_json = why_not_json(flipped) is None
    stays = "is still valid JSON: only the checksum shows it" if is_json else "is not JSON"
    terminal.out(f"The file {stays}.")
    terminal.out(f"A copy of the sound bytes: {copy}")
    _print_next(name, copy)


def _print_next(name: str, copy: str) -> None:
    steps = (
        (f"seline load {name}", "recovers and prints it; exits 3 if nothing sound is left"),
        ("seline verify", "reads everything and reports what it found"),
        ("seline status", "shows the recovery, or what is lost"),
        ("seline quarantine", "lists the broken bytes"),
        (f"seline reset {name}", "gives it up, if it cannot be recovered"),
        (f"seline save {name} {copy}", "stores the copy again"),
    )
    terminal.out("Next:")
    for command, effect in steps:
        terminal.out(f"  {command:<36} {effect}")


def _copy_of(name: str, sound: bytes) -> str:
    import tempfile

    descriptor, copy = tempfile.mkstemp(prefix="seline-demo-", suffix=f"-{name}")
    with open(descriptor, "wb") as file:
        file.write(sound)
    return copy


def _flip_text(before: bytes, after: bytes) -> str:
    from seline.bit_flip import flip_offset

    offset = flip_offset(before, after)
    old, new = before[offset], after[offset]
    bit = (old ^ new).bit_length() - 1
    return f"bit {bit} of byte {offset} ({chr(old)!a} becomes {chr(new)!a})"


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _on_one_line(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())
