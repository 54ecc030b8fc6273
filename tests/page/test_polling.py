"""Polling: a page that is open is asked for again, and answered with 304 while it is the same."""

import asyncio
import re
from datetime import timedelta

import pytest

from seline.clock import Clock
from seline.page.visit import POLL_HEADER
from seline.server import Serving
from tests.browser import Browser
from tests.docs.blocks import ROOT

TEMPLATES = ROOT / "seline" / "page" / "templates"
POLL = {POLL_HEADER.replace("-", "_"): "1"}
POLLED = ("/", "/jobs", "/jobs/usage", "/alerts")


async def test_a_page_that_is_polled_is_sent_again_only_if_it_differs(owner: Browser) -> None:
    for path in POLLED:
        shown = await owner.get(path)
        assert 'data-poll="5"' in shown.html, path
        assert "data-live" in shown.html, path
        polled = await owner.get(path, **POLL)
        while polled.status == 200:  # the jobs of the first start may still run
            polled = await owner.get(path, **POLL, If_None_Match=polled.headers["ETag"])
        assert (polled.status, polled.html) == (304, ""), path


async def test_what_happens_is_in_the_next_poll(owner: Browser, server: Serving) -> None:
    before = await owner.get("/jobs", **POLL)
    run = server._worker.run_now("usage")
    while any(each.id == run.id and not each.outcome for each in server._worker.runs("usage")):
        await asyncio.sleep(0.01)
    after = await owner.get("/jobs", **POLL, If_None_Match=before.headers["ETag"])

    assert after.status == 200
    assert "Measure the room Succeeded just now" in after.text


async def test_a_poll_takes_no_message_from_the_page_that_it_is_for(owner: Browser) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    async with owner.session.post(
        owner.address + "/prune", data={"csrf": csrf}, allow_redirects=False
    ) as response:
        assert response.headers["Location"] == "/"

    await owner.get("/", **POLL)
    page = await owner.get("/")

    assert "0 backups were removed" in page.text


async def test_a_poll_does_not_keep_a_session(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Clock.now
    for hours, path in ((5, "/"), (10, "/"), (13, "/sign-in?ended=1")):
        monkeypatch.setattr(Clock, "now", lambda clock, h=hours: real(clock) + timedelta(hours=h))
        page = await owner.get("/", **POLL)
        assert page.path == path


def test_what_a_poll_replaces_has_a_name() -> None:
    for template in TEMPLATES.glob("*.html"):
        for element in re.findall(r"<[^>]*data-live[^>]*>", template.read_text("utf-8")):
            assert re.search(r'\bid="[a-z-]+" data-live', element), (template.name, element)
