"""The code that the pages show runs, and the commands that they name exist."""

import os
import re
from pathlib import Path

import pytest

from seline.blocking import open_seline
from tests.docs.blocks import ROOT, blocks, run_python

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
)
BOT = """
import asyncio, contextlib, os, signal
from seline.server import serving

os.environ["PORT"] = "0"

class Bot:
    async def run(self):
        pass

bot = Bot()
"""
PRELUDES = {"docs/deploy.md": BOT, "docs/migration.md": "", "docs/python.md": ""}
ELSEWHERE = {
    "README.md": "each block is a program of its own",
    "docs/bots.md": "tests/docs/test_bots.py runs each handler in its framework",
    "docs/reading-a-volume.md": "run below, on a volume",
    "docs/recover.md": "tests/docs/test_recover.py runs it on a mirror, with zstd and age",
}


@pytest.mark.parametrize("page", PRELUDES)
def test_the_python_of_a_page_runs_and_prints_what_is_shown(page: str, tmp_path: Path) -> None:
    """Run a page's blocks in order, in an empty directory."""
    run_python(tmp_path, "-m", "tests.docs.blocks", page, PRELUDES[page])


@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_each_program_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    """Run one block of the README, in an empty directory."""
    run_python(tmp_path, "-m", "tests.docs.blocks", "README.md", BOT, str(number))


def test_no_page_has_python_that_does_not_run() -> None:
    """Name a page here once it shows Python."""
    assert {page for page in PAGES if blocks(page, "python")} == {*PRELUDES, *ELSEWHERE}


def test_the_readme_begins_with_the_two_commands() -> None:
    """Show `make run` and `make test` before anything else."""
    first, *_ = blocks("README.md", "sh")

    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make run", "make test"]


def test_every_command_in_the_pages_exists(tmp_path: Path) -> None:
    """Name verbs that `seline --help` lists."""
    known = run_python(tmp_path, "-m", "seline", "--help")
    named = {
        (page, verb)
        for page in PAGES
        for verb in re.findall(
            r"(?:`|^)seline ([a-z]+)\b", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
        )
    }

    assert not {
        (page, verb) for page, verb in named if not re.search(rf"^  {verb} ", known, re.MULTILINE)
    }


def test_a_volume_is_read_without_seline(tmp_path: Path) -> None:
    """Find the flipped bit with the script that the page shows."""
    [code] = blocks("docs/reading-a-volume.md", "python")
    assert "seline import" not in code.replace("user.seline", "")
    with open_seline(tmp_path / "data") as seline:
        seline.data.save_json("a.json", {"n": 1})
        seline.data.save_json("b.json", {"n": 1})
    file = tmp_path / "data" / "a.json"
    if "user.seline" not in os.listxattr(file):
        pytest.skip("this file system keeps no extended attributes")
    before = file.stat()
    file.write_text('{"n": 2}\n')
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    out = run_python(tmp_path, "-c", code, "data").splitlines()

    assert out == ["BROKEN a.json", "sound b.json", "sound metadata.json"]
