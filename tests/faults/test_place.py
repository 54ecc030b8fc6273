"""The place: a volume that goes away, turns read-only or knows no attributes, and strangers on it.

V1   Nothing is followed out of the volume, and nothing that is no file is taken for a document.
V7   What cannot be written is refused by name, and the state ends by itself.
V12  What stands in the volume's place is never written to, read or tidied.
Real mounts where they are allowed; the skip says why where they are not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline import open_seline as open_awaited
from seline.blocking import Seline, open_seline
from seline.domain.document import Json
from seline.errors import (
    DocumentTooLarge,
    DocumentUnreadable,
    ImportRefused,
    NotSerializable,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
)
from seline.server import Serving, alarm, serving
from seline.storage.volume import capabilities
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.small_filesystem import NotAllowed, SmallFilesystem, run, small_filesystem
from tests.faults.test_damage import rewrite
from tests.integration.test_http import Client, settings_for
from tests.proof.figures import note

SUITE: Final = "place"
NAME: Final = "user_profile.json"
OTHER: Final = "notes.json"
VALUE: Final = {"userName": "Alex", "n": 2, "text": "words " * 40}


def fill(directory: Path, **settings: Any) -> None:
    with open_seline(directory, lock_wait_s=0, **settings) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        seline.data.save_json(OTHER, {"n": 1})


def checks_of(seline: Seline) -> Mapping[str, Mapping[str, str]]:
    return {check["name"]: check for check in seline.data.health()["checks"]}  # type: ignore[index,union-attr,misc,call-overload]


def tree(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return everything below a directory with mode, size and time: what a write would change."""
    below = [*directory.rglob("*"), directory]
    status = {str(path.relative_to(directory)): path.lstat() for path in below}
    return {name: (one.st_mode, one.st_size, one.st_mtime_ns) for name, one in status.items()}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Give a small file system of its own."""
    with small_filesystem(tmp_path / "volume") as mounted:
        yield mounted


# gone from under a running server


@dataclass(frozen=True, kw_only=True)
class Place:
    """A running server on a volume, and a client of its API."""

    server: Serving
    session: aiohttp.ClientSession
    client: Client

    async def probe(self, path: str) -> int:
        async with self.session.get(self.server.address + path) as got:
            return got.status

    async def call(self, method: str, path: str, body: Json = None) -> tuple[int, Any]:
        status, answer, _ = await self.client.call(method, path, body)
        return status, answer

    async def alert(self, type: str, state: str) -> None:
        """Wait until there is such an alert."""
        async with asyncio.timeout(10):
            while (type, state) not in [
                (one["type"], one["state"])
                for one in (await self.call("GET", "/alerts"))[1]["alerts"]
            ]:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(alarm, "LOOK_EVERY_S", 0.05)
    async with serving(settings_for(directory)) as server, aiohttp.ClientSession() as session:
        await server.acquired()
        for number in range(2):
            await server.data.save_json(NAME, {"n": number})
        yield Place(server=server, session=session, client=Client(session, server.address))


CHANGES: Final[tuple[tuple[str, str, Json], ...]] = (
    ("PUT", f"/documents/{NAME}", {"n": "never"}),
    ("PUT", "/documents/new.json", {"n": "never"}),
    ("DELETE", f"/documents/{NAME}", None),
    ("POST", "/restore-backup", {"filename": NAME}),
    ("POST", "/import", {"files": {NAME: {"n": "never"}}}),
)


async def refuses_every_change(place: Place, code: str) -> None:
    for method, path, body in CHANGES:
        status, answer = await place.call(method, path, body)
        assert (status, answer["code"]) == (503, code), (method, path)


async def still_reads(place: Place, value: Json) -> None:
    assert await place.call("GET", f"/documents/{NAME}") == (200, value)
    assert (await place.call("GET", "/export"))[1]["data"]["files"][NAME] == value
    assert (await place.call("POST", "/verify"))[1]["findings"] == []
    status, health = await place.call("GET", "/health")
    assert (status, health["status"]) == (200, "critical")
    assert await place.probe("/livez") == 200


@pytest.mark.parametrize("inside", ["", "data"], ids=["the mount point", "a directory on it"])
async def test_a_volume_unmounted_under_a_running_server_is_missed_and_taken_up_again(
    volume: SmallFilesystem, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if volume.device is None:
        pytest.skip("a tmpfs does not outlive its mount")
    async with running(volume.path / inside, monkeypatch) as place:
        run("umount", "--lazy", str(volume.path))

        await refuses_every_change(place, "volume_not_mounted")
        await still_reads(place, {"n": 1})
        assert await place.probe("/readyz") == 503
        await place.alert("wrong_mount", "open")
        assert os.listdir(volume.path) == [], "nothing was written to what stands there"

        run("mount", volume.device, str(volume.path))
        assert (await place.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        assert await place.probe("/readyz") == 200
        await place.alert("wrong_mount", "resolved")
    async with open_awaited(volume.path / inside, lock_wait_s=0) as seline:
        assert await seline.data.load_json(NAME) == {"n": 2}
        assert (await seline.data.verify()).findings == ()


async def test_another_volume_in_its_place_is_not_written_to(
    volume: SmallFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It even looks like ours: another one's documents, journal, log and socket lie there."""
    other = tmp_path / "other"
    await asyncio.to_thread(fill, other)
    (other / ".seline" / "audit.jsonl").write_text("theirs\n")
    (other / ".seline" / "control.sock").write_text("theirs")
    async with running(volume.path, monkeypatch) as place:
        before = tree(other)
        run("mount", "--bind", str(other), str(volume.path))
        try:
            await refuses_every_change(place, "volume_not_mounted")
            await still_reads(place, {"n": 1})
            assert await place.probe("/readyz") == 503
            await place.alert("wrong_mount", "open")
            assert tree(other) == before
        finally:
            run("umount", str(volume.path))
        assert (await place.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        run("mount", "--bind", str(other), str(volume.path))
    try:
        assert tree(other) == before, "nor when the server ends"
    finally:
        run("umount", str(volume.path))


async def test_a_server_waits_for_its_mount_and_seeds_nothing_meanwhile(
    tmp_path: Path,
) -> None:
    """Platforms may mount after the start (V12)."""
    point = tmp_path / "volume"
    point.mkdir()
    if kind_of(point) != kind_of(Path("/")):
        pytest.skip("the temporary directory lies on a mount of its own")
    settings = settings_for(point, storage__require_mount=True)
    async with serving(settings) as server, aiohttp.ClientSession() as session:
        place = Place(server=server, session=session, client=Client(session, server.address))
        await asyncio.sleep(0.2)
        assert await place.probe("/livez") == 200
        assert await place.probe("/readyz") == 503
        assert os.listdir(point) == []
        with small_filesystem(point):
            async with asyncio.timeout(10):
                await server.acquired()
            assert await place.probe("/readyz") == 200
            assert (await place.call("PUT", f"/documents/{NAME}", {"n": 1}))[0] == 201
            await server.close()
        assert os.listdir(point) == []


# read-only


def remount(point: Path, how: str) -> None:
    """Remount; what is open for writing at this very moment (a line of audit) makes it busy."""
    for _ in range(50):
        try:
            run("mount", "-o", f"remount,{how}", str(point))
        except NotAllowed as refused:
            if "busy" not in str(refused):
                pytest.skip(str(refused))
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the mount stayed busy")


async def test_a_read_only_remount_refuses_changes_and_ends_by_itself(
    volume: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(volume.path, monkeypatch) as place:
        remount(volume.path, "ro")

        await refuses_every_change(place, "volume_read_only")
        await still_reads(place, {"n": 1})
        assert await place.probe("/readyz") == 200, "a degraded volume stays ready"
        await place.alert("writes_refused", "open")

        remount(volume.path, "rw")
        assert (await place.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        await place.alert("writes_refused", "resolved")
        health = (await place.call("GET", "/health"))[1]
        assert health["status"] == "healthy", "a mount option is no disk error"
        assert os.listdir(volume.path / ".seline" / "staging") == []


def test_what_is_broken_on_a_read_only_volume_is_served_and_mended_once_it_is_writable(
    volume: SmallFilesystem,
) -> None:
    with open_seline(volume.path, storage__cache_bytes_max=0, storage__settle_s=0.0) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        rewrite(volume.path / NAME, b"{")
        remount(volume.path, "ro")
        for _ in range(2):
            assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert [one.outcome for one in seline.data.verify().findings] == ["recovered"]
        assert "served_from_memory" in checks_of(seline)
        assert (volume.path / NAME).read_bytes() == b"{"

        remount(volume.path, "rw")
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert "recovered" in checks_of(seline)
        [item] = seline.data.quarantine()
        assert seline.data.read_quarantine(item.name) == b"{"


def test_a_read_only_volume_is_refused_by_name_at_the_start(volume: SmallFilesystem) -> None:
    fill(volume.path)
    remount(volume.path, "ro")
    with pytest.raises(VolumeReadOnly):
        open_seline(volume.path, lock_wait_s=0)
    remount(volume.path, "rw")
    with open_seline(volume.path, lock_wait_s=0) as seline:
        assert seline.data.load_json(NAME) == VALUE


# without attributes


@contextmanager
def without_attributes(point: Path) -> Iterator[Path]:
    """Mount a ramfs, which keeps no attributes and does not say how large it is."""
    point.mkdir()
    try:
        run("mount", "-t", "ramfs", "ramfs", str(point))
    except NotAllowed as refused:
        pytest.skip(str(refused))
    try:
        yield point
    finally:
        run("umount", "--lazy", str(point))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Path]:
    with without_attributes(tmp_path / "plain") as point:
        yield point


def test_without_attributes_health_says_so_and_everything_else_works(plain: Path) -> None:
    with open_seline(plain) as seline:
        for number in range(12):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        checks = checks_of(seline)
        assert "checksums: unsupported" in checks["volume"]["detail"]
        oldest = seline.data.backups(NAME)[-1]
        seline.data.pin(NAME, oldest.name)
        with seline.data.transaction(NAME, OTHER) as change:
            change[NAME], change[OTHER] = {"n": 1, "z": VALUE}, {"n": 1}
        for number in range(12):
            seline.data.save_json(NAME, {**VALUE, "later": number})
        kept = seline.data.backups(NAME)
        assert [one.pinned for one in kept] == [False] * 5 + [True]
        assert kept[-1].name == oldest.name
        assert seline.data.restore_from_backup(NAME)
        assert seline.data.load_json(NAME) == {**VALUE, "later": 10}
        seline.data.delete(OTHER)
        assert seline.data.verify().findings == ()
        assert seline.data.quarantine() == []


@pytest.mark.parametrize(
    "broken", [b"", b'{\n  "userName"', b"\0" * 80], ids=["empty", "cut", "NULs"]
)
def test_without_attributes_what_is_torn_is_still_found_and_recovered(
    plain: Path, broken: bytes
) -> None:
    fill(plain)
    rewrite(plain / NAME, broken)
    with open_seline(plain, storage__settle_s=0.0) as seline:
        for _ in range(2):
            assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        [item] = seline.data.quarantine()
        assert seline.data.read_quarantine(item.name) == broken


def test_without_attributes_what_a_crash_left_in_staging_is_swept(plain: Path) -> None:
    fill(plain)
    (plain / ".seline" / "staging" / "00000001").write_bytes(b'{"n": "never answ')
    with open_seline(plain) as seline:
        assert os.listdir(plain / ".seline" / "staging") == []
        assert seline.data.load_json(NAME) == VALUE


# strangers


DIRECTORIES: Final = ("backups", "quarantine", ".seline", ".seline/staging", ".seline/backups")


def a_link(path: Path) -> None:
    outside = path.parents[len(path.parents) - 1] / "nowhere"
    path.symlink_to(outside)


def a_link_out(path: Path) -> None:
    """Lead to a directory outside the volume, in which nothing may come to lie."""
    outside = _outside(path)
    outside.mkdir()
    path.symlink_to(outside)


def _outside(path: Path) -> Path:
    return next(one for one in path.parents if one.name == "data").with_name("outside")


STRANGERS: Final[Mapping[str, Callable[[Path], None]]] = {
    "a file": Path.touch,
    "a FIFO": os.mkfifo,
    "a dangling link": a_link,
    "a link out of the volume": a_link_out,
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("name", DIRECTORIES)
def test_what_is_no_directory_where_one_must_be_is_named_and_not_followed(
    tmp_path: Path, name: str, stranger: str
) -> None:
    directory = tmp_path / "data"
    fill(directory)
    moved = tmp_path / "moved"
    (directory / name).rename(moved)
    STRANGERS[stranger](directory / name)
    before = tree(directory)

    with pytest.raises(VolumeFailed, match=Path(name).name):
        open_seline(directory, lock_wait_s=0)

    assert tree(directory) == before
    assert not any(_outside(directory / name).glob("*"))
    (directory / name).unlink()
    moved.rename(directory / name)
    with open_seline(directory, lock_wait_s=0) as seline:
        assert seline.data.load_json(NAME) == VALUE
        assert len(seline.data.backups(NAME)) == 2


def test_a_link_put_in_the_place_of_backups_under_a_running_store_is_not_followed(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "data"
    with open_seline(directory, lock_wait_s=0) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        shutil.rmtree(directory / "backups")
        a_link_out(directory / "backups")

        with pytest.raises(VolumeFailed, match="backups"):
            seline.data.save_json(NAME, {"n": "never"})
        assert seline.data.load_json(NAME) == VALUE
        assert os.listdir(tmp_path / "outside") == []

        (directory / "backups").unlink()
        seline.data.save_json(NAME, {"n": 9}, shrink=True)
        [backup] = seline.data.backups(NAME)
        assert seline.data.read_backup(NAME, backup.name) == VALUE


def a_socket(path: Path) -> None:
    held = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{held}/{path.name}")
    finally:
        os.close(held)


def a_link_to_a_file_outside(path: Path) -> None:
    outside = _outside(path)
    outside.write_text('{"from": "outside"}')
    path.symlink_to(outside)


ODD: Final[Mapping[str, Callable[[Path], None]]] = {
    "an empty directory": Path.mkdir,
    "a directory with files": lambda path: (path.mkdir(), (path / "x.json").write_text("{}")),  # type: ignore[func-returns-value]
    "a dangling link": a_link,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to another document": lambda path: path.symlink_to(OTHER),
    "a link to a file outside": a_link_to_a_file_outside,
    "a socket": a_socket,
    "a FIFO": os.mkfifo,
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_where_a_document_must_be_is_neither_followed_nor_missing(
    tmp_path: Path, odd: str
) -> None:
    directory = tmp_path / "data"
    fill(directory)
    (directory / NAME).unlink()
    ODD[odd](directory / NAME)
    kind = stat.S_IFMT((directory / NAME).lstat().st_mode)
    with open_seline(directory, lock_wait_s=0) as seline:
        for attempt in (
            lambda: seline.data.load_json(NAME, default={"invented": True}),
            lambda: seline.data.save_json(NAME, {"n": 1}),
            lambda: seline.data.delete(NAME),
            lambda: seline.data.restore(NAME),
            lambda: seline.data.import_data({"files": {NAME: {"n": 1}}}),
        ):
            with pytest.raises(DocumentUnreadable):
                attempt()
        export = seline.data.export_all_data()
        assert (export["files"], export["unrecoverable"]) == ({OTHER: {"n": 1}}, [NAME])
        assert [one.outcome for one in seline.data.verify().findings] == ["unreadable"]
        assert stat.S_IFMT((directory / NAME).lstat().st_mode) == kind

        seline.data.reset(NAME)
        assert seline.data.restore_from_backup(NAME)
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert seline.data.load_json(OTHER) == {"n": 1}
    assert os.listdir(directory / ".seline" / "staging") == []
    outside = tmp_path / "outside"
    assert not outside.exists() or outside.read_text() == '{"from": "outside"}'


def test_a_link_among_the_backups_is_never_taken_for_one(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    fill(directory)
    outside = tmp_path / "outside.json"
    outside.write_text('{"from": "outside"}')
    (directory / "backups" / "user_profile_20990101_000000.json").symlink_to(outside)
    rewrite(directory / NAME, b"")
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0.0) as seline:
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert seline.data.backups(NAME)[0].verdict == "unreadable"
        for number in range(8):
            seline.data.save_json(NAME, {**VALUE, "later": number})
    assert outside.read_text() == '{"from": "outside"}'


def test_what_belongs_to_somebody_else_is_unreadable_and_not_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user and come back")
    fill(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        if path != tmp_path / NAME:
            os.chown(path, 65534, 65534)
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        os.seteuid(65534)
        try:
            with pytest.raises(DocumentUnreadable, match="EACCES"):
                seline.data.load_json(NAME, default={"invented": True})
            assert seline.data.load_json(OTHER) == {"n": 1}
        finally:
            os.seteuid(0)
        assert seline.data.load_json(NAME) == VALUE


def test_lost_and_found_and_foreign_files_are_counted_and_never_touched(
    volume: SmallFilesystem,
) -> None:
    fill(volume.path)
    mine = volume.path / "video.mp4"
    mine.write_bytes(bytes(3 << 20))
    lost = volume.path / "lost+found"
    lost.mkdir(exist_ok=True)
    (lost / "#12.json").write_text("{")
    strangers = {path: path.lstat() for path in (mine, lost, lost / "#12.json")}
    with open_seline(volume.path, storage__settle_s=0.0) as seline:
        assert seline.data.health()["total_size_mb"] > 3  # type: ignore[operator]
        seline.data.verify()
        seline.data.prune()
        seline.data.delete(OTHER, purge=True)
        seline.data.import_data({"files": {NAME: {"n": 7}}}, mode="replace")
        assert [info.name for info in seline.data.documents()] == [NAME]
        assert set(seline.data.export_all_data()["files"]) == {NAME}  # type: ignore[arg-type]
    for path, before in strangers.items():
        after = path.lstat()
        assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
            before.st_ino,
            before.st_mtime_ns,
            before.st_mode,
        )


# many, large and deep


def nested(levels: int) -> Json:
    value: Json = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def test_two_hundred_levels_are_taken_and_one_more_is_refused_with_its_path(
    tmp_path: Path,
) -> None:
    with open_seline(tmp_path, storage__settle_s=0.0) as seline:
        seline.data.save_json(NAME, nested(199))
        seline.data.save_json(NAME, nested(200))
        assert seline.data.load_json(NAME) == nested(200)
        for attempt, kind in (
            (lambda: seline.data.save_json(NAME, nested(201)), NotSerializable),
            (lambda: seline.data.save_json(NAME, {"a": nested(200)}), NotSerializable),
            (lambda: seline.data.import_data({"files": {NAME: nested(201)}}), ImportRefused),
        ):
            with pytest.raises(kind, match=r"\$.*\[0\]\[0\].*deeper than 200"):
                attempt()
        assert seline.data.load_json(NAME) == nested(200)


@pytest.mark.parametrize("levels", [201, 100_000])
def test_a_hand_edit_that_is_too_deep_is_set_aside_and_recovered(
    tmp_path: Path, levels: int
) -> None:
    with open_seline(tmp_path, storage__settle_s=0.0) as seline:
        seline.data.save_json(NAME, nested(200))
        deep = b"[" * levels + b"]" * levels
        (tmp_path / NAME).write_bytes(deep)
        for _ in range(2):
            assert seline.data.load_json(NAME) == nested(200)
        [item] = seline.data.quarantine()
        assert seline.data.read_quarantine(item.name) == deep
        assert "nested deeper than 200" in checks_of(seline)["recovered"]["detail"]


def text_of_size(size_bytes: int) -> str:
    """Return a text whose document, in quotes and with a final newline, has so many bytes."""
    return "x" * (size_bytes - 3)


def test_the_largest_document_is_taken_and_one_byte_more_is_refused_with_numbers(
    tmp_path: Path,
) -> None:
    limit = 1 << 16
    with open_seline(tmp_path, storage__document_bytes_max=limit, storage__settle_s=0.0) as seline:
        seline.data.save_json(NAME, text_of_size(limit))
        assert (tmp_path / NAME).stat().st_size == limit
        with pytest.raises(DocumentTooLarge) as refused:
            seline.data.save_json(NAME, text_of_size(limit + 1))
        assert refused.value.details == {"size_bytes": limit + 1, "size_bytes_max": limit}
        with (tmp_path / OTHER).open("wb") as by_hand:
            by_hand.write(b'"' + b"x" * limit + b'"')
        with pytest.raises(DocumentUnreadable, match=f"{limit + 2} bytes, {limit} are allowed"):
            seline.data.load_json(OTHER)
        assert seline.data.load_json(NAME) == text_of_size(limit)


LARGE: Final = """
import resource, sys
from seline.blocking import open_seline
from seline.errors import DocumentTooLarge

limit = 32 << 20
with open_seline(sys.argv[1], storage__volume_limit_mb=500) as seline:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(3):
        seline.data.save_json("big.json", str(number) + "x" * (limit - 4))
        value = seline.data.load_json("big.json")
        assert value == str(number) + "x" * (limit - 4)
    del value
    try:
        seline.data.save_json("big.json", "x" * (limit - 2))
    except DocumentTooLarge as error:
        assert error.details["size_bytes"] == limit + 1
    else:
        raise AssertionError("it was taken")
    assert seline.data.verify().findings == ()
    with seline.data.exported() as snapshot:
        assert sum(len(piece) for piece in snapshot.open("big.json")) == limit
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_thirty_two_mebibytes_are_taken_in_bounded_memory(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown_mb = int(done.stdout) / 1024
    note(
        SUITE,
        "a document of 32 MiB: saved three times, verified, exported",
        tried=3,
        failures=0,
        where=kind_of(tmp_path),
        more_memory=f"{grown_mb:.0f} MB",
    )
    assert grown_mb < 8 * 32


MANY: Final = 10_000
OPEN_S, HEALTH_S, LIST_S, EXPORT_S = 10.0, 5.0, 10.0, 30.0
"""Generous: what these tell is that nothing takes minutes, on a slow machine neither."""


@pytest.mark.prove(share=2)
@pytest.mark.timeout(600)
async def test_ten_thousand_documents_are_quick_and_the_next_one_is_refused(
    tmp_path: Path, share_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if share_s < 60:
        pytest.skip("the slice leaves less than a minute")
    monkeypatch.setattr(
        capabilities, "mount_of", lambda _path: None
    )  # its own files are what counts
    took: dict[str, float] = {}
    with fast_place(tmp_path) as place:
        await _save_many(place)
        with _timed(took, "open_s"):
            seline = await open_awaited(place, lock_wait_s=0)
        data = seline.data
        for what, work in (
            ("health_s", data.health),
            ("list_s", data.storage_info),
            ("verify_s", data.verify),
            ("export_s", data.export_all_data),
        ):
            with _timed(took, what):
                answer = await work()
        assert len(answer["files"]) == MANY  # type: ignore[index,arg-type]
        await _is_full(data)
        with _timed(took, "save_s"):
            await data.save_json("d0.json", {"n": "later"})
        await seline.close()
        where = kind_of(place)
    shown = {name: f"{seconds:.2f}" for name, seconds in took.items()}
    what = "10,000 documents with a backup each"
    note(SUITE, what, tried=MANY, failures=0, where=where, **shown)
    assert took["open_s"] < OPEN_S
    assert took["health_s"] < HEALTH_S
    assert took["list_s"] < LIST_S
    assert took["export_s"] < EXPORT_S
    assert took["save_s"] < 1


async def _save_many(place: Path) -> None:
    """Save them all, and all of them once more."""
    async with open_awaited(place, lock_wait_s=0) as seline:
        for start in range(0, 2 * MANY, 1000):
            await asyncio.gather(
                *(
                    seline.data.save_json(f"d{number % MANY}.json", {"n": number, "text": "words"})
                    for number in range(start, start + 1000)
                )
            )


async def _is_full(data: Any) -> None:
    with pytest.raises(VolumeFull, match="10000"):
        await data.save_json("one_more.json", {})
    await data.delete("d9999.json")
    with pytest.raises(VolumeFull):
        async with data.transaction("e1.json", "e2.json") as change:
            change["e1.json"] = change["e2.json"] = {"n": 1}
    assert await data.load_json("e1.json", default=None) is None
    await data.save_json("one_more.json", {})


def test_documents_that_were_removed_by_hand_make_room_for_others(tmp_path: Path) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__documents_max=3) as seline:
        for number in range(5):
            seline.data.save_json(OTHER, {"n": number})
            (tmp_path / OTHER).unlink()
        for name in ("c.json", "d.json", "e.json"):
            seline.data.save_json(name, {"n": 1})
        with pytest.raises(VolumeFull):
            seline.data.save_json("f.json", {"n": 1})


@contextmanager
def _timed(took: dict[str, float], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    took[what] = time.perf_counter() - started
