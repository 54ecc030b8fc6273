"""A server's memory does not grow by what it once needed for a moment."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MAPPED = """
import ctypes, sys

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info

if sys.argv[1] == "ours":
    from seline.server.memory import give_memory_back
    give_memory_back()
del_me = bytearray(16 << 20)
del del_me
before = mallinfo2().hblks
kept = bytearray(1 << 20)
print(mallinfo2().hblks - before)
"""

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="only glibc from 2.33 on tells what it has mapped",
)


@glibc
@pytest.mark.parametrize(("whose", "mapped"), [("ours", "1"), ("any other", "0")])
def test_a_large_block_is_mapped_on_its_own_even_after_a_larger_one(
    whose: str, mapped: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", MAPPED, whose], check=True, capture_output=True, text=True
    )

    assert told.stdout.split() == [mapped]
