"""The alerts of a real server, from a flipped bit on the disk to the receiver of a webhook."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web

from seline.alerts import process, queue
from seline.alerts.process import AlertProcess
from seline.domain.copy import STILL_COPYING
from seline.domain.job import Run, RunOutcome
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import UnsupportedFormat, VolumeFull
from seline.operations import Operations, usage
from seline.outbound import heartbeat as heartbeats
from seline.server import Serving, alone, serving
from seline.storage.volume import lock, mounts
from tests.http_client import Client, settings_for
from tests.integration.test_alert_sinks import Answer, Receiver, listening
from tests.integration.test_metrics import scraped

pytestmark = pytest.mark.usefixtures("files_at_once")

NAME = "user_profile.json"
OTHER = "lessons_learned.json"
HOOK = "/hooks/path-secret"
BEAT = "/ping/path-secret"
LIMIT_S = 10.0
FIELDS = {
    "id", "type", "severity", "state", "document", "summary", "details", "fix", "first_at",
    "last_at", "count",
}  # fmt: skip
T = TypeVar("T")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate every 20 ms instead of every two seconds, and send without waiting for more."""
    monkeypatch.setattr(process, "EVALUATE_EVERY_S", 0.02)
    monkeypatch.setattr("seline.alerts.queue.BURST_S", 0.0)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Collect the log of every test and check that it contains no secret."""
    caplog.set_level(logging.INFO)
    yield caplog
    assert "secret" not in caplog.text


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A running server, a client of its API, and its data directory."""

    server: Serving
    client: Client
    directory: Path

    async def save(self, *, versions: int = 2, name: str = NAME) -> None:
        for number in range(versions):
            await self.server.data.save_json(name, {"n": number, "text": "words " * 50})

    async def verify(self) -> None:
        assert (await self.client.call("POST", "/verify"))[0] == 200

    async def recover(self, name: str = NAME) -> None:
        """Break a document and have it recovered."""
        await self.save(name=name)
        flip(self.directory / name)
        await self.verify()

    async def run(self, job: str) -> None:
        """Run a job and wait for its end."""
        started = (await self.client.call("POST", f"/jobs/{job}/run"))[1]["run"]
        async with asyncio.timeout(LIMIT_S):
            while True:
                runs = (await self.client.call("GET", f"/jobs/{job}/runs"))[1]["runs"]
                if any(run["id"] == started and run["ended_at"] for run in runs):
                    return

    async def alerts(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.client.call("GET", "/alerts"))[1]["alerts"]
        return listed

    async def sink(self, name: str) -> dict[str, Any]:
        sinks: list[dict[str, Any]] = (await self.client.call("GET", "/alerts"))[1]["sinks"]
        [found] = [sink for sink in sinks if sink["name"] == name]
        return found


