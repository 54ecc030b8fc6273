"""Each verb, for each caller, in each state of the volume: it works, or it is refused by name.

A cell of the table has one letter each for the owner of the data directory, for root, and for
another user:

  .  works: exit 0                    R  the volume is read-only: exit 1
  3  works, and reports damage        F  the volume is full: exit 6
  6  works, and reports that it is full
  C  works, and reports that it is read-only: exit 1
  D  may not read or write: exit 1   H  the destination does not answer: exit 1
  L  another process holds the directory: exit 7

A refusal prints a next step, and names the directory or a file in it.
"""

import ctypes
import itertools
import json
import os
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.command_line import Line, line_at
from tests.docs.test_complete import verbs
from tests.faults.small_filesystem import run, small_filesystem

OWNER: Final = 10_001
CALLERS: Final = {"owner": OWNER, "root": 0, "another user": 20_002}
CODES: Final = {".": 0, "3": 3, "6": 6, "C": 1, "R": 1, "F": 6, "D": 1, "H": 1, "L": 7}
STATES: Final = ("writable", "read-only", "full", "hanging", "served", "held")
TABLE: Final = """
verb                             writable  read-only  full  hanging  served  held
config show                      ...       ...        ...   ...      ...     ...
documents                        ..D       ..D        ..D   ..D      ..D     ..D
load a.json                      ..D       ..D        ..D   ..D      ..D     ..D
diff a.json                      ..D       ..D        ..D   ..D      ..D     ..D
backups a.json                   ..D       ..D        ..D   ..D      ..D     ..D
verify                           33D       33D        33D   33D      33D     33D
status                           33D       CCD        66D   33D      33D     33D
quarantine                       ..D       ..D        ..D   ..D      ..D     ..D
alerts                           ..D       ..D        ..D   ..D      ..D     ..D
jobs                             ..D       ..D        ..D   ..D      ..D     ..D
export                           33D       33D        33D   33D      33D     33D
destinations                     ..D       ..D        ..D   ..D      ..D     ..D
audit                            ..D       ..D        ..D   ..D      ..D     ..D
token list                       ..D       ..D        ..D   ..D      ..D     ..D
save a.json new.json             ..D       RRD        ..D   ..D      ..D     ..D
save large.json large.json       ..D       RRD        FFD   ..D      ..D     ..D
pin a.json BACKUP                ..D       RRD        ..D   ..D      ..D     ..D
unpin a.json BACKUP              ..D       RRD        ..D   ..D      ..D     ..D
restore a.json --yes             ..D       RRD        ..D   ..D      ..D     ..D
import export.json --yes         ..D       RRD        ..D   ..D      ..D     ..D
prune --yes                      ..D       ..D        ..D   ..D      ..D     ..D
reset broken.json --yes          ..D       RRD        ..D   ..D      ..D     ..D
delete b.json --yes              ..D       RRD        ..D   ..D      ..D     ..D
token create                     ..D       RRD        ..D   ..D      ..D     ..D
token revoke TOKEN --yes         ..D       RRD        ..D   ..D      ..D     ..D
jobs run usage                   ..D       ..D        ..D   ..D      ..D     ..D
exports list nas                 ..D       ..D        ..D   HHH      ..D     ..D
exports fetch nas FOLDER         ..D       ..D        ..D   HHH      ..D     ..D
exports restore nas --yes        ..D       RRD        ..D   HHD      ..D     ..D
drill nas                        ..D       ..D        ..D   HHH      ..D     ..D
migrate --commit-form first      ..D       RRD        ..D   ..D      LLD     LLD
key new                          ...       ...        ...   ...      ...     ...
demo                             ...       ...        ...   ...      ...     ...
bench --seconds 1                ..D       RRD        666   ..D      ..D     ..D
"""


def rows() -> dict[str, dict[str, str]]:
    """Return the table: the cells of each verb by state."""
    _, *lines = (line.rsplit(maxsplit=len(STATES)) for line in TABLE.strip().splitlines())
    return {verb: dict(zip(STATES, cells, strict=True)) for verb, *cells in lines}


