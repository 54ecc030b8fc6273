"""Jobs: the list, a run now with its progress, and the runs."""

import asyncio
import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from seline.operations.changed_names import Waiting
from seline.page import work
from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.http_client import settings_for


async def test_a_job_runs_now_and_shows_what_it_did(owner: Browser) -> None:
    page = await owner.get("/jobs")
    assert "Measure the room It has not run yet" in page.text
    form = next(form for form in page.forms if form.action == "/jobs/usage/run")
    await owner.post(form.action, form.fields)
    page = await owner.wait()

    assert page.path == "/jobs"
    assert "Measure the room: done." in page.text
    assert "Measure the room Succeeded just now" in page.text


async def test_a_run_that_found_nothing_to_do_and_is_not_recorded_is_a_success(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = next(job for job in server._worker.jobs() if job.name == "mirror")
    quiet = dataclasses.replace(job, last=None, last_success=datetime.now(UTC))
    monkeypatch.setattr(server._worker, "jobs", lambda: [quiet])
    page = await owner.get("/jobs")

    assert "Mirror Succeeded just now" in page.text


async def test_the_runs_of_a_job_have_outcome_and_detail(owner: Browser, server: Serving) -> None:
    await owner.get("/jobs/usage")
    assert "It has not run yet" in owner.page.text
    await owner.press("Run now")
    page = await owner.wait()

    [run] = server._worker.runs("usage")
    assert page.path == "/jobs/usage"
    assert run.detail
    assert re.search(rf"It took [0-9.]+ s\. ?{re.escape(run.detail)}", page.text)


async def test_the_next_run_is_in_the_future(owner: Browser) -> None:
    page = await owner.get("/jobs")

    assert "Next run: in " in page.text, page.text


async def test_a_job_that_does_not_exist_is_a_page(owner: Browser) -> None:
    page = await owner.get("/jobs/nothing")

    assert page.status == 404
    assert "That did not work" in page.text


async def test_a_form_leads_back_to_no_other_site(owner: Browser) -> None:
    page = await owner.get("/jobs")
    form = next(form for form in page.forms if form.action == "/jobs/usage/run")
    await owner.post(form.action, {**form.fields, "back": "//elsewhere.example"})
    page = await owner.wait()

    assert page.path == "/"


async def test_a_reader_sees_no_button_that_is_refused(owner: Browser, server: Serving) -> None:
    _, secret = await server.tokens.create(scope="read")
    async with jar() as session:
        reader = Browser(session, server.address)
        await reader.sign_in(secret)
        for path in ("/jobs", "/jobs/usage", "/alerts"):
            page = await reader.get(path)
            assert page.status == 200
            assert {form.action for form in page.forms} == {"/sign-out", "/language"}
        assert "Tokens" not in page.links
        assert "Audit" not in page.links
        for path in ("/tokens", "/audit"):
            assert (await reader.get(path)).status == 403
    page = await owner.get("/")
    assert page.links["Tokens"] == "/tokens"


async def test_a_run_of_the_mirror_shows_how_far_it_is(tmp_path: Path) -> None:
    """The destination answers only once the page has shown the progress."""
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "mirror", "same_disk": True}
    async with (
        serving(settings_for(tmp_path / "data", exports__destinations=[nas])) as server,
        jar() as session,
    ):
        await server.acquired()
        await server.data.save_json("user_profile.json", {"n": 1})
        browser = Browser(session, server.address)
        await browser.sign_in()
        await browser.get("/jobs/mirror")
        release = asyncio.Event()
        [target] = server.operations.exports.destinations.targets
        put = target.destination.put

        async def slow(*given: Any, **named: Any) -> Any:
            await release.wait()
            return await put(*given, **named)

        async with asyncio.timeout(10):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(work, "SHORT_S", 0.3)
                patched.setattr(target.destination, "put", slow)
                waiting = Waiting(copied=1_200, of_all=5_000)
                patched.setattr(server.operations.mirrors, "waiting", lambda _: waiting)
                page = await browser.press("Run now")
                while "1,200 of 5,000 documents so far" not in page.text:
                    assert page.path.startswith("/work/"), page.text
                    page = await browser.get(page.path)
                    await asyncio.sleep(0.05)
                release.set()
                page = await browser.wait()

    assert "Mirror: done." in page.text
