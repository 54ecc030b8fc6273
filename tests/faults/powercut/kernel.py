"""Read the file-changing system calls below a directory from an `strace` log."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

Seen: TypeAlias = tuple[str, str]
"""A system call and the path that it changed, relative to the directory."""

ON_DESCRIPTORS: Final = frozenset(
    {
        "copy_file_range", "fallocate", "fchmod", "fchown", "fdatasync", "fremovexattr",
        "fsetxattr", "fsync", "ftruncate", "pwrite64", "pwritev", "pwritev2", "sendfile", "splice",
        "sync_file_range", "syncfs", "utimensat", "write", "writev",
    }
)  # fmt: skip
ON_NAMES: Final = frozenset(
    {
        "fchmodat", "fchmodat2", "fchownat", "link", "linkat", "mkdir", "mkdirat", "mknod",
        "mknodat", "rename", "renameat", "renameat2", "rmdir", "setxattr", "removexattr", "symlink",
        "symlinkat", "truncate", "unlink", "unlinkat", "chmod", "creat", "open", "openat",
    }
)  # fmt: skip
NOT_RECORDED: Final = {
    "fchmodat": "the probe sets a mode to what it is, to see how fine the clock of the disk is",
    "chmod": "the same, by path",
}
"""Calls that change nothing that a power cut could undo."""
SAME_AS: Final = {"mkdir": "mkdirat", "unlink": "unlinkat", "rmdir": "unlinkat"}
_CALL: Final = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
_DESCRIPTOR: Final = re.compile(r"^(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>")
_NAME_AFTER: Final = re.compile(r'(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>, "(?P<name>[^"]*)"')


def record_under_strace(operation: str, volume: Path, log: Path) -> list[Seen]:
    """Record an operation in a process that strace follows; return what the recorder says."""
    traced = ",".join(sorted(ON_DESCRIPTORS | ON_NAMES))
    done = subprocess.run(
        [
            "strace", "-f", "-y", "-s", "4096", "-e", f"trace=?{traced.replace(',', ',?')}",
            "-o", str(log), sys.executable, "-m", "tests.faults.powercut.recorder", operation,
            str(volume),
        ],
        check=True, capture_output=True, text=True, env={**os.environ, "SELINE_STRICT": ""},
    )  # fmt: skip
    calls = json.loads(done.stdout.splitlines()[-1])
    return [(name, path) for name, path in calls if name != "acknowledged"]


def changes_below(volume: Path, log: Path) -> list[Seen]:
    """Return the calls that changed something below `volume`, in the kernel's order."""
    root = os.path.realpath(volume)
    seen = (_seen(line) for line in _whole_lines(log.read_text(encoding="utf-8")))
    return [
        (name, os.path.relpath(path, root))
        for name, path in (one for one in seen if one is not None)
        if path == root or path.startswith(f"{root}/")
    ]


def _whole_lines(text: str) -> Iterator[str]:
    """Yield each call once it has returned; the parts of an interrupted line are joined."""
    unfinished: dict[str, str] = {}
    for line in text.splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            unfinished[thread] = rest.removesuffix("<unfinished ...>").rstrip()
        elif rest.startswith("<... "):
            yield unfinished.pop(thread) + rest.partition("resumed>")[2]
        else:
            yield rest


def _seen(line: str) -> Seen | None:
    call = _CALL.match(line)
    if call is None or int(call["result"]) < 0 or call["name"] in NOT_RECORDED:
        return None
    name, arguments = call["name"], call["arguments"]
    if name == "openat" and not re.search(r"O_CREAT|O_TRUNC", arguments):
        return None
    path = _opened(line) if name == "openat" else _changed(name, arguments)
    return None if path is None else (SAME_AS.get(name, name), path.removesuffix(" (deleted)"))


def _opened(line: str) -> str | None:
    opened = re.search(r"= \d+<([^>]*)>", line)
    return opened[1] if opened else None


def _changed(name: str, arguments: str) -> str | None:
    """Return the file that a call on a descriptor changes, or the last name of another call."""
    if name in ON_DESCRIPTORS:
        first = _DESCRIPTOR.match(arguments)
        return first["path"] if first else None
    named = list(_NAME_AFTER.finditer(arguments))
    if named:
        return os.path.join(named[-1]["path"], named[-1]["name"])
    plain = re.findall(r'"([^"]*)"', arguments)
    return os.path.abspath(plain[-1]) if plain else None
