"""Prune: what the policy drops is listed before it goes, and Home leads there."""

from pathlib import Path

from seline.server import serving
from tests.browser import Browser, jar
from tests.http_client import settings_for

OLD = "user_profile_20200101_000000.json"


async def test_what_the_policy_drops_is_shown_before_it_goes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    async with serving(settings_for(data)) as server, jar() as session:
        await server.acquired()
        await server.data.save_json("user_profile.json", {"n": 1})
        await server.data.save_json("user_profile.json", {"n": 2})
        await server.data.save_json("user_profile.json", {"n": 3})
    settings = settings_for(data, backups__keep_newest=1, backups__keep_daily=0)
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        owner = Browser(session, server.address)
        page = await owner.sign_in()
        before = await server.data.backups("user_profile.json")
        page = await owner.get(page.links["Remove what the policy drops"])
        assert "1 backup goes, and frees" in page.text
        assert before[-1].name in page.text
        assert len(await server.data.backups("user_profile.json")) == len(before)
        page = await owner.press("Remove them")
        assert "1 backup was removed;" in page.text
        assert len(await server.data.backups("user_profile.json")) == len(before) - 1


async def test_a_policy_that_keeps_everything_is_said(owner: Browser) -> None:
    page = await owner.get("/prune")

    assert "Nothing goes: the policy keeps every backup." in page.text
    assert all(form.action != "/prune" for form in page.forms)
