"""What comparable systems lost or let through, each as a test to pass.

The predecessor: a bot's own `data_manager.py` (JSON and five backups). Home Assistant: its store
and its backups. The rows say what happened there.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import threading
from pathlib import Path

import aiohttp
import pytest

from seline import blocking, open_seline
from seline.errors import (
    DocumentUnrecoverable,
    InvalidDocumentName,
    NotSerializable,
    VolumeFull,
)
from seline.http.routes import PREFIX
from seline.library import Seline
from seline.server import serving
from seline.settings import load_settings
from seline.storage.volume import files

PROFILE = "user_profile.json"


def break_file(path: Path, data: bytes) -> None:
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestThePredecessor:
    """A bot's `data_manager.py`."""

    async def test_nine_saves_within_a_second_left_one_backup(self, seline: Seline) -> None:
        for number in range(9):
            await seline.data.save_json(PROFILE, {"n": number})
        assert len(await seline.data.backups(PROFILE)) == 5

    async def test_user_json_was_recovered_with_user_profile_jsons_data(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        await seline.data.save_json("user.json", {"whose": "user"})
        for number in range(3):
            await seline.data.save_json(PROFILE, {"whose": "profile", "n": number})
        await seline.close()
        break_file(tmp_path / "data" / "user.json", b"")
        async with open_seline(tmp_path / "data") as again:
            with pytest.raises(DocumentUnrecoverable):
                await again.data.load_json("user.json")

    def test_eight_threads_with_twenty_updates_kept_50_of_161_keys(self, tmp_path: Path) -> None:
        with blocking.open_seline(tmp_path) as seline:
            seline.data.save_json(PROFILE, {"first": 1})

            def work(thread: int) -> None:
                for number in range(20):
                    seline.data.update_field(PROFILE, f"t{thread}_{number}", number)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            value = seline.data.load_json(PROFILE)
            assert isinstance(value, dict)
            assert len(value) == 161

    async def test_a_broken_newest_backup_gave_an_empty_document(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        for number in range(3):
            await seline.data.save_json(PROFILE, {"n": number})
        await seline.close()
        newest = max((tmp_path / "data" / "backups").glob("user_profile_*"))
        break_file(newest, b"{")
        break_file(tmp_path / "data" / PROFILE, b"{")
        async with open_seline(tmp_path / "data") as again:
            assert await again.data.load_json(PROFILE) == {"n": 0}

    async def test_invalid_utf8_was_never_recovered(self, seline: Seline, tmp_path: Path) -> None:
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": number})
        break_file(tmp_path / "data" / PROFILE, b'{"n": "\xff"}')
        assert await seline.data.load_json(PROFILE) == {"n": 1}

    async def test_lists_loaded_as_an_empty_object(self, seline: Seline) -> None:
        await seline.data.save_json("list.json", [1, 2, 3])
        assert await seline.data.load_json("list.json") == [1, 2, 3]

    async def test_evil_json_was_written_outside(self, seline: Seline, tmp_path: Path) -> None:
        with pytest.raises(InvalidDocumentName):
            await seline.data.save_json("../evil.json", {})
        assert not (tmp_path / "evil.json").exists()

    async def test_nan_was_written(self, seline: Seline) -> None:
        with pytest.raises(NotSerializable):
            await seline.data.save_json(PROFILE, {"x": math.nan})

    async def test_nothing_was_synced(
        self, seline: Seline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        real = os.fsync

        def watched(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_mode & 0o170000)
            real(descriptor)

        await seline.data.save_json(PROFILE, {"n": 1})
        monkeypatch.setattr(os, "fsync", watched)
        await seline.data.save_json(PROFILE, {"n": 2})
        regular, directory = 0o100000, 0o040000
        assert synced == [regular, directory, directory]

    async def test_the_export_was_open_to_the_world(self, tmp_path: Path) -> None:
        settings = load_settings(
            environ={},
            arguments={
                "storage.data_dir": str(tmp_path), "server.host": "127.0.0.1", "server.port": 0,
            },
        )  # fmt: skip
        async with serving(settings) as running, aiohttp.ClientSession() as session:
            await running.acquired()
            async with session.get(running.address + PREFIX + "/export") as answer:
                assert answer.status == 401

    async def test_the_status_was_always_healthy(self, seline: Seline, tmp_path: Path) -> None:
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": number})
        break_file(tmp_path / "data" / PROFILE, b"\0")
        await seline.data.verify()
        assert (await seline.data.health())["status"] != "healthy"

    async def test_five_blank_saves_in_a_row_lost_everything(self, seline: Seline) -> None:
        profile = {f"field_{number}": "something that took months to learn" for number in range(30)}
        await seline.data.save_json(PROFILE, profile)
        for _ in range(5):
            await seline.data.save_json(PROFILE, {})
            await seline.data.save_json(PROFILE, {"userName": ""})
        kept = [
            await seline.data.read_backup(PROFILE, backup.name)
            for backup in await seline.data.backups(PROFILE)
        ]
        assert profile in kept


class TestHomeAssistant:
    """Its JSON store and its backups."""

    async def test_a_save_returned_normally_on_a_full_disk(
        self, seline: Seline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await seline.data.save_json(PROFILE, {"n": 1})
        real = os.write

        def full(descriptor: int, data: bytes) -> int:
            if bytes(data[:1]) in (b"{", b"["):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(VolumeFull):
            await seline.data.save_json(PROFILE, {"n": 2})

    async def test_a_failed_write_leaked_its_temporary_file_and_later_saves_were_lost(
        self, seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.write

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 100:
                real(descriptor, data[:50])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", full)
        for _ in range(50):
            with pytest.raises(VolumeFull):
                await seline.data.save_json(PROFILE, {"text": "x" * 1000})
        assert os.listdir(tmp_path / "data" / ".seline" / "staging") == []
        monkeypatch.undo()
        await seline.data.save_json(PROFILE, {"text": "x" * 1000})
        assert await seline.data.load_json(PROFILE) == {"text": "x" * 1000}

    async def test_a_corrupt_store_started_empty(self, seline: Seline, tmp_path: Path) -> None:
        await seline.data.save_json(PROFILE, {"n": 1})
        await seline.close()
        break_file(tmp_path / "data" / PROFILE, b"")
        async with open_seline(tmp_path / "data") as again:
            for attempt in (again.data.load_json(PROFILE), again.data.save_json(PROFILE, {})):
                with pytest.raises(DocumentUnrecoverable):
                    await attempt

    async def test_a_flip_that_stayed_valid_went_unnoticed_for_months(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": 10 + number})
        break_file(tmp_path / "data" / PROFILE, b'{\n  "n": 91\n}\n')
        [found] = (await seline.data.verify()).findings
        assert (found.verdict, found.outcome) == ("altered", "recovered")

    async def test_retention_deleted_everything_while_saving_failed(
        self, seline: Seline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(7):
            await seline.data.save_json(PROFILE, {"n": number})
        real = files.stage

        def failing(*args: object, **kwargs: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(files, "stage", failing)
        for _ in range(10):
            with pytest.raises(Exception, match="EIO"):
                await seline.data.save_json(PROFILE, {"n": "never"})
            await seline.data.prune()
        monkeypatch.setattr(files, "stage", real)
        assert len(await seline.data.backups(PROFILE)) == 5

    async def test_a_default_save_was_not_durable(self, seline: Seline, tmp_path: Path) -> None:
        """Nothing is left to a delayed flush: what was answered is on the disk already."""
        await seline.data.save_json(PROFILE, {"n": 1})
        assert (tmp_path / "data" / PROFILE).read_bytes() == b'{\n  "n": 1\n}\n'
        await asyncio.sleep(0)
