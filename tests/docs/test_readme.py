"""The documents cannot lie: their code runs, their routes and commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from seline import errors
from seline.blocking import open_seline
from seline.cli.errors import EXIT_FOR
from seline.errors import SelineError
from seline.http.problems import STATUS_FOR, status_of
from seline.http.routes import PREFIX, ROUTES
from tests.docs.blocks import ROOT, blocks

DOCUMENTS = ["README.md", "docs/bots.md", "docs/reading-a-volume.md", "docs/errors.md"]


BOT = """
import asyncio, os
os.environ["PORT"] = "0"

class Bot:
    async def run(self):
        print(await self.data.load_json("user_profile.json"))

async def main(bot):
{}

asyncio.run(main(Bot()))
"""


def run(code: str, directory: Path, *arguments: str) -> str:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workers")])}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    awaited, blocking, within_a_bot = blocks("README.md", "python")
    assert run(awaited, tmp_path) == "{'userName': 'Alex', 'location': 'Lyon', 'visits': 1}\n"
    assert "Alex" in run(BOT.format(indent(within_a_bot, "    ")), tmp_path)
    run(blocking + "\nassert profile == {'userName': 'Alex'}", tmp_path)


def test_the_first_lines_are_the_two_commands() -> None:
    first, *_ = blocks("README.md", "sh")
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make run", "make test"]


def test_every_route_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"/[a-z][a-z/{}-]*[a-z}]", text))
    for route in ROUTES:
        if route.scope != "control":
            assert route.path.removeprefix(PREFIX) in told, route.path


def test_every_command_in_the_documents_exists(tmp_path: Path) -> None:
    known = run("import sys; sys.argv = ['seline', '--help']; from seline.cli import main; main()",
                tmp_path)  # fmt: skip
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for verb in re.findall(r"(?:`|^)seline ([a-z]+)\b", text, re.MULTILINE):
            assert re.search(rf"^  {verb} ", known, re.MULTILINE), f"{document}: {verb}"


def test_a_volume_is_read_without_seline(tmp_path: Path) -> None:
    [code] = blocks("docs/reading-a-volume.md", "python")
    assert "seline import" not in code.replace("user.seline", "")
    with open_seline(tmp_path / "data") as seline:
        if not next(c for c in seline._awaited.data._lifetime.store.capabilities()).present:
            pytest.skip("this file system keeps no extended attributes")
        seline.data.save_json("a.json", {"n": 1})
        seline.data.save_json("b.json", {"n": 1})
    file = tmp_path / "data" / "a.json"
    before = file.stat()
    file.write_text('{"n": 2}\n')
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    out = run(code, tmp_path, "data").splitlines()
    assert out == ["BROKEN a.json", "sound b.json", "no checksum metadata.json"]


def _kinds() -> list[type[SelineError]]:
    return sorted(STATUS_FOR, key=lambda kind: kind.code)


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.code)
def test_every_error_is_documented(kind: type[SelineError]) -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{kind.code}` \|.*$", text, re.MULTILINE)
    assert row is not None
    cells = [cell.strip() for cell in row[0].strip("|").split("|")]
    assert cells[2] == str(status_of(kind()))
    assert cells[3] == str(int(EXIT_FOR[kind.code]))
    assert kind.hint in row[0]


def test_the_table_of_errors_has_no_strangers() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert told == {kind.code for kind in STATUS_FOR}
    assert errors.SelineError.code not in told
