"""Hand edits that a process does not outlive: nothing is lost, and the next start reports them."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seline import open_seline
from seline.library import Seline
from seline.server import serving
from seline.settings import load_settings
from tests.faults.forms import chosen, each_form_at_once
from tests.faults.injection import left_by_a_kill
from tests.faults.test_damage import flip
from tests.faults.test_editors import SETTLE_S

pytestmark = each_form_at_once

NAME = "user_profile.json"
LAST = {"last": "saved"}
BROKEN = '{"last": "ha'
SETTLED_S = 0.05
"""How long the next process waits."""


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


Edit = Callable[[Path, str], None]
EDITORS: list[Edit] = [in_place, by_rename]


@pytest.fixture(params=["closed", "killed", "closed unread"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ended(path: Path, edits: list[str], edit: Edit, end: str) -> Path:
    """Edit a document beside a process that then ends; return the data directory that it leaves."""
    left = path / "left"
    async with open_seline(path / "live", storage__settle_s=SETTLE_S) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        await seline.data.save_json(NAME, LAST)
        for text in edits:
            edit(path / "live" / NAME, text)
            if end != "closed unread":
                await seline.data.load_json(NAME)
        if end == "killed":
            left_by_a_kill(path / "live", left)
    return left if end == "killed" else path / "live"


async def contents(seline: Seline) -> list[object]:
    backups = await seline.data.backups(NAME)
    return [await seline.data.read_backup(NAME, backup.name) for backup in backups]


@pytest.mark.parametrize("edit", EDITORS)
async def test_what_was_served_for_a_broken_edit_is_served_again(
    tmp_path: Path, edit: Edit, end: str
) -> None:
    left = await ended(tmp_path, [BROKEN], edit, end)
    for _ in range(2):
        async with open_seline(left, storage__settle_s=SETTLED_S) as seline:
            assert await seline.data.load_json(NAME) == LAST
            assert await contents(seline) == [LAST, {"n": 1}]
            [item] = await seline.quarantine()
            assert await seline.read_quarantine(item.name) == BROKEN.encode()
            incidents = [i for i in seline.store.incidents() if i.kind == "recovered"]
            assert [incident.lost for incident in incidents] in ([], [""])


@pytest.mark.parametrize("edit", EDITORS)
async def test_what_was_there_before_an_edit_is_a_backup(
    tmp_path: Path, edit: Edit, end: str
) -> None:
    left = await ended(tmp_path, [json.dumps({"by": "hand"})], edit, end)
    async with open_seline(left, storage__settle_s=SETTLED_S) as seline:
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        assert await contents(seline) == [LAST, {"n": 1}]


@pytest.mark.parametrize("end", ["closed", "killed"], indirect=True)
async def test_an_edit_that_was_served_and_then_broken_is_served_again(
    tmp_path: Path, end: str
) -> None:
    left = await ended(tmp_path, [json.dumps({"by": "hand"}), BROKEN], in_place, end)
    async with open_seline(left, storage__settle_s=SETTLED_S) as seline:
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        assert await contents(seline) == [{"by": "hand"}, LAST, {"n": 1}]
        assert [item.document for item in await seline.quarantine()] == [NAME]


async def test_a_recovery_from_memory_is_reported_by_the_next_start(tmp_path: Path) -> None:
    for saves in (1, 2):
        place = tmp_path / str(saves)
        async with open_seline(place, storage__settle_s=0) as seline:
            for number in range(saves):
                await seline.data.save_json(NAME, {"n": number})
            in_place(place / NAME, BROKEN)
            assert await seline.data.load_json(NAME) == {"n": saves - 1}
            [first] = [i for i in seline.store.incidents() if i.kind == "recovered"]
        async with open_seline(place) as seline:
            [again] = [i for i in seline.store.incidents() if i.kind == "recovered"]
        assert (again.summary, again.lost) == (first.summary, "")
        assert again.at <= first.at


async def test_a_recovery_from_an_older_backup_is_reported_by_the_next_start(
    tmp_path: Path,
) -> None:
    """It is the one that has the content which the broken file recorded."""
    async with open_seline(tmp_path) as seline:
        for number in (0, 1, 2):
            await seline.data.save_json(NAME, {"n": number})
        [*_, oldest] = await seline.data.backups(NAME)
    shutil.copy2(tmp_path / "backups" / oldest.name, tmp_path / NAME)
    flip(tmp_path / NAME, 40)
    summaries = []
    for _ in range(2):
        async with open_seline(tmp_path) as seline:
            assert await seline.data.load_json(NAME) == {"n": 0}
            summaries += [i.summary for i in seline.store.incidents() if i.kind == "recovered"]

    assert f"from backup {oldest.name}; nothing is lost." in summaries[0]
    assert summaries[0] == summaries[1]


async def test_a_server_recovers_at_its_start_what_broke_before(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        for number in range(2):
            await seline.data.save_json(NAME, {"n": number})
        await seline.data.save_json("lost.json", LAST)
    for name in (NAME, "lost.json"):
        in_place(tmp_path / name, BROKEN)
    arguments = {"storage.data_dir": str(tmp_path), "storage.settle_s": 0}
    async with serving(load_settings(environ=chosen(), arguments=arguments), http=False) as server:
        await server.acquired()
        expected = {("recovered", NAME), ("unrecoverable", "lost.json")}
        async with asyncio.timeout(5):
            while not expected <= {
                (i.kind, i.document) for i in server.operations.store.incidents()
            }:
                await asyncio.sleep(0.01)
