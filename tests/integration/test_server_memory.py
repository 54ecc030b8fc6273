"""Test the allocation threshold that lets a server return freed memory to the system."""

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

if sys.argv[1] == "fixed":
    from seline.server.process import give_memory_back
    give_memory_back()
larger = bytearray(16 << 20)
del larger
before = mallinfo2().hblks
large = bytearray(1 << 20)
print(mallinfo2().hblks - before)
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
