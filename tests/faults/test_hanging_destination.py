"""A destination that does not answer delays no start, no other destination and no end of a process.

It is a file system that is mounted and that no program serves, as a network mount whose server is
gone.
"""

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seline import open_seline
from seline.errors import ExportFailed
from seline.settings import load_settings
from tests.command_line import line_at, served

MNT_DETACH = 2
QUICK_S = 25.0
LIMIT_S = 4.0


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """Yield a path for which every call waits until the test ends."""
    point = tmp_path / "hanging"
    point.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no file system can be made here: {error}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    give_up = threading.Timer(2 * QUICK_S, lambda: os.close(server))
    try:
        if libc.mount(b"hanging", bytes(point), b"fuse", 0, options.encode()):
            pytest.skip(f"it cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        give_up.start()  # every call that waits then fails, and with it the test
        yield point / "seline"
    finally:
        libc.umount2(bytes(point), MNT_DETACH)
        if not give_up.finished.is_set():
            give_up.cancel()
            os.close(server)


def destinations(**folders: Path) -> str:
    return json.dumps(
        [
            {"name": name, "url": f"file://{at}", "timeout_s": LIMIT_S}
            for name, at in folders.items()
        ]
    )


def in_time(work: Callable[[], None]) -> None:
    started = time.monotonic()
    work()
    assert time.monotonic() - started < QUICK_S


@pytest.mark.prove
def test_no_command_and_no_start_waits_for_a_destination(tmp_path: Path, hanging: Path) -> None:
    line = line_at(
        tmp_path,
        SELINE_EXPORTS__DESTINATIONS=destinations(nas=hanging),
        SELINE_EXPORTS__RESTORE_FROM="off",
    )

    def use() -> None:
        assert line("save", "a.json", stdin="[1]").code == 0
        assert line("load", "a.json").value() == [1]
        assert line("config", "show").code == 0
        assert "exports" in line("status").out
        with served(line):
            assert line("load", "a.json").value() == [1]

    in_time(use)


@pytest.mark.prove
async def test_a_hanging_destination_takes_no_time_of_another(
    tmp_path: Path, hanging: Path
) -> None:
    settings = load_settings(
        environ={"SELINE_EXPORTS__DESTINATIONS": destinations(gone=hanging, nas=tmp_path / "nas")},
        arguments={"storage.data_dir": str(tmp_path / "data"), "exports.restore_from": "off"},
    )
    started = time.monotonic()
    async with open_seline(settings=settings) as seline:
        await seline.data.save_json("a.json", [1])
        run = asyncio.create_task(seline.exports.run())
        while not (written := [*(tmp_path / "nas").glob("*/manifest.json")]):
            assert not run.done()
            await asyncio.sleep(0.05)
        with pytest.raises(ExportFailed, match=r"gone: .* took over .*[.;] nas: ") as failed:
            await run
        assert written[0].parent.name in failed.value.message
        at_once = time.monotonic()
        with pytest.raises(ExportFailed, match=r"gone: .* does not answer.*[.;] nas: nothing"):
            await seline.exports.run()
        assert time.monotonic() - at_once < LIMIT_S / 2, (
            "no further call waits behind the one that hangs"
        )
    assert time.monotonic() - started < QUICK_S


@pytest.mark.prove
def test_a_hanging_destination_does_not_keep_a_process(tmp_path: Path, hanging: Path) -> None:
    line = line_at(
        tmp_path,
        SELINE_EXPORTS__DESTINATIONS=destinations(nas=hanging),
        SELINE_EXPORTS__RESTORE_FROM="off",
    )
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, seline\n"
        "async def main():\n"
        "    async with seline.open_seline('data') as opened:\n"
        "        try:\n"
        "            await opened.exports.run()\n"
        "        except seline.SelineError as error:\n"
        "            print(error.message)\n"
        "asyncio.run(main())\n"
    )

    def use() -> None:
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=tmp_path, env=dict(line.environ), capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert b"took over" in done.stdout, done.stderr

    in_time(use)
