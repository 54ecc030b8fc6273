"""Home: what is well and what is not, and a button where an operation mends it."""

import asyncio
import os
import re
import statistics
import time
from pathlib import Path

import pytest

from seline.cli.verbs import front
from seline.page import home, work
from seline.page.visit import View
from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.http_client import settings_for


async def test_a_new_server_shows_its_state(owner: Browser, server: Serving) -> None:
    await server.data.save_json("user_profile.json", {"n": 1})
    page = await owner.get("/")

    assert page.status == 200
    assert "Everything is well" in page.text
    assert "of the room is used" in page.text
    assert "There is none: if this volume is lost, so are the documents." in page.text
    assert "Check every document" in page.text
    assert 'aria-current="page"' in page.html


async def test_a_check_that_names_an_operation_has_its_button(
    owner: Browser, server: Serving
) -> None:
    await server.data.save_json("user_profile.json", {"n": 1})
    await owner.get("/")
    await owner.press("Check everything now")
    page = await owner.wait()

    assert page.status == 200
    assert "1 document and 0 backups were checked; nothing is broken." in page.text
    assert "were checked" not in (await owner.get("/")).text  # a message is shown once


async def test_a_broken_document_is_named_in_words(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    (tmp_path / "data" / "broken.json").write_text("{")
    await server.operations.verify()
    page = await owner.get("/")

    assert "Something needs you now" in page.text
    assert "broken.json" in page.text
    assert page.text.index("Critical") < page.text.index("Well")


def test_a_check_leads_to_the_view_that_shows_more() -> None:
    views = [View(name, f"/{name}", ()) for name in ("home", "documents", "set_aside", "copies")]
    fix = "Look at them with `seline quarantine`; or `seline reset NAME`."

    assert [view.name for view in views if home._is_about(view, {"fix": fix})] == [
        "documents",
        "set_aside",
    ]


def test_each_command_that_leads_to_a_view_exists() -> None:
    named = {command for commands in home._COMMANDS_OF.values() for command in commands}

    assert named <= set(front.commands)


async def test_what_is_well_is_folded_away(owner: Browser) -> None:
    page = await owner.get("/")
    shown, _, folded = page.html.partition("<details>")

    assert "changes are taken" in folded
    assert "changes are taken" not in shown


async def test_without_a_destination_no_job_of_copies_is_said_to_have_succeeded(
    owner: Browser,
) -> None:
    page = await owner.get("/")

    assert "Check every document" in page.text
    assert "Prove that a copy can be restored" not in page.text


async def test_a_destination_shows_its_copy_and_its_proof(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path / "data",
        exports__destinations=[
            {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "both", "same_disk": True}
        ],
    )
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        await server.data.save_json("user_profile.json", {"n": 1})
        browser = Browser(session, server.address)
        page = await browser.sign_in()
        assert "nas Newest copy: never Last proven restorable: never" in page.text
        assert "Prove that a copy can be restored" in page.text
        csrf = page.forms[0].fields["csrf"]
        await browser.post("/fix/jobs/mirror", {"csrf": csrf})
        page = await browser.wait()
        assert "Mirror: done." in page.text
        await browser.post("/fix/jobs/drill", {"csrf": csrf})
        await browser.wait()
        page = await browser.get("/")
        assert re.search(
            r"Last proven restorable: just now \d{4}-\d\d-\d\d \d\d:\d\d UTC", page.text
        )
        await browser.post("/fix/destinations/nas/accept", {"csrf": csrf})
        page = await browser.wait()
        assert "A restore from nas takes this volume's copy now." in page.text
        await browser.post("/fix/destinations/nas/use", {"csrf": csrf})
        page = await browser.wait()
        assert "nas is in use." in page.text
        page = await browser.post("/fix/destinations/other/use", {"csrf": csrf})
        assert page.status == 404


def test_each_step_that_is_an_operation_has_a_button() -> None:
    steps = {
        "`seline prune` frees 3 KB.": "/prune",
        "Run `seline verify`.": "/fix/verify",
        "Run `seline jobs run mirror`; if they still wait, …": "/fix/jobs/mirror",
        "run `seline destinations accept my-nas`. Or": "/fix/destinations/my-nas/accept",
        "run `seline destinations use b.1` first.": "/fix/destinations/b.1/use",
    }
    for step, action in steps.items():
        found = [
            fix.action.format(name=match.groupdict().get("name", ""))
            for fix in home._FIXES
            for match in fix.command.finditer(step)
        ]
        assert found == [action], step


# long work


async def test_long_work_has_a_page_that_can_be_left(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    verify = server.operations.verify

    async def slow(**_: object) -> object:
        await release.wait()
        return await verify()

    monkeypatch.setattr(work, "SHORT_S", 0.01)
    monkeypatch.setattr(server.operations, "verify", slow)
    csrf = owner.page.forms[0].fields["csrf"]
    page = await owner.post("/fix/verify", {"csrf": csrf})
    assert page.path.startswith("/work/")
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page.html
    assert 'data-poll="2"' in page.html
    assert "Under way" in page.text
    address = page.path

    await owner.get("/")
    release.set()
    await owner.get(address)
    page = await owner.wait()

    assert "were checked; nothing is broken." in page.text
    assert page.links["Back"] == "/"


async def test_long_work_that_fails_shows_the_next_step(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seline.errors import VolumeBusy

    async def failing(**_: object) -> object:
        await asyncio.sleep(0.05)
        raise VolumeBusy

    monkeypatch.setattr(work, "SHORT_S", 0.01)
    monkeypatch.setattr(server.operations, "verify", failing)
    page = await owner.post("/fix/verify", {"csrf": owner.page.forms[0].fields["csrf"]})
    address = page.path
    await owner.get(address)
    page = await owner.wait()

    assert VolumeBusy.hint in page.text


async def test_work_that_is_not_known_is_a_page(owner: Browser) -> None:
    page = await owner.get("/work/" + "0" * 16)

    assert page.status == 404
    assert "not known any more" in page.text


async def test_an_error_in_words_of_the_page_is_marked_in_its_language(owner: Browser) -> None:
    page = await owner.get("/work/" + "0" * 16, Accept_Language="fr")

    assert '<span lang="fr">Ce travail n' in page.html


@pytest.mark.prove
async def test_home_costs_few_listings_of_the_data_directory(tmp_path: Path) -> None:
    """The processor time, health included, of 10,000 documents with a backup each."""
    data = tmp_path / "data"
    (data / "backups").mkdir(parents=True)
    for number in range(10_000):
        (data / f"document_{number}.json").write_text('{"n": 1}')
        (data / "backups" / f"document_{number}.20261127_020000_0000.json").write_text("{}")
    settings = settings_for(data, storage__documents_max=20_000)
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        browser = Browser(session, server.address)
        await browser.sign_in()
        ratios: list[float] = []
        for _ in range(10):
            began = time.process_time()
            with os.scandir(data) as entries:
                assert sum(entry.is_file() for entry in entries) >= 10_000
            listed_s, began = time.process_time() - began, time.process_time()
            page = await browser.get("/")
            ratios.append((time.process_time() - began) / listed_s)
            assert page.status == 200

    assert statistics.median(ratios) <= 12, ratios


ENGLISH = re.compile(r'<span lang="en">(.*?)</span>', re.DOTALL)


async def test_the_checks_are_in_french(owner: Browser, server: Serving, tmp_path: Path) -> None:
    await server.data.save_json("user_profile.json", {"n": 1})
    (tmp_path / "data" / "broken.json").write_text('{"n": 1,}')
    (tmp_path / "data" / "notes.txt").write_text("n")
    await server.operations.verify()
    page = await owner.get("/", Accept_Language="fr")

    assert ENGLISH.findall(page.html) == []
    assert "ne peuvent pas être servis : broken.json" in page.text
    assert "une virgule avant le crochet fermant" in page.text
    assert "son nom ne se termine pas par .json" in page.text
    assert "désactivé : rien n'est gardé hors de ce volume" in page.text
    assert "<code>seline reset broken.json</code>" in page.html


async def test_an_error_is_in_french(owner: Browser, server: Serving) -> None:
    page = await owner.get("/documents/gone.json", Accept_Language="fr")

    assert page.status == 404
    assert ENGLISH.findall(page.html) == []
    assert "Il n'y a pas de document gone.json" in page.text
    assert "<code>seline documents</code> donne les noms" in page.html


async def test_what_a_job_did_is_in_french(owner: Browser, server: Serving) -> None:
    await server.data.save_json("user_profile.json", {"n": 1})
    owner.headers["Accept-Language"] = "fr"
    await owner.get("/jobs/integrity")
    await owner.press("Lancer maintenant")
    page = await owner.wait()

    assert ENGLISH.findall(page.html) == []
    done = "1 document et 0 sauvegardes contrôlés"
    assert page.text.count(done) == 2  # in the message of the act, and in the list of the runs
