"""Test that Seline does not repeat known failures of comparable systems.

Each test is named after what Seline does; its docstring gives the failure of the other system.
"""

import asyncio
import errno
import math
import os
import threading
from pathlib import Path

import aiohttp
import pytest

from seline import blocking, open_seline
from seline.errors import DocumentUnrecoverable, InvalidDocumentName, NotSerializable, VolumeFull
from seline.http.routes import PREFIX
from seline.library import Seline
from seline.server import serving
from seline.settings import load_settings
from seline.storage.volume import files
from tests.faults.forms import chosen
from tests.faults.injection import left_by_a_kill

PROFILE = "user_profile.json"


def break_file(path: Path, data: bytes) -> None:
    """Overwrite a file and keep its mtime, as a failing disk does."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestFailuresOfAnOlderDataManager:
    """Failures of a bot's own `data_manager.py`, which kept JSON files and five backups."""

    async def test_saves_within_one_second_leave_five_backups(self, seline: Seline) -> None:
        """Known failure: nine saves within a second left one backup."""
        for number in range(9):
            await seline.data.save_json(PROFILE, {"n": number})
        assert len(await seline.data.backups(PROFILE)) == 5

    async def test_a_document_is_not_recovered_from_backups_of_a_longer_name(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        """Known failure: `user.json` was recovered with the content of `user_profile.json`."""
        await seline.data.save_json("user.json", {"whose": "user"})
        for number in range(3):
            await seline.data.save_json(PROFILE, {"whose": "profile", "n": number})
        await seline.close()
        break_file(tmp_path / "data" / "user.json", b"")
        async with open_seline(tmp_path / "data") as reopened:
            with pytest.raises(DocumentUnrecoverable):
                await reopened.data.load_json("user.json")

    def test_updates_from_eight_threads_are_all_kept(self, tmp_path: Path) -> None:
        """Known failure: eight threads with twenty updates each kept 50 of 161 keys."""
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

    async def test_recovery_skips_a_broken_newest_backup(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        """Known failure: a broken newest backup led to an empty document."""
        for number in range(3):
            await seline.data.save_json(PROFILE, {"n": number})
        await seline.close()
        newest = max((tmp_path / "data" / "backups").glob("user_profile_*"))
        break_file(newest, b"{")
        break_file(tmp_path / "data" / PROFILE, b"{")
        async with open_seline(tmp_path / "data") as reopened:
            assert await reopened.data.load_json(PROFILE) == {"n": 0}

    @pytest.mark.usefixtures("files_at_once")
    async def test_a_document_with_invalid_utf8_is_recovered(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        """Known failure: invalid UTF-8 was not recovered."""
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": number})
        break_file(tmp_path / "data" / PROFILE, b'{"n": "\xff"}')
        assert await seline.data.load_json(PROFILE) == {"n": 1}

    async def test_a_list_loads_as_a_list(self, seline: Seline) -> None:
        """Known failure: lists loaded as an empty object."""
        await seline.data.save_json("list.json", [1, 2, 3])
        assert await seline.data.load_json("list.json") == [1, 2, 3]

    async def test_a_name_with_a_path_is_refused(self, seline: Seline, tmp_path: Path) -> None:
        """Known failure: `../evil.json` was written outside the data directory."""
        with pytest.raises(InvalidDocumentName):
            await seline.data.save_json("../evil.json", {})
        assert not (tmp_path / "evil.json").exists()

    async def test_nan_is_refused(self, seline: Seline) -> None:
        """Known failure: NaN was written."""
        with pytest.raises(NotSerializable):
            await seline.data.save_json(PROFILE, {"x": math.nan})

    async def test_a_save_syncs_before_it_returns(self, seline: Seline) -> None:
        """Known failure: nothing was synced."""
        await seline.data.save_json(PROFILE, {"n": 1})
        before = files.flushes()
        await seline.data.save_json(PROFILE, {"n": 2})
        assert files.flushes() > before

    async def test_an_export_requires_a_token(self, tmp_path: Path) -> None:
        """Known failure: the export was open to everyone."""
        settings = load_settings(
            environ=chosen(),
            arguments={
                "storage.data_dir": str(tmp_path), "server.host": "127.0.0.1", "server.port": 0,
            },
        )  # fmt: skip
        async with serving(settings) as running, aiohttp.ClientSession() as session:
            await running.acquired()
            async with session.get(running.address + PREFIX + "/export") as response:
                assert response.status == 401

    @pytest.mark.usefixtures("files_at_once")
    async def test_damage_changes_the_health_status(self, seline: Seline, tmp_path: Path) -> None:
        """Known failure: the status was always healthy."""
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": number})
        break_file(tmp_path / "data" / PROFILE, b"\0")
        await seline.verify()
        assert (await seline.health())["status"] != "healthy"

    async def test_repeated_blank_saves_keep_the_content_before_them(self, seline: Seline) -> None:
        """Known failure: five blank saves in a row lost everything."""
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


class TestFailuresOfHomeAssistant:
    """Failures of Home Assistant's JSON store and of its backups."""

    @pytest.mark.usefixtures("first_form")
    async def test_a_save_on_a_full_disk_raises_volume_full(
        self, seline: Seline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Known failure: a save returned normally on a full disk."""
        await seline.data.save_json(PROFILE, {"n": 1})
        write = os.write

        def full(descriptor: int, data: bytes) -> int:
            if bytes(data[:1]) in (b"{", b"["):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(VolumeFull):
            await seline.data.save_json(PROFILE, {"n": 2})

    @pytest.mark.usefixtures("first_form")
    async def test_a_failed_write_leaves_no_file_and_does_not_affect_later_saves(
        self, seline: Seline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Known failure: a failed write left its temporary file, and later saves were lost."""
        write = os.write

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 100:
                write(descriptor, data[:50])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", full)
        for _ in range(50):
            with pytest.raises(VolumeFull):
                await seline.data.save_json(PROFILE, {"text": "x" * 1000})
        assert os.listdir(tmp_path / "data" / ".seline" / "staging") == []
        monkeypatch.undo()
        await seline.data.save_json(PROFILE, {"text": "x" * 1000})
        assert await seline.data.load_json(PROFILE) == {"text": "x" * 1000}

    async def test_a_broken_document_is_neither_loaded_as_empty_nor_overwritten(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        """Known failure: a corrupt store started empty."""
        await seline.data.save_json(PROFILE, {"n": 1})
        await seline.close()
        break_file(tmp_path / "data" / PROFILE, b"")
        async with open_seline(tmp_path / "data") as reopened:
            for attempt in (reopened.data.load_json(PROFILE), reopened.data.save_json(PROFILE, {})):
                with pytest.raises(DocumentUnrecoverable):
                    await attempt

    @pytest.mark.usefixtures("files_at_once")
    async def test_a_flipped_bit_that_leaves_valid_json_is_recovered(
        self, seline: Seline, tmp_path: Path
    ) -> None:
        """Known failure: a flipped bit that left valid JSON was not noticed for months."""
        for number in range(2):
            await seline.data.save_json(PROFILE, {"n": 10 + number})
        break_file(tmp_path / "data" / PROFILE, b'{\n  "n": 91\n}\n')
        [finding] = (await seline.verify()).findings
        assert (finding.verdict, finding.outcome) == ("altered", "recovered")

    @pytest.mark.usefixtures("first_form")
    async def test_pruning_keeps_the_backups_while_saves_fail(
        self, seline: Seline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Known failure: retention deleted all backups while new ones could not be written."""
        for number in range(7):
            await seline.data.save_json(PROFILE, {"n": number})
        stage = files.stage

        def failing(*args: object, **kwargs: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(files, "stage", failing)
        for _ in range(10):
            with pytest.raises(Exception, match="EIO"):
                await seline.data.save_json(PROFILE, {"n": "never"})
            await seline.prune()
        monkeypatch.setattr(files, "stage", stage)
        assert len(await seline.data.backups(PROFILE)) == 5

    async def test_a_save_is_on_disk_when_it_returns(self, seline: Seline, tmp_path: Path) -> None:
        """Known failure: a save with default options was written by a delayed flush."""
        await seline.data.save_json(PROFILE, {"n": 1})
        killed = left_by_a_kill(tmp_path / "data", tmp_path / "killed")
        async with open_seline(killed) as reopened:
            assert await reopened.data.load_json(PROFILE) == {"n": 1}
        await asyncio.sleep(0)
