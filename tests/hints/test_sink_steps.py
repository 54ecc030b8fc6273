"""The next steps about sinks of alerts, and that of a digest."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from seline.domain.alerts.lifecycle import AlertType, Raised
from seline.server import Serving, serving
from tests.command_line import Line, line_at
from tests.hints.following import Step, run
from tests.integration.test_alert_process import a_hook, until
from tests.integration.test_alert_sinks import Receiver, listening
from tests.integration.test_http import settings_for

Follow = Callable[[str], Step]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send alerts without waiting for others."""
    monkeypatch.setattr("seline.alerts.queue.BURST_S", 0.0)
    monkeypatch.setattr("seline.alerts.process.EVALUATE_EVERY_S", 0.02)


def server(line: Line, *receivers: Receiver) -> AbstractAsyncContextManager[Serving]:
    """Serve the data directory of a command line, with a webhook to each receiver."""
    return serving(settings_for(line.data, alerts__sinks=[a_hook(found) for found in receivers]))


async def check(running: Serving) -> dict[str, Any]:
    """Return the check `alerts` of health."""
    await running.acquired()
    checks: Any = (await running.operations.health())["checks"]
    return next(found for found in checks if found["name"] == "alerts")


@pytest.mark.follows("operations/checks:_alerts#2")
async def test_a_sink_is_set_so_that_a_person_receives_alerts(
    tmp_path: Path, follow: Follow
) -> None:
    line = line_at(tmp_path)
    async with server(line) as running:
        step = follow((await check(running))["fix"])
    assert step.quoted == ["alerts.sinks"]

    async with listening() as receiver, server(line, receiver) as running:
        assert (await check(running))["status"] == "ok"


@pytest.mark.follows("operations/checks:_alerts")
async def test_a_sink_that_takes_no_alerts_is_corrected(tmp_path: Path, follow: Follow) -> None:
    line = line_at(tmp_path)
    async with listening() as receiver:
        receiver.answers(401)
        async with server(line, receiver) as running:
            await check(running)
            await running.alerts.log.take([Raised(type=AlertType.RECOVERY, subject="a.json")])
            await until(lambda: running.alerts.log.sinks()[-1].failures)
            step = follow((await check(running))["fix"])
            step.asks("Correct `alerts.sinks` and restart")
            [command] = step.commands()
            tested = await asyncio.to_thread(run, line, command)
        assert "it answered 401" in tested.out

    async with listening() as right, server(line, right) as running:
        await check(running)
        await until(lambda: right.requests)
        assert (await check(running))["status"] == "ok"


@pytest.mark.follows("alert:digest")
async def test_the_alerts_of_a_digest_are_listed_each_with_its_step(
    tmp_path: Path, follow: Follow
) -> None:
    line, jobs = line_at(tmp_path), [f"job {number}" for number in range(8)]
    async with listening() as receiver, server(line, receiver) as running:
        await check(running)
        await running.alerts.log.take(
            Raised(type=AlertType.JOB_FAILED, subject=job) for job in jobs
        )
        await until(lambda: receiver.requests)
        digest = receiver.requests[0].value()
        [command] = follow(digest["details"]["fix"]).commands()
        listed = await asyncio.to_thread(run, line, command)

    assert digest["type"] == "digest"
    assert all(f"`seline jobs run {job}`" in listed.out for job in jobs)
