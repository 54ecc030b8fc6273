"""Snippets written for an older `data_manager.py` run; only their import path differs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline import blocking, open_seline
from tests.docs.blocks import run_python


@pytest.fixture
def open_here(tmp_path: Path) -> Iterator[None]:
    with blocking.open_seline(tmp_path):
        yield


@pytest.mark.usefixtures("open_here")
def test_save_load_update_and_restore() -> None:
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


@pytest.mark.usefixtures("open_here")
def test_the_profile_service_saves_loads_and_restores() -> None:
    from seline.blocking import get_user_profile

    profile_service = get_user_profile()
    profile_service.save({"userName": "Alex", "birthDate": "1990-01-01"})
    data = profile_service.load()
    assert data == {"userName": "Alex", "birthDate": "1990-01-01"}
    profile_service.restore_from_backup()
    assert profile_service.get_field("userName") == "Alex"
    assert profile_service.get_field("none", "default") == "default"


@pytest.mark.usefixtures("open_here")
def test_the_lessons_service_adds_and_lists() -> None:
    from seline.blocking import get_lessons_service

    lessons = get_lessons_service()
    lessons.add_lesson(
        category="messaging", problem="Messages trop longs", solution="Limiter à 500 caractères max"
    )
    all_lessons = lessons.get_lessons()
    assert [lesson["problem"] for lesson in all_lessons] == ["Messages trop longs"]


@pytest.mark.usefixtures("open_here")
def test_an_export_can_be_read_document_by_document() -> None:
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


def test_an_export_is_printed_from_a_shell(tmp_path: Path) -> None:
    code = """
from seline.blocking import get_data_manager
import json
export = get_data_manager().export_all_data()
print(json.dumps(export, indent=2))
"""
    with blocking.open_seline(tmp_path / "data") as seline:
        seline.data.save_json("user_profile.json", {"userName": "Alex"})
    out = run_python(tmp_path, "-c", code)

    assert json.loads(out)["files"] == {"user_profile.json": {"userName": "Alex"}}


async def test_the_same_names_can_be_awaited(tmp_path: Path) -> None:
    from seline import get_data_manager, get_lessons_service, get_seline, get_user_profile

    async with open_seline(tmp_path):
        assert (await get_seline().health())["status"] != "critical"
        data_manager = get_data_manager()
        if not await data_manager.save_json("user_profile.json", {"userName": "Alex"}, backup=True):
            pytest.fail("a revision is always true")
        await get_user_profile().update_field("location", "Lyon")
        assert await get_user_profile().load() == {"userName": "Alex", "location": "Lyon"}
        await get_lessons_service().add_lesson("a", "b", "c")
        assert len(await get_lessons_service().get_lessons()) == 1


def test_importing_seline_loads_neither_a_web_server_nor_a_scheduler(tmp_path: Path) -> None:
    code = (
        "import seline, sys; seline.open_seline; import seline.blocking\n"
        "print([name for name in ('aiohttp', 'apscheduler', 'click', 'rich') if name in "
        "sys.modules])"
    )
    assert run_python(tmp_path, "-c", code) == "[]\n"
