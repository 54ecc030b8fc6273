"""The owner's snippets run as they are, import path aside: blocking as written, and awaited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline import blocking, open_seline
from tests.docs.blocks import ROOT


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[None]:
    with blocking.open_seline(tmp_path):
        yield


@pytest.mark.usefixtures("opened")
def test_saving_loading_updating_and_restoring() -> None:
    from seline.blocking import get_data_manager

    data_manager = get_data_manager()
    data = {"userName": "Alex", "location": "Paris"}
    assert data_manager.save_json("user_profile.json", data, backup=True)
    profile = data_manager.load_json("user_profile.json")
    assert profile == data
    data_manager.update_field("user_profile.json", "location", "Lyon", backup=True)
    success = data_manager.restore_from_backup("user_profile.json")
    assert success is True
    assert data_manager.load_json("user_profile.json") == data
    assert data_manager.load_json("none.json") == {}


@pytest.mark.usefixtures("opened")
def test_the_profile_service() -> None:
    from seline.blocking import get_user_profile

    profile_service = get_user_profile()
    profile_service.save({"userName": "Alex", "birthDate": "1990-01-01"})
    data = profile_service.load()
    assert data == {"userName": "Alex", "birthDate": "1990-01-01"}
    profile_service.restore_from_backup()
    assert profile_service.get_field("userName") == "Alex"
    assert profile_service.get_field("none", "default") == "default"


@pytest.mark.usefixtures("opened")
def test_the_lessons_service() -> None:
    from seline.blocking import get_lessons_service

    lessons = get_lessons_service()
    lessons.add_lesson(
        category="messaging",
        problem="Messages trop longs",
        solution="Limiter à 500 caractères max",
    )
    all_lessons = lessons.get_lessons()
    assert [lesson["problem"] for lesson in all_lessons] == ["Messages trop longs"]


@pytest.mark.usefixtures("opened")
def test_the_migration_loop() -> None:
    from seline.blocking import get_data_manager

    data_manager = get_data_manager()
    data_manager.save_json("user_profile.json", {"userName": "Alex"})
    export = data_manager.export_all_data()
    users = []
    for file, content in export["files"].items():  # type: ignore[union-attr]
        if file == "user_profile.json":
            users.append(dict(**content))  # type: ignore[arg-type]
    assert users == [{"userName": "Alex"}]
    assert export["exported_at"]


def test_the_export_from_a_shell(tmp_path: Path) -> None:
    code = """
from seline.blocking import get_data_manager
import json
export = get_data_manager().export_all_data()
print(json.dumps(export, indent=2))
"""
    with blocking.open_seline(tmp_path / "data") as seline:
        seline.data.save_json("user_profile.json", {"userName": "Alex"})
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, timeout=30
    )
    assert json.loads(done.stdout)["files"] == {"user_profile.json": {"userName": "Alex"}}


async def test_the_same_names_awaited(tmp_path: Path) -> None:
    from seline import get_data_manager, get_lessons_service, get_user_profile

    async with open_seline(tmp_path):
        data_manager = get_data_manager()
        if not await data_manager.save_json("user_profile.json", {"userName": "Alex"}, backup=True):
            pytest.fail("a revision is always true")
        await get_user_profile().update_field("location", "Lyon")
        assert await get_user_profile().load() == {"userName": "Alex", "location": "Lyon"}
        await get_lessons_service().add_lesson("a", "b", "c")
        assert len(await get_lessons_service().get_lessons()) == 1


def test_importing_seline_loads_neither_a_web_server_nor_a_scheduler() -> None:
    code = (
        "import seline, sys; seline.open_seline; import seline.blocking\n"
        "print([name for name in ('aiohttp', 'apscheduler', 'click', 'rich') if name in "
        "sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "[]\n", done.stderr