@pytest.fixture(scope="module")
def template() -> Iterator[Line]:
    """Yield a directory with a filled data directory, which every user can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can run commands as other users")
    with tempfile.TemporaryDirectory(prefix="seline-who-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        nas = {"name": "nas", "url": f"file://{folder}/nas", "mode": "mirror", "same_disk": True}
        line = line_at(folder, SELINE_EXPORTS__DESTINATIONS=json.dumps([nas]))
        (folder / "scratch").chmod(0o1777)
        (folder / "new.json").write_text('{"n": 7}')
        (folder / "large.json").write_text(json.dumps({"text": "x" * 3_000_000}))
        for number, document in itertools.product(range(3), ("a.json", "b.json")):
            assert line("save", document, stdin=json.dumps({"n": number})).code == 0
        (folder / "export.json").write_text(line("export").out)
        assert line("token", "create").code == 0
        line("save", "broken.json", stdin="[1]")
        assert line("jobs", "run", "mirror").code == 0
        (line.data / "broken.json").write_bytes(b"\0\0\0\0")
        os.utime(line.data / "broken.json", (1, 1))
        run("chown", "-R", f"{OWNER}:{OWNER}", str(line.data), str(folder / "nas"))
        yield line


@contextmanager
def placed(template: Line, name: str, *, data: Path | None = None) -> Generator[Line]:
    """Yield a command line on a copy of the filled data directory."""
    folder = template.folder / name
    run("cp", "-a", str(template.data), str(data or folder))
    yield replace(template, environ={**template.environ, "SELINE_DATA_DIR": str(data or folder)})


@contextmanager
def writable(template: Line, name: str) -> Generator[Line]:
    with placed(template, name) as line:
        yield line


@contextmanager
def read_only(template: Line, name: str) -> Generator[Line]:
    with placed(template, name) as line:
        at = line.environ["SELINE_DATA_DIR"]
        run("mount", "--bind", at, at)
        try:
            run("mount", "-o", "remount,bind,ro", at)
            yield line
        finally:
            run("umount", "--lazy", at)


@contextmanager
def full(template: Line, name: str) -> Generator[Line]:
    point = template.folder / name
    with small_filesystem(point) as volume, placed(template, name, data=point / "data") as line:
        volume.fill("others")
        yield line


@contextmanager
def hanging(template: Line, name: str) -> Generator[Line]:
    """Export to a file system that is mounted, and that no program serves."""
    point = template.folder / f"{name}-nas"
    point.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no file system can be made here: {error}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    give_up = threading.Timer(60, lambda: os.close(server))
    try:
        if libc.mount(b"hanging", bytes(point), b"fuse", 0, options.encode()):
            pytest.skip(f"it cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        give_up.start()
        table = json.dumps([{"name": "nas", "url": f"file://{point}/exports", "timeout_s": 2}])
        with placed(template, name) as line:
            yield replace(line, environ={**line.environ, "SELINE_EXPORTS__DESTINATIONS": table})
    finally:
        libc.umount2(bytes(point), 2)
        give_up.cancel()
        if not give_up.finished.is_set():
            os.close(server)


@contextmanager
def beside_server(template: Line, name: str) -> Generator[Line]:
    with placed(template, name) as line:
        socket = Path(line.environ["SELINE_DATA_DIR"], ".seline", "control.sock")
        address = ("--host", "127.0.0.1", "--port", "0")
        server = replace(line, uid=OWNER).running("serve", *address, until=socket.exists)
        with server:
            yield line


@contextmanager
def beside_bot(template: Line, name: str) -> Generator[Line]:
    with placed(template, name) as line:
        ready = template.folder / "scratch" / name
        hold = ("hold", line.environ["SELINE_DATA_DIR"], str(ready))
        with replace(line, uid=OWNER).running(*hold, until=ready.exists):
            yield line


PLACES: Final[dict[str, Callable[[Line, str], AbstractContextManager[Line]]]] = {
    "writable": writable,
    "read-only": read_only,
    "full": full,
    "hanging": hanging,
    "served": beside_server,
    "held": beside_bot,
}


QUICK: Final = {"owner": ("writable",), "root": (), "another user": ("writable",)}
"""The states of the quick tier for each caller; `make prove` has all of them."""


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("state", "caller"),
    [
        pytest.param(state, caller, marks=[] if state in QUICK[caller] else pytest.mark.prove)
        for state, caller in itertools.product(STATES, CALLERS)
    ],
)
def test_every_verb_works_or_is_refused_by_name(state: str, caller: str, template: Line) -> None:
    at = list(CALLERS).index(caller)
    wrong: list[str] = []
    with PLACES[state](template, f"{state}-{at}") as line:
        line = replace(line, uid=CALLERS[caller])
        for verb, cells in rows().items():
            wrong += judged(line, verb, cells[state][at])
        wrong += foreign_files(line)
    assert not wrong, "\n".join(wrong)


def judged(line: Line, verb: str, expected: str) -> list[str]:
    """Run a verb; return what is not as the table says."""
    ran = line(*filled(line, verb).split())
    shown = f"{verb}: exit {ran.code}, not {expected}: {ran.err[-400:]}"
    if ran.code != CODES[expected]:
        return [shown]
    if expected in ".36C":
        return []
    places = (line.environ["SELINE_DATA_DIR"], str(line.folder / "nas"), "-nas/exports")
    names_place = any(place in ran.err for place in places)
    return [] if names_place and "Next: " in ran.err else [f"{shown} names no place or no step"]


def filled(line: Line, verb: str) -> str:
    """Return a verb with the names of a backup and a token that exist."""
    data = Path(line.environ["SELINE_DATA_DIR"])
    backup = min(path.name for path in (data / "backups").glob("a_*"))
    tokens = json.loads((data / ".seline" / "tokens.json").read_text())["tokens"]
    fetched = tempfile.mkdtemp(dir=line.folder / "scratch") + "/fetched"
    os.chmod(os.path.dirname(fetched), 0o777)
    named = {"BACKUP": backup, "TOKEN": tokens[0]["id"] if tokens else "none", "FOLDER": fetched}
    for word, value in named.items():
        verb = verb.replace(word, value)
    return verb


def foreign_files(line: Line) -> list[str]:
    """Return the files that the owner of the data directory does not own."""
    data = Path(line.environ["SELINE_DATA_DIR"])
    return [f"{path} is not the owner's" for path in data.rglob("*") if path.stat().st_uid != OWNER]


def test_every_verb_is_in_the_table() -> None:
    listed = {verb.removeprefix("seline ") for verb in verbs()} - {"serve"}

    assert {name for name in listed if any(row.startswith(name) for row in rows())} == listed
