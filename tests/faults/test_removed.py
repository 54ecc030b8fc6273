"""Documents that another program removes beside Seline: reported, and undone like a delete."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from seline import open_seline
from seline.errors import DocumentNotFound
from seline.library import Seline
from tests.faults.forms import each_form_at_once

pytestmark = each_form_at_once

NAME = "user_profile.json"
LAST = {"last": "saved"}


def removals(seline: Seline) -> list[str]:
    return [i.summary for i in seline.store.incidents() if i.kind == "removed"]


async def load(seline: Seline) -> None:
    assert await seline.data.load_json(NAME) == {}


async def save(seline: Seline) -> None:
    await seline.data.save_json(NAME, {"new": True}, backup=False)


async def delete(seline: Seline) -> None:
    with pytest.raises(DocumentNotFound):
        await seline.data.delete(NAME)


NOTICES: list[Callable[[Seline], Awaitable[object]]] = [
    load,
    save,
    delete,
    lambda seline: seline.data.documents(),
    lambda seline: seline.verify(),
    lambda seline: seline.data.restore(NAME),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "notice", NOTICES, ids=["load", "save", "delete", "list", "verify", "restore"]
)
@pytest.mark.parametrize("saves", [1, 2])
async def test_the_last_content_of_a_removed_document_is_a_pinned_backup(
    tmp_path: Path, notice: Callable[[Seline], Awaitable[object]], saves: int
) -> None:
    async with open_seline(tmp_path) as seline:
        for number in range(saves - 1):
            await seline.data.save_json(NAME, {"n": number})
        await seline.data.save_json(NAME, LAST)
        (tmp_path / NAME).unlink()
        await notice(seline)

        [summary] = removals(seline)
        kept = next(backup for backup in await seline.data.backups(NAME) if backup.pinned)
        assert await seline.data.read_backup(NAME, kept.name) == LAST
        assert f"`seline restore {NAME} {kept.name}`" in summary
        await seline.data.restore(NAME, kept.name)
        assert await seline.data.load_json(NAME) == LAST
        await seline.verify()
        assert len(removals(seline)) == 1
        store = await seline.store.open()
        assert store.medium.usage().documents == 1


async def test_a_close_keeps_the_last_content_of_a_removed_document(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, LAST)
        (tmp_path / NAME).unlink()
    async with open_seline(tmp_path) as seline:
        await seline.data.restore(NAME)
        assert await seline.data.load_json(NAME) == LAST


async def test_a_removal_is_reported_if_memory_does_not_hold_the_content(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        await seline.data.save_json(NAME, {"n": 2})
        await seline.data.save_json("other.json", LAST)
    async with open_seline(tmp_path) as seline:
        (tmp_path / NAME).unlink()
        (tmp_path / "other.json").unlink()
        assert await seline.data.documents() == []
        without, with_backup = removals(seline)
        [backup] = await seline.data.backups(NAME)
        assert f"`seline restore {NAME} {backup.name}`" in with_backup
        lost = f"its last content was not in memory; lost: changes after {backup.taken_at:%Y-%m-%d}"
        assert lost in with_backup
        assert "newest content" not in with_backup
        assert "`seline import EXPORT --only other.json`" in without


async def test_an_edit_that_was_served_is_kept_with_the_content_before(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, LAST)
        (tmp_path / NAME).write_text(json.dumps({"by": "hand"}))
        assert await seline.data.load_json(NAME) == {"by": "hand"}
        (tmp_path / NAME).unlink()
        await load(seline)
        backups = [b.name for b in await seline.data.backups(NAME)]
        assert [await seline.data.read_backup(NAME, name) for name in backups] == [
            {"by": "hand"},
            LAST,
        ]


async def test_what_seline_removes_is_no_removal_by_another(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        for purge in (False, True):
            await seline.data.save_json(NAME, LAST)
            await seline.data.delete(NAME, purge=purge)
            await load(seline)
            await seline.verify()
        assert removals(seline) == []
        assert await seline.all_backups() == []
