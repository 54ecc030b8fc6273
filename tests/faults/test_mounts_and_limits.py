"""Where the volume is: unmounted, replaced, read-only, without attributes, with foreign files.

V1   No link leads out of the volume, and only a regular file is a document.
V7   A refused write raises a named error, and the state ends when its cause ends.
V12  Another volume that is mounted at the path is neither read nor changed.
The tests use real mounts; where those are not permitted, a test is skipped with the reason.
"""

import asyncio
import errno
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline import open_seline as open_awaited
from seline.alerts import process
from seline.blocking import Seline, open_seline
from seline.domain.document import Json
from seline.errors import (
    DocumentTooLarge,
    DocumentUnreadable,
    ImportRefused,
    NotSerializable,
    OutcomeUnknown,
    TooManyDocuments,
    VolumeFailed,
    VolumeReadOnly,
)
from seline.server import Serving, serving
from seline.storage.volume import capabilities, files
from seline.storage.volume.commit import exchange_form
from seline.storage.volume.commit.record import RECORD_NAME, decode_record
from seline.storage.volume.commit.replay import Replay
from seline.storage.volume.journal.form import CHECKPOINT_AFTER_S
from seline.storage.volume.mounts import journal_missing, mount_of
from seline.storage.volume.reopen import REOPEN_EVERY_S
from seline.storage.volume.writer import IDLE_AFTER_S
from tests.clocks import FakeClock
from tests.faults.forms import PUBLISH_WITHIN_MS, each_form_at_once
from tests.faults.injection import failing_call, store_of
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.small_filesystem import SmallFilesystem, Unavailable, run, small_filesystem
from tests.faults.test_damage import rewrite
from tests.http_client import Client, settings_for
from tests.proof.figures import note

pytestmark = each_form_at_once

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
    return {check["name"]: check for check in seline.health()["checks"]}  # type: ignore[index,union-attr,misc,call-overload]