def flip(path: Path) -> None:
    """Flip one bit of a file and keep its mtime, as a bad disk does."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@asynccontextmanager
async def running(directory: Path, *receivers: Receiver, **settings: Any) -> AsyncIterator[Place]:
    """Serve a data directory with a webhook to each receiver: hook, hook 2, and so on."""
    async with waiting(directory, *receivers, **settings) as place:
        await place.server.acquired()
        yield place


@asynccontextmanager
async def waiting(directory: Path, *receivers: Receiver, **settings: Any) -> AsyncIterator[Place]:
    """Serve a data directory that may not open."""
    hooks = [a_hook(receiver, number) for number, receiver in enumerate(receivers, start=1)]
    usual = {"alerts__sinks": hooks, "storage__settle_s": 0}
    chosen = settings_for(directory, **{**usual, **settings})
    async with serving(chosen) as server, aiohttp.ClientSession() as session:
        yield Place(server=server, client=Client(session, server.address), directory=directory)


def a_hook(receiver: Receiver, number: int = 1) -> dict[str, str]:
    name = "hook" if number == 1 else f"hook {number}"
    return {"kind": "webhook", "name": name, "url": receiver.url + HOOK, "token": "token-secret"}


async def until(found: Callable[[], T]) -> T:
    """Wait until a function returns something true, and return it."""
    async with asyncio.timeout(LIMIT_S):
        while not (result := found()):
            await asyncio.sleep(0.01)
    return result


def received(
    receiver: Receiver, type: str, *, state: str = "open", about: str = ""
) -> list[dict[str, Any]]:
    """Return the alerts of one type, state, and document or job that a receiver got."""
    values = [request.value() for request in receiver.requests if request.path == HOOK]
    return [
        value
        for value in values
        if (value["type"], value["state"]) == (type, state)
        and (not about or about in (value["details"].get("document"), value["details"].get("job")))
    ]


def beats(receiver: Receiver) -> list[str]:
    return [request.method for request in receiver.requests if request.path == BEAT]


# from the disk to the receiver


async def test_a_flipped_bit_is_delivered_and_listed(receiver: Receiver, tmp_path: Path) -> None:
    async with running(tmp_path, receiver) as place:
        await place.recover()

        [alert] = await until(lambda: received(receiver, "recovery"))
        [listed] = [found for found in await place.alerts() if found["type"] == "recovery"]

    assert set(listed) == FIELDS
    assert (listed["document"], listed["state"], listed["count"]) == (NAME, "open", 1)
    assert (alert["id"], alert["state"]) == (listed["id"], "open")
    assert alert["severity"] == listed["severity"].upper()
    assert alert["details"]["summary"] == listed["summary"]
    assert alert["details"]["fix"] == listed["fix"] != ""
    assert alert["resource"]["volume"] == {"mountPath": str(tmp_path)}
    assert alert["resource"]["document"] == {"name": NAME}


async def test_an_alert_about_no_document_names_none(receiver: Receiver, tmp_path: Path) -> None:
    async with running(tmp_path, receiver) as place:
        place.server.operations.exports.run = no_room
        await place.run("export")
        await until(lambda: received(receiver, "job_failed"))
        [listed] = [found for found in await place.alerts() if found["type"] == "job_failed"]

    assert set(listed) == FIELDS - {"document"}


async def test_after_a_restart_an_alert_is_listed_and_not_delivered_again(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running(tmp_path, receiver) as place:
        await place.recover()
        await until(lambda: received(receiver, "recovery"))

    async with running(tmp_path, receiver) as place:
        await place.recover(OTHER)
        await until(lambda: received(receiver, "recovery", about=OTHER))
        recoveries = [found for found in await place.alerts() if found["type"] == "recovery"]

    assert sorted(found["document"] for found in recoveries) == sorted([NAME, OTHER])
    assert len(received(receiver, "recovery", about=NAME)) == 1


async def test_an_undelivered_alert_is_delivered_after_a_restart(tmp_path: Path) -> None:
    async with listening(at_once=False) as receiver:
        async with running(tmp_path, receiver) as place:
            await place.recover()
            async with asyncio.timeout(LIMIT_S):
                while not (await place.sink("hook"))["failures"]:
                    await asyncio.sleep(0.01)
            assert (await place.sink("hook"))["waiting"] == 1
            assert (await place.sink("hook"))["detail"] == "cannot connect: Connection refused"

        await receiver.start()
        async with running(tmp_path, receiver) as place:
            [alert] = await until(lambda: received(receiver, "recovery"))
            async with asyncio.timeout(LIMIT_S):
                while (await place.sink("hook"))["waiting"]:
                    await asyncio.sleep(0.01)

    assert alert["resource"]["document"] == {"name": NAME}
    assert len(receiver.requests) == 1


async def test_an_event_right_before_the_stop_is_delivered(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "EVALUATE_EVERY_S", 3600.0)
    async with running(tmp_path, receiver) as place:
        await place.recover()

    async with running(tmp_path, receiver) as place:
        await until(lambda: received(receiver, "recovery"))
        [listed] = [found for found in await place.alerts() if found["type"] == "recovery"]

    assert listed["document"] == NAME
    assert len(received(receiver, "recovery")) == 1


async def test_an_evaluation_that_hangs_does_not_delay_the_stop(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(_process: AlertProcess) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(process, "LAST_EVALUATION_S", 0.05)
    async with running(tmp_path, receiver) as place:
        monkeypatch.setattr(AlertProcess, "evaluate", for_ever)
        async with asyncio.timeout(LIMIT_S):
            await place.server.close()


async def test_an_evaluation_that_fails_does_not_stop_the_alerts(
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    def broken(_process: AlertProcess, _store: object) -> None:
        raise RuntimeError("a defect")

    async with running(tmp_path, receiver) as place:
        with monkeypatch.context() as patch:
            patch.setattr(AlertProcess, "_store_signals", broken)
            await until(lambda: "could not evaluate alerts" in log.text)
        await place.recover()
        await until(lambda: received(receiver, "recovery"))


async def test_alerts_are_in_the_language_of_the_settings(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running(tmp_path, receiver, alerts__language="fr") as place:
        await place.recover()
        [alert] = await until(lambda: received(receiver, "recovery"))
        [listed] = [found for found in await place.alerts() if found["type"] == "recovery"]

    assert alert["details"]["summary"] == listed["summary"]
    assert "était cassé et a été récupéré. Il était modifié par le disque." in listed["summary"]
    assert listed["fix"].startswith("Regardez ce qui a été mis de côté")


async def test_metrics_count_alerts_by_severity_and_by_sink(tmp_path: Path) -> None:
    async with listening(at_once=False) as dead, running(tmp_path, dead) as place:
        await place.recover()
        async with asyncio.timeout(LIMIT_S):
            while (
                not (await place.sink("hook"))["failures"] or (await place.sink("log"))["waiting"]
            ):
                await asyncio.sleep(0.01)
        _, values = await scraped(place.server)
        open_alerts = [alert for alert in await place.alerts() if alert["state"] == "open"]

    for severity in ("info", "warning", "critical"):
        count = sum(alert["severity"] == severity for alert in open_alerts)
        assert values[f"seline_alerts_open{{severity={severity}}}"] == count
    assert values["seline_alerts_open{severity=warning}"] >= 1
    assert values["seline_alerts_waiting{sink=hook}"] == len(open_alerts)
    assert values["seline_alerts_waiting{sink=log}"] == 0
    assert values["seline_alerts_given_up_total{sink=hook}"] == 0


# the test alert


async def test_the_test_alert_has_the_outcome_of_each_sink(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with listening(at_once=False) as dead, running(tmp_path, receiver, dead) as place:
        status, body, _ = await place.client.call("POST", "/alerts/test")
        listed = [alert["type"] for alert in await place.alerts()]

    assert status == 200
    found = {
        delivery["sink"]: (delivery["kind"], delivery["delivered"])
        for delivery in body["deliveries"]
    }
    assert found == {"log": ("log", True), "hook": ("webhook", True), "hook 2": ("webhook", False)}
    details = [delivery["detail"] for delivery in body["deliveries"]]
    assert details == ["", "", "cannot connect: Connection refused"]
    assert "secret" not in json.dumps(body)
    [alert] = received(receiver, "test")
    assert alert["severity"] == "INFO"
    assert "test" not in listed


async def test_a_read_token_can_list_alerts_and_not_send_the_test(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running(tmp_path, receiver) as place:
        _, reader = await place.server.tokens.create(scope="read", label="page")
        known = {"Authorization": f"Bearer {reader}"}
        looked, _, _ = await place.client.call("GET", "/alerts", **known)
        tested, problem, _ = await place.client.call("POST", "/alerts/test", **known)
        for method, path in (("GET", "/alerts"), ("POST", "/alerts/test")):
            address = place.client.base + path
            async with place.client.session.request(method, address) as unknown:
                assert unknown.status == 401

    assert (looked, tested) == (200, 403)
    assert problem["code"] == "forbidden"
    assert receiver.requests == []


async def test_the_sinks_are_listed_without_secrets(receiver: Receiver, tmp_path: Path) -> None:
    async with running(tmp_path, receiver) as place:
        await place.recover()
        await until(lambda: received(receiver, "recovery"))
        async with asyncio.timeout(LIMIT_S):
            while (await place.sink("hook"))["delivered_at"] is None:
                await asyncio.sleep(0.01)
        _, body, _ = await place.client.call("GET", "/alerts")

    assert [(sink["name"], sink["kind"]) for sink in body["sinks"]] == [
        ("log", "log"),
        ("hook", "webhook"),
    ]
    assert "secret" not in json.dumps(body)
    assert receiver.url not in json.dumps(body)


# a volume that does not open


async def test_a_missing_mount_is_alerted_while_the_server_waits_for_it(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[mounts.Mount | None] = [None]
    monkeypatch.setattr(mounts, "mount_of", lambda _path: there[0])
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    async with waiting(tmp_path, receiver, storage__require_mount=True) as place:
        [alert] = await until(lambda: received(receiver, "wrong_mount"))
        acquiring = asyncio.create_task(place.server.acquired())
        await asyncio.sleep(0.05)
        assert not acquiring.done()
        assert not (tmp_path / ".seline").exists()

        there[0] = mounts.Mount(point=str(tmp_path), kind="ext4", device="/dev/sdz")
        await acquiring
        [over] = await until(lambda: received(receiver, "wrong_mount", state="resolved"))
        listed = [found for found in await place.alerts() if found["type"] == "wrong_mount"]

    assert (alert["severity"], over["id"]) == ("CRITICAL", alert["id"])
    assert f"No volume is mounted at {tmp_path}" in alert["details"]["summary"]
    assert [found["state"] for found in listed] == ["resolved"]


async def test_a_server_that_waits_for_its_volume_stops_at_once(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "mount_of", lambda _path: None)
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    async with waiting(tmp_path, receiver, storage__require_mount=True) as place:
        await until(lambda: received(receiver, "wrong_mount"))
        async with asyncio.timeout(3):
            await place.server.close()

    assert len(receiver.requests) == 1


async def test_a_volume_of_a_newer_format_is_alerted_before_the_process_ends(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AlertProcess, "evaluate", idle)
    (tmp_path / ".seline").mkdir()
    (tmp_path / ".seline" / "format").write_text("99\n")
    async with waiting(tmp_path, receiver) as place:
        with pytest.raises(UnsupportedFormat):
            await place.server.acquired()
        [alert] = received(receiver, "writes_refused")

    assert alert["severity"] == "CRITICAL"
    assert "has format 99" in alert["details"]["summary"]


async def test_a_volume_that_cannot_be_opened_is_alerted_until_it_can(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.library.RETRY_AFTER_S", 0.05)
    data_dir = tmp_path / "data"
    data_dir.write_text("a file in the place of the directory")
    async with waiting(data_dir, receiver) as place:
        [alert] = await until(lambda: received(receiver, "writes_refused"))
        data_dir.unlink()
        await place.server.acquired()
        assert await place.server.data.save_json("a.json", {})
        [over] = await until(lambda: received(receiver, "writes_refused", state="resolved"))

    assert "nothing is read either" in alert["details"]["summary"]
    assert over["id"] == alert["id"]


async def test_a_failure_report_to_a_silent_sink_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FAILURE_WAIT_S", 0.05)
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.05)
    (tmp_path / ".seline").mkdir()
    (tmp_path / ".seline" / "format").write_text("99\n")
    async with listening() as silent:
        silent.answer = for_ever(silent)
        async with waiting(tmp_path, silent) as place, asyncio.timeout(LIMIT_S / 2):
            with pytest.raises(UnsupportedFormat):
                await place.server.acquired()


# the heartbeat


async def test_an_integrity_check_without_damage_sends_one_heartbeat(
    receiver: Receiver, tmp_path: Path
) -> None:
    heartbeat = {"alerts__heartbeat_url": receiver.url + BEAT}
    async with running(tmp_path, receiver, **heartbeat) as place:
        await place.recover()
        await place.run("rotation")
        await place.run("usage")
        assert beats(receiver) == []
        await place.run("integrity")
        await until(lambda: beats(receiver))

    assert beats(receiver) == ["GET"]


async def test_no_heartbeat_is_sent_until_everything_is_sound_again(
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(process, "OVER_CHECK_EVERY_S", 0.0)
    heartbeat = {"alerts__heartbeat_url": receiver.url + BEAT}
    async with running(tmp_path, receiver) as place:
        await place.save(versions=1)
    flip(tmp_path / NAME)
    async with running(tmp_path, receiver, **heartbeat) as place:
        await place.run("integrity")
        await until(lambda: log.text.count("no heartbeat") == 1)
        await place.run("integrity")
        await until(lambda: log.text.count("no heartbeat") == 2)
        await until(lambda: received(receiver, "unrecoverable_document"))
        assert beats(receiver) == []

        assert (await place.client.call("POST", f"/documents/{NAME}/reset"))[0] == 200
        await until(lambda: received(receiver, "unrecoverable_document", state="resolved"))
        await place.run("integrity")
        await until(lambda: beats(receiver))

    assert beats(receiver) == ["GET"]


async def test_a_failed_integrity_check_sends_no_heartbeat(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Operations, "verify", failing)
    heartbeat = {"alerts__heartbeat_url": receiver.url + BEAT}
    async with running(tmp_path, receiver, **heartbeat) as place:
        await place.run("integrity")
        await until(lambda: received(receiver, "job_failed", about="integrity"))

    assert beats(receiver) == []


async def test_a_heartbeat_that_does_not_arrive_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeats, "ATTEMPTS", 1)
    async with listening(at_once=False) as dead:
        heartbeat = {"alerts__heartbeat_url": dead.url + BEAT}
        async with running(tmp_path, **heartbeat) as place:
            await place.run("integrity")
            await until(lambda: "the heartbeat did not arrive" in log.text)

    assert "cannot connect: Connection refused" in log.text


# jobs


async def test_a_failed_job_is_alerted_until_it_succeeds(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, receiver) as place:
        with monkeypatch.context() as patch:
            patch.setattr(Operations, "prune", failing)
            await place.run("rotation")
            [alert] = await until(lambda: received(receiver, "job_failed"))
        await place.run("usage")
        await place.run("rotation")
        [over] = await until(lambda: received(receiver, "job_failed", state="resolved"))

    assert (alert["details"]["job"], alert["severity"]) == ("rotation", "WARNING")
    assert "RuntimeError: a defect" in alert["details"]["summary"]
    assert over["id"] == alert["id"]
    assert over["details"]["summary"] == "The job `rotation` succeeds again."


async def test_the_alert_of_a_disabled_job_is_resolved(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Operations, "prune", failing)
        async with running(tmp_path, receiver) as place:
            await place.run("rotation")
            await until(lambda: received(receiver, "job_failed"))

    async with running(tmp_path, receiver, jobs__rotation__enabled=False):
        await until(lambda: received(receiver, "job_failed", state="resolved"))


async def test_an_overdue_job_is_alerted_until_it_succeeds(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running(tmp_path, receiver) as place:
        place.server.alerts.report_overdue("rotation", None)
        [alert] = await until(lambda: received(receiver, "job_overdue"))
        await place.run("rotation")
        [over] = await until(lambda: received(receiver, "job_overdue", state="resolved"))

    assert (alert["details"]["job"], over["id"]) == ("rotation", alert["id"])


async def test_a_skipped_run_opens_no_alert_and_ends_none(
    receiver: Receiver, tmp_path: Path
) -> None:
    """On a new server the first copy takes longer than the time to the next run of its job."""
    async with running(tmp_path, receiver) as place:
        alerts = place.server.alerts
        now = place.server.operations.store.clock.now()
        alerts.report_overdue("rotation", None)
        for job in ("rotation", "mirror"):
            run = Run(id=job, job=job, started_at=now, ended_at=now, outcome=RunOutcome.SKIPPED)
            await alerts.report_run(run)
        await until(lambda: received(receiver, "job_overdue"))
        found = [alert for alert in await place.alerts() if alert["type"] == "job_overdue"]

    assert [(alert["details"]["job"], alert["state"]) for alert in found] == [("rotation", "open")]


async def test_a_copy_in_progress_does_not_end_the_alert_of_a_failed_one(
    receiver: Receiver, tmp_path: Path
) -> None:
    """A destination that hangs fails after a minute, and until then each run only waits."""
    async with running(tmp_path, receiver) as place:
        now = place.server.operations.store.clock.now()
        for outcome, detail in (
            (RunOutcome.FAILED, "bucket: it did not answer"),
            (RunOutcome.OK, f"bucket: {STILL_COPYING}"),
        ):
            run = Run(id="1", job="mirror", started_at=now, outcome=outcome, detail=detail)
            await place.server.alerts.report_run(run)
        states = [alert["state"] for alert in await place.alerts() if alert["type"] == "job_failed"]

    assert states == ["open"]


@pytest.mark.prove
async def test_the_alert_of_an_export_in_doubt_ends_once_it_is_accepted(
    receiver: Receiver, tmp_path: Path
) -> None:
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "same_disk": True}
    async with running(tmp_path / "data", receiver, exports__destinations=[nas]) as place:
        for number in range(3):
            await place.save(name=f"{number}.json")
        await place.run("export")
        for number in range(2):
            await place.server.data.delete(f"{number}.json")
        await asyncio.sleep(1.01)  # an export's name has its second
        await place.run("export")
        await until(lambda: received(receiver, "job_failed"))
        assert (alert := (await place.alerts())[0])["fix"] == (
            "If that is meant, run `seline destinations accept nas`. If not, `seline restore NAME` "
            "brings a deleted document back."
        )
        assert alert["summary"].endswith("and no such export is removed.")
        await asyncio.sleep(1.01)
        assert (await place.client.call("POST", "/destinations/nas/accept"))[0] == 200
        [over] = await until(lambda: received(receiver, "job_failed", state="resolved"))

    assert over["id"] == alert["id"]


async def test_the_usage_job_raises_each_level_and_clears_it(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BURST_S", 0.0)
    async with running(tmp_path, receiver) as place:
        for count, level in enumerate((UsageLevel.WARNING, UsageLevel.CRITICAL), 1):
            monkeypatch.setattr(usage, "next_level", always(level))
            await place.run("usage")
            await until(lambda count=count: len(received(receiver, "usage")) == count)
        monkeypatch.setattr(usage, "next_level", always(UsageLevel.OK))
        await place.run("usage")
        [over] = await until(lambda: received(receiver, "usage", state="resolved"))

    alerts = received(receiver, "usage")
    assert [alert["severity"] for alert in alerts] == ["WARNING", "CRITICAL"]
    assert [alert["details"]["level_percent"] for alert in alerts] == [
        round(LEVELS[UsageLevel.WARNING] * 100),
        round(LEVELS[UsageLevel.CRITICAL] * 100),
    ]
    assert over["id"] == alerts[0]["id"]


# dead sinks, and no server


async def test_health_shows_a_dead_sink_until_it_takes_alerts(tmp_path: Path) -> None:
    async with listening(at_once=False) as receiver, running(tmp_path, receiver) as place:

        async def check() -> dict[str, str]:
            checks = (await place.client.call("GET", "/health"))[1]["checks"]
            return next(check for check in checks if check["name"] == "alerts")

        assert (await check())["status"] == "ok"
        await place.recover()
        async with asyncio.timeout(LIMIT_S):
            while (dead := await check())["status"] == "ok":
                await asyncio.sleep(0.01)
        await receiver.start()
        status, _, _ = await place.client.call("POST", "/alerts/test")
        mended = await check()
        await until(lambda: received(receiver, "recovery"))

    assert dead["status"] == "warning"
    assert dead["detail"].startswith("hook does not take alerts: cannot connect")
    assert "1 alert waiting" in dead["detail"]
    assert "`seline alerts test`" in dead["fix"]
    assert (status, mended["status"]) == (200, "ok")


async def test_health_tells_that_only_the_log_receives_alerts(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        checks = (await place.client.call("GET", "/health"))[1]["checks"]

    [check] = [check for check in checks if check["name"] == "alerts"]
    assert (check["status"], check["detail"]) == ("info", "only the log receives alerts")


async def test_dead_sinks_delay_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        listening(at_once=False) as refusing,
        listening() as silent,
        listening() as closing,
        running(tmp_path, refusing, silent, closing) as place,
    ):
        silent.answer = for_ever(silent)
        closing.answer = hanging_up
        async with asyncio.timeout(LIMIT_S):
            await place.recover()
            await until(lambda: silent.requests and closing.requests)
            for number in range(20):
                await place.server.data.save_json(OTHER, {"n": number})
            assert await place.server.data.load_json(OTHER) == {"n": 19}
            assert (await place.client.call("GET", "/health"))[0] == 200
            assert [alert["type"] for alert in await place.alerts()].count("recovery") == 1
        started_s = time.monotonic()
        await place.server.close()
        took_s = time.monotonic() - started_s

    assert took_s < 3
    assert len(silent.requests) == 1


async def test_a_command_without_a_server_lists_alerts_and_raises_none(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running(tmp_path, receiver) as place:
        await place.recover()
        await until(lambda: received(receiver, "recovery"))
        await place.save(name=OTHER)
    flip(tmp_path / OTHER)
    settings = settings_for(tmp_path, alerts__sinks=[a_hook(receiver)], storage__settle_s=0)

    async with alone(settings) as command:
        assert await command.data.load_json(OTHER)
        listed = [found.document for found in command.alerts.log.listing()]

    assert NAME in listed
    assert OTHER not in (tmp_path / ".seline" / "alerts.json").read_text()
    assert received(receiver, "recovery", about=OTHER) == []


# the faults that the tests plant


async def no_room() -> str:
    raise VolumeFull("There is no room left.")


async def failing(_operations: Operations, **_: object) -> None:
    raise RuntimeError("a defect")


def always(level: UsageLevel) -> Callable[..., UsageLevel]:
    return lambda _before, _ratio: level


async def idle(_process: AlertProcess) -> None:
    return


def for_ever(receiver: Receiver) -> Answer:
    """Answer only after the test."""

    async def silent(_request: web.Request) -> web.StreamResponse:
        await receiver.over.wait()
        return web.Response()

    return silent


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()
