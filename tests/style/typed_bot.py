"""A bot as its author types it: `test_types.py` checks this file, and never runs it."""

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import msgspec

from seline import DataManager, Seline
from seline.blocking import get_data_manager, open_seline
from seline.server import Serving, serving


class Profile(TypedDict):
    userName: str


@dataclass
class Visits:
    count: int = 0


class Place(msgspec.Struct):
    name: str


data_manager = get_data_manager()

assert_type(data_manager.load_json("user_profile.json"), Any)
print(data_manager.load_json("user_profile.json")["userName"].title())
print(data_manager.load_json("user_profile.json", default=[])[0])
assert_type(data_manager.load_json("user_profile.json", type=Profile)["userName"], str)
assert_type(data_manager.load_json("visits.json", type=Visits), Visits)
assert_type(data_manager.load_json("visits.json", None, type=Visits), Visits | None)
assert_type(data_manager.load_json("places.json", type=list[Place]), list[Place])
assert_type(data_manager.update_field("user_profile.json", "location", "Lyon"), str)
data_manager.update_json("visits.json", lambda value: {**value, "count": value["count"] + 1})
print(data_manager.read("user_profile.json").value["userName"])
print(data_manager.export_all_data()["files"]["user_profile.json"])
with data_manager.edit("visits.json") as visits:
    visits["count"] += 1
with data_manager.transaction("ann.json", "bob.json") as accounts:
    accounts["ann.json"]["balance"] -= 1
with open_seline("./data", backups__keep_newest=10) as seline:
    print(seline.data.load_json("user_profile.json")["userName"], seline.health()["status"])
    compared = seline.diff("user_profile.json", "current", "user_profile_20250106_143022.json")
    assert_type(compared.difference.added, int)
    print([change.path for change in compared.difference.changes], compared.after.taken_at)


async def awaited(data: DataManager) -> None:
    """Do the same with `await`."""
    assert_type(await data.load_json("user_profile.json"), Any)
    assert_type(await data.load_json("visits.json", type=Visits), Visits)
    assert_type(await data.load_json("visits.json", None, type=Visits), Visits | None)
    async with data.edit("visits.json") as visits:
        visits["count"] += 1


async def shared(opened: Serving | Seline) -> None:
    """Use what the two ways to open share."""
    await awaited(opened.data)
    print(await opened.profile.load(), opened.lessons)
    if isinstance(opened, Seline):
        print((await opened.diff("user_profile.json")).difference.patch)
    await opened.close()


async def served() -> None:
    """Put `serving(http=False)` in the place of `open_seline`."""
    async with serving(http=False) as opened:
        assert_type(opened, Serving)
        await opened.acquired()
        print(await opened.operations.health())
    await shared(await serving(http=False))