def tree(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, size and mtime of everything below a directory, which any write would change."""
    below = [*directory.rglob("*"), directory]
    statuses = {str(path.relative_to(directory)): path.lstat() for path in below}
    return {
        name: (status.st_mode, status.st_size, status.st_mtime_ns)
        for name, status in statuses.items()
    }


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """Yield a small file system."""
    with small_filesystem(tmp_path / "volume") as mounted:
        yield mounted


# the volume changes below a running server


@dataclass(frozen=True, kw_only=True)
class ServerUnderTest:
    """A server that runs on a volume, and a client of its API."""

    running: Serving
    session: aiohttp.ClientSession
    client: Client

    async def probe(self, path: str) -> int:
        async with self.session.get(self.running.address + path) as response:
            return response.status

    async def call(self, method: str, path: str, body: Json = None) -> tuple[int, Any]:
        status, answer, _ = await self.client.call(method, path, body)
        return status, answer

    async def wait_for_alert(self, type: str, state: str) -> None:
        """Wait until an alert of this type is in this state."""
        async with asyncio.timeout(10):
            while (type, state) not in [
                (alert["type"], alert["state"])
                for alert in (await self.call("GET", "/alerts"))[1]["alerts"]
            ]:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def start_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[ServerUnderTest]:
    monkeypatch.setattr(process, "EVALUATE_EVERY_S", 0.05)
    async with (
        serving(settings_for(directory, **settings)) as running,
        aiohttp.ClientSession() as session,
    ):
        await running.acquired()
        for number in range(2):
            await running.data.save_json(NAME, {"n": number})
        yield ServerUnderTest(
            running=running, session=session, client=Client(session, running.address)
        )


CHANGES: Final[tuple[tuple[str, str, Json], ...]] = (
    ("PUT", f"/documents/{NAME}", {"n": "never"}),
    ("PUT", "/documents/new.json", {"n": "never"}),
    ("DELETE", f"/documents/{NAME}", None),
    ("POST", "/restore-backup", {"filename": NAME}),
    ("POST", "/import", {"files": {NAME: {"n": "never"}}}),
)


async def assert_every_change_is_refused(server: ServerUnderTest, code: str) -> None:
    for method, path, body in CHANGES:
        status, answer = await server.call(method, path, body)
        assert (status, answer["code"]) == (503, code), (method, path)


async def assert_reads_work(server: ServerUnderTest, value: Json) -> None:
    assert await server.call("GET", f"/documents/{NAME}") == (200, value)
    assert (await server.call("GET", "/export"))[1]["data"]["files"][NAME] == value
    assert (await server.call("POST", "/verify"))[1]["findings"] == []
    status, health = await server.call("GET", "/health")
    assert (status, health["status"]) == (200, "critical")
    assert await server.probe("/livez") == 200


@pytest.mark.parametrize("inside", ["", "data"], ids=["the mount point", "a directory on it"])
async def test_a_server_refuses_changes_while_its_volume_is_unmounted(
    volume: SmallFilesystem, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if volume.device is None:
        pytest.skip("a tmpfs does not outlive its mount")
    async with start_server(volume.path / inside, monkeypatch) as server:
        run("umount", "--lazy", str(volume.path))

        await assert_every_change_is_refused(server, "volume_not_mounted")
        await assert_reads_work(server, {"n": 1})
        assert await server.probe("/readyz") == 503
        await server.wait_for_alert("wrong_mount", "open")
        assert os.listdir(volume.path) == [], "something was written below the mount point"

        run("mount", volume.device, str(volume.path))
        assert (await server.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        assert await server.probe("/readyz") == 200
        await server.wait_for_alert("wrong_mount", "resolved")
    async with open_awaited(volume.path / inside, lock_wait_s=0) as seline:
        assert await seline.data.load_json(NAME) == {"n": 2}
        assert (await seline.verify()).findings == ()


async def test_another_volume_at_the_mount_point_is_never_changed(
    volume: SmallFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other volume looks like Seline's: it has documents, a journal, a log and a socket."""
    other = tmp_path / "other"
    await asyncio.to_thread(fill, other)
    (other / ".seline" / "audit.jsonl").write_text("theirs\n")
    (other / ".seline" / "control.sock").write_text("theirs")
    async with start_server(volume.path, monkeypatch) as server:
        before = tree(other)
        run("mount", "--bind", str(other), str(volume.path))
        try:
            await assert_every_change_is_refused(server, "volume_not_mounted")
            await assert_reads_work(server, {"n": 1})
            assert await server.probe("/readyz") == 503
            await server.wait_for_alert("wrong_mount", "open")
            assert tree(other) == before
        finally:
            run("umount", str(volume.path))
        assert (await server.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        run("mount", "--bind", str(other), str(volume.path))
    try:
        assert tree(other) == before, "the server changed it while it closed"
    finally:
        run("umount", str(volume.path))


async def test_a_server_that_waits_for_its_mount_writes_nothing(tmp_path: Path) -> None:
    """V12: a platform may mount the volume after the server has started."""
    point = tmp_path / "volume"
    point.mkdir()
    if kind_of(point) != kind_of(Path("/")):
        pytest.skip("the temporary directory is on a separate mount")
    settings = settings_for(point, storage__require_mount=True)
    async with serving(settings) as running, aiohttp.ClientSession() as session:
        server = ServerUnderTest(
            running=running, session=session, client=Client(session, running.address)
        )
        await asyncio.sleep(0.2)
        assert await server.probe("/livez") == 200
        assert await server.probe("/readyz") == 503
        status, health = await server.call("GET", "/health")
        assert (status, health["status"]) == (200, "critical")
        assert "No volume is mounted" in health["checks"][0]["detail"]
        assert health["checks"][0]["fix"]
        assert (await server.call("GET", "/documents"))[0] == 503
        assert os.listdir(point) == []
        with small_filesystem(point):
            async with asyncio.timeout(10):
                await running.acquired()
            assert await server.probe("/readyz") == 200
            assert (await server.call("PUT", f"/documents/{NAME}", {"n": 1}))[0] == 201
            await running.close()
        assert os.listdir(point) == []


# read-only


def remount(point: Path, mode: str) -> None:
    """Remount; retry while an open file, such as the audit log, keeps the mount busy."""
    for _ in range(50):
        try:
            run("mount", "-o", f"remount,{mode}", str(point))
        except Unavailable as reason:
            if "busy" not in str(reason):
                pytest.skip(str(reason))
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the mount stayed busy")


@pytest.mark.usefixtures("first_form")
async def test_a_server_refuses_changes_while_its_volume_is_read_only(
    volume: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_server(volume.path, monkeypatch) as server:
        remount(volume.path, "ro")

        await assert_every_change_is_refused(server, "volume_read_only")
        await assert_reads_work(server, {"n": 1})
        assert await server.probe("/readyz") == 200, "a read-only volume must stay ready"
        await server.wait_for_alert("writes_refused", "open")

        remount(volume.path, "rw")
        assert (await server.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 200
        await server.wait_for_alert("writes_refused", "resolved")
        health = (await server.call("GET", "/health"))[1]
        assert health["status"] == "healthy", "a read-only mount was reported as a disk error"
        assert os.listdir(volume.path / ".seline" / "staging") == []


@pytest.mark.usefixtures("first_form")
def test_a_broken_document_on_a_read_only_volume_is_served_and_recovered_once_it_is_writable(
    volume: SmallFilesystem,
) -> None:
    with open_seline(volume.path, storage__cache_bytes_max=0, storage__settle_s=0.0) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        rewrite(volume.path / NAME, b"{")
        remount(volume.path, "ro")
        for _ in range(2):
            assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert [finding.outcome for finding in seline.verify().findings] == ["unwritten"]
        assert "served_from_memory" in checks_of(seline)
        assert (volume.path / NAME).read_bytes() == b"{"

        remount(volume.path, "rw")
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert "recovered" in checks_of(seline)
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == b"{"


def test_a_volume_that_is_read_only_at_the_start_is_read_and_exported(
    volume: SmallFilesystem,
) -> None:
    fill(volume.path)
    remount(volume.path, "ro")
    before = tree(volume.path)
    with open_seline(volume.path, lock_wait_s=0) as seline:
        assert seline.data.load_json(NAME) == VALUE
        assert seline.data.export_all_data()["files"] == {NAME: VALUE, OTHER: {"n": 1}}  # type: ignore[index]
        assert len(seline.data.backups(NAME)) == 2
        assert seline.verify().findings == ()
        with pytest.raises(VolumeReadOnly) as raised:
            seline.data.save_json(NAME, {"n": 9})
        assert checks_of(seline)["writing"]["fix"] == raised.value.hint
        assert tree(volume.path) == before

        [command] = re.findall(r"`(mount [^`]+)`", raised.value.hint)
        subprocess.run(command, shell=True, check=True)
        seline.data.save_json(NAME, {**VALUE, "n": 9})
        assert seline.data.load_json(NAME) == {**VALUE, "n": 9}


async def test_a_server_starts_on_a_read_only_volume(volume: SmallFilesystem) -> None:
    await asyncio.to_thread(fill, volume.path)
    remount(volume.path, "ro")
    async with serving(settings_for(volume.path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        client = Client(session, running.address)
        assert (await client.call("GET", f"/documents/{NAME}"))[:2] == (200, VALUE)
        assert (await client.call("GET", "/export"))[0] == 200
        status, answer, _ = await client.call("PUT", f"/documents/{NAME}", {"n": 9})
        assert (status, answer["code"]) == (503, "volume_read_only")
        remount(volume.path, "rw")
        assert (await client.call("PUT", f"/documents/{NAME}", {"n": 9}))[0] == 200


def interrupt_an_import(
    directory: Path, values: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import documents, and leave the record of the commit as a kill does."""
    with open_seline(directory, lock_wait_s=0) as seline:
        unlink, fail = files.unlink, failing_call(errno.EIO)
        monkeypatch.setattr(
            files,
            "unlink",
            lambda at, name, **how: (fail if name == RECORD_NAME else unlink)(at, name, **how),
        )
        with pytest.raises(OutcomeUnknown):
            seline.data.import_data({"files": values})
    monkeypatch.undo()
    assert (directory / ".seline" / "journal").exists()


@pytest.mark.usefixtures("first_form")
def test_a_transaction_that_a_kill_interrupted_is_not_served_half_on_a_read_only_volume(
    volume: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(volume.path)
    interrupt_an_import(volume.path, {NAME: {"n": 8}, OTHER: {"n": 8}}, monkeypatch)
    remount(volume.path, "ro")
    with open_seline(volume.path, lock_wait_s=0) as seline:
        for name in (NAME, OTHER):
            with pytest.raises(VolumeFailed, match="not known yet"):
                seline.data.load_json(name)

        remount(volume.path, "rw")
        seline.data.save_json("new.json", {})
        assert [seline.data.load_json(name) for name in (NAME, OTHER)] == [{"n": 8}, {"n": 8}]


def test_a_recovery_that_fails_on_a_writable_volume_is_reported_and_tried_again_later(
    volume: SmallFilesystem, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(volume.path)
    remount(volume.path, "ro")
    recoveries: list[int] = []

    def fail(directory: int) -> None:
        recoveries.append(directory)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_seline(volume.path, lock_wait_s=0) as seline:
        remount(volume.path, "rw")
        with monkeypatch.context() as failing:
            failing.setattr(files, "touch_and_sync", fail)
            for _ in range(3):
                with pytest.raises(VolumeFailed, match="Recovering the volume: EIO"):
                    seline.data.save_json(NAME, {**VALUE, "n": 9})
            assert len(recoveries) == 1
            assert "Recovering the volume: EIO" in checks_of(seline)["writing"]["detail"]

        frozen_clock.advance(REOPEN_EVERY_S + 1)
        seline.data.save_json(NAME, {**VALUE, "n": 9})


@pytest.mark.usefixtures("first_form")
def test_documents_that_are_completed_once_the_volume_is_writable_are_counted(
    volume: SmallFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(volume.path)
    interrupt_an_import(volume.path, {"new.json": {}, "newer.json": {}}, monkeypatch)
    for entry in decode_record((volume.path / ".seline" / RECORD_NAME).read_bytes()):
        assert entry.staged is not None  # not published yet, as after an earlier kill
        document = volume.path / entry.key.name
        document.rename(volume.path / ".seline" / "staging" / entry.staged)
    remount(volume.path, "ro")
    with open_seline(volume.path, lock_wait_s=0) as seline:
        remount(volume.path, "rw")
        seline.data.save_json(NAME, {**VALUE, "n": 9})

        assert store_of(seline).medium.usage().documents == len(seline.data.documents())


@pytest.mark.parametrize("within_ms", ["0", "10000"], ids=["published", "not published"])
def test_a_volume_that_the_kernel_stopped_is_read_until_it_was_checked(
    volume: SmallFilesystem,
    frozen_clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    within_ms: str,
) -> None:
    """ext4 refuses writes after an error, and open files stay open for writing."""
    device = volume.device or pytest.skip("there is no ext4")
    trigger = Path(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error")
    run("mount", "-o", "remount,errors=remount-ro", str(volume.path))
    monkeypatch.setenv(PUBLISH_WITHIN_MS, within_ms)
    with open_seline(volume.path, lock_wait_s=0) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        seline.data.save_json(OTHER, {"n": 7})

        trigger.write_text("a test")

        for _ in range(4):
            with pytest.raises(VolumeReadOnly) as raised:
                seline.data.save_json(NAME, {"n": 9})
            assert [seline.data.load_json(name) for name in (NAME, OTHER)] == [{"n": 2}, {"n": 7}]
            assert checks_of(seline)["writing"]["fix"] == raised.value.hint
            frozen_clock.advance(CHECKPOINT_AFTER_S + 1)
            time.sleep(2 * IDLE_AFTER_S)  # the writer's idle work, which ends the journal's file
        assert seline.data.export_all_data()["files"] == {NAME: {"n": 2}, OTHER: {"n": 7}}  # type: ignore[index]

        [command] = re.findall(r"`(mount [^`]+)`", raised.value.hint)
        assert subprocess.run(command, shell=True, capture_output=True).returncode != 0
    with pytest.raises(VolumeReadOnly):
        open_seline(volume.path, lock_wait_s=0)

    run("umount", str(volume.path))
    subprocess.run(["fsck.ext4", "-p", device], check=False, capture_output=True)
    run("mount", device, str(volume.path))
    with open_seline(volume.path, lock_wait_s=0) as again:
        assert [again.data.load_json(name) for name in (NAME, OTHER)] == [{"n": 2}, {"n": 7}]
        again.data.save_json(NAME, {"n": 9})


# a document that is a mount of its own, or another that the system does not let replace


@contextmanager
def mounted_over(path: Path) -> Iterator[None]:
    """Mount another file over a document, until the block ends."""
    source = path.parent.parent / "elsewhere.json"
    source.write_text(json.dumps(VALUE))
    try:
        run("mount", "--bind", str(source), str(path))
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield
    finally:
        run("umount", str(path))


def save_both(seline: Seline, number: int) -> None:
    with seline.data.transaction(OTHER, NAME) as change:
        change[OTHER] = change[NAME] = {"n": number}


def test_a_document_that_is_a_mount_is_refused_before_the_record(tmp_path: Path) -> None:
    """V7: only its own change fails; Seline goes on, and so does its next start."""
    directory = tmp_path / "data"
    fill(directory)
    with open_seline(directory, lock_wait_s=0) as seline, mounted_over(directory / NAME):
        with pytest.raises(VolumeFailed, match="mount of its own") as refused:
            save_both(seline, 7)
        assert "This change was not made" in refused.value.message
        assert f"umount {directory / NAME}" in str(refused.value.hint)
        seline.data.save_json(OTHER, {"n": 8})
        assert seline.data.load_json(OTHER) == {"n": 8}
        assert not (directory / ".seline" / RECORD_NAME).exists()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_record_is_completed_without_a_document_that_is_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    """It was mounted after the check, or an earlier Seline wrote the record."""
    directory = tmp_path / "data"
    fill(directory)
    with ExitStack() as stack:
        seline = stack.enter_context(open_seline(directory, lock_wait_s=0))
        stack.enter_context(mounted_over(directory / NAME))
        with monkeypatch.context() as patch:
            patch.setattr(exchange_form, "mounts_inside", lambda _: [])
            if restarts:
                patch.setattr(Replay, "run", failing_call(errno.EIO))
            with pytest.raises(OutcomeUnknown):
                save_both(seline, 7)
            if restarts:
                seline.close()
        if restarts:
            seline = stack.enter_context(open_seline(directory, lock_wait_s=0))
        assert seline.data.load_json(OTHER) == {"n": 7}
        seline.data.save_json(OTHER, {"n": 8})
        assert json.loads((directory / NAME).read_bytes()) == VALUE
        detail = checks_of(seline)["access_refused"]["detail"]
        [item] = [kept for kept in (directory / "quarantine").iterdir() if kept.name in detail]
        assert json.loads(item.read_bytes()) == {"n": 7}
        assert not (directory / ".seline" / RECORD_NAME).exists()


def test_a_file_system_without_a_journal_is_a_notice_and_no_warning(tmp_path: Path) -> None:
    """No one who uses the machine can change it, and every guarantee holds without it."""
    with small_filesystem(tmp_path / "volume", journal=False) as volume:
        mount = mount_of(str(volume.path))
        if mount is None or not journal_missing(mount):
            pytest.skip("the kernel does not show here whether an ext4 has a journal")
        with open_seline(volume.path, lock_wait_s=0) as seline:
            seline.data.save_json(NAME, VALUE)
            check, status = checks_of(seline)["volume"], seline.health()["status"]

    assert "ext4 without a journal" in check["detail"]
    assert (check["status"], check["fix"], status) == ("info", "", "healthy")


# a file system without attributes


@contextmanager
def mounted_ramfs(point: Path) -> Iterator[Path]:
    """Mount a ramfs, which has no attributes and reports no size."""
    point.mkdir()
    try:
        run("mount", "-t", "ramfs", "ramfs", str(point))
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield point
    finally:
        run("umount", "--lazy", str(point))


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    with mounted_ramfs(tmp_path / "ramfs") as point:
        yield point


def test_without_attributes_health_reports_it_and_every_operation_works(ramfs: Path) -> None:
    with open_seline(ramfs) as seline:
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
        assert [backup.pinned for backup in kept] == [False] * 5 + [True]
        assert kept[-1].name == oldest.name
        assert seline.data.restore_from_backup(NAME)
        assert seline.data.load_json(NAME) == {**VALUE, "later": 10}
        seline.data.delete(OTHER)
        assert seline.verify().findings == ()
        assert seline.quarantine() == []


@pytest.mark.parametrize(
    "broken", [b"", b'{\n  "userName"', b"\0" * 80], ids=["empty", "cut", "NULs"]
)
def test_without_attributes_a_torn_document_is_found_and_recovered(
    ramfs: Path, broken: bytes
) -> None:
    fill(ramfs)
    rewrite(ramfs / NAME, broken)
    with open_seline(ramfs, storage__settle_s=0.0) as seline:
        for _ in range(2):
            assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == broken


def test_without_attributes_leftovers_in_staging_are_removed_at_the_start(ramfs: Path) -> None:
    fill(ramfs)
    (ramfs / ".seline" / "staging" / "00000001").write_bytes(b'{"n": "never answ')
    with open_seline(ramfs) as seline:
        assert os.listdir(ramfs / ".seline" / "staging") == []
        assert seline.data.load_json(NAME) == VALUE


# foreign files, links and directories


DIRECTORIES: Final = ("backups", "quarantine", ".seline", ".seline/staging", ".seline/backups")


def dangling_link(path: Path) -> None:
    outside = path.parents[len(path.parents) - 1] / "nowhere"
    path.symlink_to(outside)


def link_out(path: Path) -> None:
    """Create a link to a directory outside the volume; nothing may be written there."""
    outside = outside_path(path)
    outside.mkdir()
    path.symlink_to(outside)


def outside_path(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "data").with_name("outside")


NOT_DIRECTORIES: Final[Mapping[str, Callable[[Path], None]]] = {
    "a file": Path.touch,
    "a FIFO": os.mkfifo,
    "a dangling link": dangling_link,
    "a link out of the volume": link_out,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", NOT_DIRECTORIES)
@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_file_or_link_in_place_of_a_directory_is_refused_and_not_followed(
    tmp_path: Path, name: str, kind: str
) -> None:
    directory = tmp_path / "data"
    fill(directory)
    moved = tmp_path / "moved"
    (directory / name).rename(moved)
    NOT_DIRECTORIES[kind](directory / name)
    before = tree(directory)

    with pytest.raises(VolumeFailed, match=Path(name).name):
        open_seline(directory, lock_wait_s=0)

    assert tree(directory) == before
    assert not any(outside_path(directory / name).glob("*"))
    (directory / name).unlink()
    moved.rename(directory / name)
    with open_seline(directory, lock_wait_s=0) as seline:
        assert seline.data.load_json(NAME) == VALUE
        assert len(seline.data.backups(NAME)) == 2


def test_a_link_that_replaces_backups_at_run_time_is_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with open_seline(directory, lock_wait_s=0) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        shutil.rmtree(directory / "backups")
        link_out(directory / "backups")

        with pytest.raises(VolumeFailed, match="backups"):
            seline.data.save_json(NAME, {"n": "never"})
        assert seline.data.load_json(NAME) == VALUE
        assert os.listdir(tmp_path / "outside") == []

        (directory / "backups").unlink()
        seline.data.save_json(NAME, {"n": 9}, shrink=True)
        [backup] = seline.data.backups(NAME)
        assert seline.data.read_backup(NAME, backup.name) == VALUE


def bind_socket(path: Path) -> None:
    held = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{held}/{path.name}")
    finally:
        os.close(held)


def link_to_file_outside(path: Path) -> None:
    outside = outside_path(path)
    outside.write_text('{"from": "outside"}')
    path.symlink_to(outside)


NOT_FILES: Final[Mapping[str, Callable[[Path], None]]] = {
    "an empty directory": Path.mkdir,
    "a directory with files": lambda path: (path.mkdir(), (path / "x.json").write_text("{}")),  # type: ignore[func-returns-value]
    "a dangling link": dangling_link,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to another document": lambda path: path.symlink_to(OTHER),
    "a link to a file outside": link_to_file_outside,
    "a socket": bind_socket,
    "a FIFO": os.mkfifo,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", NOT_FILES)
def test_a_directory_or_link_in_place_of_a_document_is_unreadable(
    tmp_path: Path, kind: str
) -> None:
    directory = tmp_path / "data"
    fill(directory)
    (directory / NAME).unlink()
    NOT_FILES[kind](directory / NAME)
    file_type = stat.S_IFMT((directory / NAME).lstat().st_mode)
    with open_seline(directory, lock_wait_s=0) as seline:
        for call in (
            lambda: seline.data.load_json(NAME, default={"invented": True}),
            lambda: seline.data.save_json(NAME, {"n": 1}),
            lambda: seline.data.delete(NAME),
            lambda: seline.data.restore(NAME),
            lambda: seline.data.import_data({"files": {NAME: {"n": 1}}}),
        ):
            with pytest.raises(DocumentUnreadable):
                call()
        export = seline.data.export_all_data()
        assert (export["files"], export["unrecoverable"]) == ({OTHER: {"n": 1}}, [NAME])
        assert [finding.outcome for finding in seline.verify().findings] == ["unreadable"]
        assert stat.S_IFMT((directory / NAME).lstat().st_mode) == file_type

        seline.data.reset(NAME)
        assert seline.data.restore_from_backup(NAME)
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        assert seline.data.load_json(OTHER) == {"n": 1}
    assert os.listdir(directory / ".seline" / "staging") == []
    outside = tmp_path / "outside"
    assert not outside.exists() or outside.read_text() == '{"from": "outside"}'


def test_a_link_among_the_backups_is_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    fill(directory)
    outside = tmp_path / "outside.json"
    outside.write_text('{"from": "outside"}')
    (directory / "backups" / "user_profile_20990101_000000.json").symlink_to(outside)
    rewrite(directory / NAME, b"")
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0.0) as seline:
        assert seline.data.load_json(NAME) == {**VALUE, "n": 1}
        [linked] = [b for b in seline.data.backups(NAME) if "_20990101_" in b.name]
        assert linked.verdict == "unreadable"
        for number in range(8):
            seline.data.save_json(NAME, {**VALUE, "later": number})
    assert outside.read_text() == '{"from": "outside"}'


def test_a_document_without_read_permission_is_unreadable(tmp_path: Path) -> None:
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


def test_foreign_files_count_in_usage_and_are_never_changed(volume: SmallFilesystem) -> None:
    fill(volume.path)
    video = volume.path / "video.mp4"
    video.write_bytes(bytes(3 << 20))
    lost = volume.path / "lost+found"
    lost.mkdir(exist_ok=True)
    (lost / "#12.json").write_text("{")
    foreign = {path: path.lstat() for path in (video, lost, lost / "#12.json")}
    with open_seline(volume.path, storage__settle_s=0.0) as seline:
        assert seline.health()["total_size_mb"] > 3  # type: ignore[operator]
        seline.verify()
        seline.prune()
        seline.data.delete(OTHER, purge=True)
        seline.data.import_data({"files": {NAME: {"n": 7}}}, mode="replace")
        assert [info.name for info in seline.data.documents()] == [NAME]
        assert set(seline.data.export_all_data()["files"]) == {NAME}  # type: ignore[arg-type]
    for path, before in foreign.items():
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


def test_two_hundred_levels_are_accepted_and_one_more_is_refused_with_its_path(
    tmp_path: Path,
) -> None:
    with open_seline(tmp_path, storage__settle_s=0.0) as seline:
        seline.data.save_json(NAME, nested(199))
        seline.data.save_json(NAME, nested(200))
        assert seline.data.load_json(NAME) == nested(200)
        for call, error in (
            (lambda: seline.data.save_json(NAME, nested(201)), NotSerializable),
            (lambda: seline.data.save_json(NAME, {"a": nested(200)}), NotSerializable),
            (lambda: seline.data.import_data({"files": {NAME: nested(201)}}), ImportRefused),
        ):
            with pytest.raises(error, match=r"\$.*\[0\]\[0\].*deeper than 200"):
                call()
        assert seline.data.load_json(NAME) == nested(200)


@pytest.mark.parametrize("levels", [201, 100_000])
def test_a_hand_edit_that_is_nested_too_deep_is_quarantined_and_recovered(
    tmp_path: Path, levels: int
) -> None:
    with open_seline(tmp_path, storage__settle_s=0.0) as seline:
        seline.data.save_json(NAME, nested(200))
        deep = b"[" * levels + b"]" * levels
        (tmp_path / NAME).write_bytes(deep)
        for _ in range(2):
            assert seline.data.load_json(NAME) == nested(200)
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == deep
        assert "nested deeper than 200" in checks_of(seline)["recovered"]["detail"]


def text_of_size(size_bytes: int) -> str:
    """Return a string whose JSON, with quotes and a final newline, has `size_bytes`."""
    return "x" * (size_bytes - 3)


def test_the_largest_document_is_accepted_and_one_byte_more_is_refused_with_its_size(
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
        raise AssertionError("it was accepted")
    assert seline.verify().findings == ()
    with seline.data.exported() as snapshot:
        assert sum(len(piece) for piece in snapshot.open("big.json")) == limit
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_a_document_of_32_mib_needs_bounded_memory(tmp_path: Path) -> None:
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
"""Generous limits: they detect work that takes minutes, also on a slow machine."""


@pytest.mark.prove(share=2)
@pytest.mark.timeout(600)
async def test_ten_thousand_documents_are_fast_and_one_more_is_refused(
    tmp_path: Path, share_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if share_s < 60:
        pytest.skip("the slice leaves less than a minute")
    monkeypatch.setattr(
        capabilities, "mount_of", lambda _path: None
    )  # usage is that of its own files
    durations: dict[str, float] = {}
    with fast_place(tmp_path) as workspace:
        await save_many(workspace)
        with timed(durations, "open_s"):
            seline = await open_awaited(workspace, lock_wait_s=0)
        data = seline.data
        for name, work in (
            ("health_s", seline.health),
            ("list_s", seline.storage_info),
            ("verify_s", seline.verify),
            ("export_s", data.export_all_data),
        ):
            with timed(durations, name):
                answer = await work()
        assert len(answer["files"]) == MANY  # type: ignore[index,arg-type]
        await assert_full(data)
        with timed(durations, "save_s"):
            await data.save_json("d0.json", {"n": "later"})
        await seline.close()
        where = kind_of(workspace)
    shown = {name: f"{seconds:.2f}" for name, seconds in durations.items()}
    what = "10,000 documents with a backup each"
    note(SUITE, what, tried=MANY, failures=0, where=where, **shown)
    assert durations["open_s"] < OPEN_S
    assert durations["health_s"] < HEALTH_S
    assert durations["list_s"] < LIST_S
    assert durations["export_s"] < EXPORT_S
    assert durations["save_s"] < 1


async def save_many(workspace: Path) -> None:
    """Save every document twice."""
    async with open_awaited(workspace, lock_wait_s=0) as seline:
        for start in range(0, 2 * MANY, 1000):
            await asyncio.gather(
                *(
                    seline.data.save_json(f"d{number % MANY}.json", {"n": number, "text": "words"})
                    for number in range(start, start + 1000)
                )
            )


async def assert_full(data: Any) -> None:
    with pytest.raises(TooManyDocuments, match="10000"):
        await data.save_json("one_more.json", {})
    await data.delete("d9999.json")
    with pytest.raises(TooManyDocuments):
        async with data.transaction("e1.json", "e2.json") as change:
            change["e1.json"] = change["e2.json"] = {"n": 1}
    assert await data.load_json("e1.json", default=None) is None
    await data.save_json("one_more.json", {})


def test_a_start_opens_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it takes no longer for each: a volume may have a hundred thousand."""
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        for number in range(3):
            seline.data.save_json(OTHER, {"n": number})
        kept = {backup.name for backup in seline.data.backups(OTHER)}
    opened: list[str] = []
    real = files.open_to_read

    def open_to_read(directory: int, name: str) -> int:
        opened.append(name)
        return real(directory, name)

    monkeypatch.setattr(files, "open_to_read", open_to_read)
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.data.load_json(OTHER) == {"n": 2}
        assert OTHER in opened
        assert len(kept) == 2
        assert not kept & set(opened)


def test_links_whose_number_the_file_system_does_not_keep_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.status

    def status(directory: int, name: str) -> os.stat_result:
        found = real(directory, name)
        if name != "probe-a":
            return found
        parts = list(found)
        parts[stat.ST_NLINK] = 1
        return os.stat_result(parts)

    with monkeypatch.context() as patch:
        patch.setattr(files, "status", status)
        seline = open_seline(tmp_path, lock_wait_s=0)
    with seline:
        seline.data.save_json(OTHER, {"n": 1})
        inode = (tmp_path / OTHER).stat().st_ino
        seline.data.save_json(OTHER, {"n": 2})
        [backup] = seline.data.backups(OTHER)
        assert (tmp_path / "backups" / backup.name).stat().st_ino != inode


def test_documents_removed_by_hand_no_longer_count_towards_the_limit(tmp_path: Path) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__documents_max=3) as seline:
        for number in range(5):
            seline.data.save_json(OTHER, {"n": number})
            (tmp_path / OTHER).unlink()
        for name in ("c.json", "d.json", "e.json"):
            seline.data.save_json(name, {"n": 1})
        with pytest.raises(TooManyDocuments):
            seline.data.save_json("f.json", {"n": 1})


@pytest.mark.parametrize(
    ("documents", "status", "level"), [(7, None, None), (8, "warning", 80), (10, "critical", 100)]
)
async def test_the_limit_of_documents_warns_before_it_refuses(
    documents: int,
    status: str | None,
    level: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with start_server(tmp_path, monkeypatch, storage__documents_max=10) as server:
        for number in range(documents - 1):
            await server.running.data.save_json(f"d{number}.json", {"n": number})
        health = (await server.call("GET", "/health"))[1]
        assert (await server.call("POST", "/jobs/usage/run"))[0] == 202
        if level is not None:
            await server.wait_for_alert("document_limit", "open")
        alerts = (await server.call("GET", "/alerts"))[1]["alerts"]
        refused = await server.call("PUT", "/documents/new.json", {"n": 1})

    [check] = [c for c in health["checks"] if c["name"] == "document_limit"] or [None]
    assert (check and check["status"]) == status
    shown = [a["details"]["level_percent"] for a in alerts if a["type"] == "document_limit"]
    assert shown == ([] if level is None else [level])
    if documents == 10:
        assert (refused[0], refused[1]["code"]) == (507, "too_many_documents")
        assert "`storage.documents_max`" in refused[1]["hint"]


@contextmanager
def timed(durations: dict[str, float], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    durations[what] = time.perf_counter() - started
