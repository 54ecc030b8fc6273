"""Alerts: what is open, what is over, and a test with the answer of each sink."""

from pathlib import Path

import pytest

from seline.alerts.process import AlertProcess
from seline.domain.alerts.lifecycle import AlertType, Cleared, Raised
from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.http_client import settings_for


async def test_nothing_open_says_so(owner: Browser) -> None:
    page = await owner.get("/alerts")

    assert "Nothing is open: nobody needs to do anything." in page.text
    assert "log receives everything" in page.text


@pytest.fixture
def not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the alerts that a test makes up: an evaluation, every 2 s, ends them."""

    async def nothing(_process: AlertProcess) -> None:
        pass

    monkeypatch.setattr(AlertProcess, "evaluate", nothing)


@pytest.mark.usefixtures("not_evaluated")
async def test_an_open_alert_moves_to_those_that_are_over(owner: Browser, server: Serving) -> None:
    failed = Raised(type=AlertType.JOB_FAILED, subject="export", details={"detail": "no route"})
    await server.alerts.log.take([failed])
    page = await owner.get("/alerts")
    summary = next(iter(server.alerts.log.listing())).summary.replace("`", "")
    assert summary.split(".")[0] in page.text
    assert page.text.index(summary[:20]) < page.text.index("Who receives them")
    assert "Next:" in page.text

    await server.alerts.log.take([Cleared(type=AlertType.JOB_FAILED, subject="export")])
    page = await owner.get("/alerts")

    assert "Nothing is open" in page.text
    summary = next(iter(server.alerts.log.listing())).summary.replace("`", "")
    assert page.text.index("Who receives them") < page.text.index(summary[:20])


@pytest.mark.usefixtures("not_evaluated")
async def test_the_most_serious_alert_is_first(owner: Browser, server: Serving) -> None:
    broken = Raised(type=AlertType.UNRECOVERABLE_DOCUMENT, subject="a.json", details={})
    failed = Raised(type=AlertType.JOB_FAILED, subject="export", details={"detail": "no route"})
    await server.alerts.log.take([broken])
    await server.alerts.log.take([failed])
    page = await owner.get("/alerts")

    assert page.text.index("Critical") < page.text.index("Warning")


async def test_a_test_shows_the_answer_of_each_sink(tmp_path: Path, unused_tcp_port: int) -> None:
    hook = f"http://127.0.0.1:{unused_tcp_port}/hook"
    sinks = [{"kind": "log"}, {"kind": "webhook", "name": "hook", "url": hook}]
    async with (
        serving(settings_for(tmp_path / "data", alerts__sinks=sinks)) as server,
        jar() as session,
    ):
        await server.acquired()
        browser = Browser(session, server.address)
        await browser.sign_in()
        await browser.get("/alerts")
        await browser.press("Send a test alert")
        page = await browser.wait()

    assert "log: delivered in" in page.text
    assert "hook: not delivered." in page.text
