"""Test metrics and logs of a real server: the names that dashboards use, and no secret."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from seline.server import Serving, serving
from tests.command_line import line_at
from tests.http_client import ADMIN, Client, settings_for

CONFIG = Path(__file__).parents[2] / "config"
NAME = "user_profile.json"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(settings_for(tmp_path / "data")) as running:
        await running.acquired()
        yield running


async def scraped(server: Serving, token: str | None = ADMIN) -> tuple[int, dict[str, float]]:
    """Return the status of `GET /metrics` and the samples by name and labels."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{server.address}/metrics") as response,
    ):
        text = await response.text()
    if response.status != 200:
        return response.status, {}
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return response.status, values


async def test_saves_requests_and_checks_are_counted(server: Serving) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.address)
        for number in range(3):
            await client.call("PUT", f"/documents/{NAME}", {"n": number})
        await client.call("GET", "/documents/none.json")
        await client.call("POST", "/verify")
    status, values = await scraped(server)
    assert status == 200
    assert values["seline_saves_total"] >= 3
    assert values["seline_save_seconds_count"] == values["seline_saves_total"]
    assert values["seline_save_seconds_bucket{le=+Inf}"] == values["seline_saves_total"]
    assert values["seline_flushes_total"] > 0
    assert values["seline_backups"] == 2
    assert 0 < values["seline_usage_ratio"] < 1
    assert 0 <= values["seline_inodes_ratio"] < 1
    assert values["seline_last_verified_timestamp_seconds"] > 1.7e9
    assert values["seline_writing"] == 1
    route = "/api/v1/data-admin/documents/{name}"
    assert values[f"seline_http_requests_total{{method=PUT,route={route},status=201}}"] == 1
    assert values[f"seline_http_requests_total{{method=GET,route={route},status=404}}"] == 1


async def test_metrics_require_a_token_unless_metrics_open_is_set(
    server: Serving, tmp_path: Path
) -> None:
    assert (await scraped(server, token=None))[0] == 401
    async with serving(settings_for(tmp_path / "open", server__metrics_open=True)) as running:
        await running.acquired()
        assert (await scraped(running, token=None))[0] == 200


async def test_every_metric_in_the_dashboard_and_the_alert_rules_exists(server: Serving) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.address)
        await client.call("PUT", f"/documents/{NAME}", {"n": 1})
        await client.call("PUT", f"/documents/{NAME}", {"n": 2})
        await client.call("POST", "/verify")
    _, values = await scraped(server)
    known = {name.partition("{")[0] for name in values} | {
        "seline_days_until_full",
        "seline_last_export_timestamp_seconds",
        "seline_job_last_success_timestamp_seconds",
        "seline_refusals_total",
    }
    used = set()
    for file in ("grafana-dashboard.json", "prometheus-alerts.yml"):
        used |= set(re.findall(r"seline_[a-z_]+", (CONFIG / file).read_text()))
    assert used
    assert used <= known
    json.loads((CONFIG / "grafana-dashboard.json").read_text())


def test_each_log_line_is_json_with_a_request_id_and_no_secret(tmp_path: Path) -> None:
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN, SELINE_LOG__FORMAT="json")
    assert line("save", NAME, stdin='{"secret": "of the user"}').code == 0
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        process = line.start("serve", "--host", "127.0.0.1", "--port", "0", stdout=stdout)
    try:
        import time
        import urllib.request

        for _ in range(200):
            ready = re.search(r"ready on (http://[0-9.:]+)", out.read_text())
            if ready:
                break
            time.sleep(0.05)
        assert ready
        request = urllib.request.Request(
            f"{ready[1]}/api/v1/data-admin/documents/{NAME}",
            headers={"Authorization": f"Bearer {ADMIN}", "X-Request-Id": "id-of-the-test"},
            method="DELETE",
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            assert response.headers["X-Request-Id"] == "id-of-the-test"
    finally:
        process.terminate()
        process.wait(10)
    records = [json.loads(text) for text in out.read_text().splitlines()]
    assert all({"message", "level", "timestamp"} <= set(record) for record in records)
    [logged] = [record for record in records if record.get("request_id") == "id-of-the-test"]
    assert logged["route"] == "/api/v1/data-admin/documents/{name}"
    assert ADMIN not in out.read_text()
    assert "of the user" not in out.read_text()
