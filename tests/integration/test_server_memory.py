"""Test what a server sets for its memory: the allocation threshold, and what is collected."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

MAPPED = """
import ctypes, sys

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info

if sys.argv[1] == "fixed":
    from seline.server.process import give_memory_back
    give_memory_back()
larger = bytearray(16 << 20)
del larger
before = mallinfo2().hblks
large = bytearray(1 << 20)
print(mallinfo2().hblks - before)
"""

COLLECTED = """
import asyncio, gc, os, signal, sys
from seline.server import run_server
from seline.settings import load_settings

def announce(running):
    print(gc.get_freeze_count() > 10 * len(gc.get_objects()))  # the latter without frozen ones
    os.kill(os.getpid(), signal.SIGTERM)

settings = load_settings(
    environ={}, arguments={"storage.data_dir": sys.argv[1], "server.port": 0}
)
asyncio.run(run_server(settings, announce=announce))
"""

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="mallinfo2 needs glibc 2.33 or newer",
)


@glibc
@pytest.mark.parametrize(("threshold", "mapped"), [("fixed", "1"), ("dynamic", "0")])
def test_a_fixed_threshold_maps_a_large_block_separately_after_a_larger_one(
    threshold: str, mapped: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", MAPPED, threshold], check=True, capture_output=True, text=True
    )

    assert process.stdout.split() == [mapped]


def test_a_server_leaves_what_its_start_made_out_of_collections(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", COLLECTED, tmp_path], check=True, capture_output=True, text=True
    )

    assert process.stdout.split() == ["True"]
