"""Test the jobs over HTTP and on the command line, with a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from seline.http.routes import PREFIX
from seline.server import Serving, serving
from seline_workers.table import JOBS
from tests.command_line import line_at, served
from tests.http_client import Client, settings_for


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(settings_for(tmp_path / "data")) as running, aiohttp.ClientSession() as http:
        await running.acquired()
        yield Client(http, running.address)


async def test_a_job_can_be_listed_started_and_followed(client: Client) -> None:
    _, listed, _ = await client.call("GET", "/jobs")
    assert [job["name"] for job in listed["jobs"]] == list(JOBS)
    assert all(
        set(job) == {"name", "schedule", "enabled", "next_run", "running", "last", "last_success"}
        for job in listed["jobs"]
    )
    status, started, headers = await client.call("POST", "/jobs/integrity/run")
    assert (status, started["job"]) == (202, "integrity")
    assert headers["Location"] == started["url"] == f"{PREFIX}/jobs/integrity/runs"
    async with asyncio.timeout(10):
        while True:
            _, answer, _ = await client.call("GET", "/jobs/integrity/runs")
            if answer["runs"][0]["ended_at"]:
                break
    run = answer["runs"][0]
    assert (run["id"], run["outcome"]) == (started["run"], "ok")
    assert set(run) == {"id", "started_at", "ended_at", "outcome", "detail"}


async def test_an_unknown_job_is_404(client: Client) -> None:
    for method, path in (("POST", "/jobs/nonsense/run"), ("GET", "/jobs/nonsense/runs")):
        status, body, _ = await client.call(method, path)
        assert (status, body["code"]) == (404, "job_not_found")


def test_the_jobs_command_works_with_and_without_a_server(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    with served(line):
        assert "every 5 min" in line("jobs").out
        ran = line("jobs", "run", "integrity")
        assert (ran.code, ran.out.startswith("integrity: ok")) == (0, True), ran.err
        assert line("jobs", "runs", "integrity", "--json").value()["runs"][0]["outcome"] == "ok"
        assert line("jobs", "run", "nonsense").code == 4
    assert line("jobs", "run", "usage").code == 0, "without a server the command runs the job"
    assert line("jobs", "--json").value()["jobs"][0]["last"]["outcome"] == "ok"
    assert line("jobs", "run").code == 2


async def test_a_server_stops_at_once_and_leaves_no_job_task(tmp_path: Path) -> None:
    running: Serving = await serving(settings_for(tmp_path / "data"))
    await running.acquired()
    async with asyncio.timeout(1):
        await running.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("seline-job")]
