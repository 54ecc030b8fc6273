"""The verbs alerts and jobs, with a server and without: for a person and for a script."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Line, Ran, line_at, served
from tests.integration.test_alert_process import FIELDS, flip

NAME = "user_profile.json"
HOOK = "/hooks/path-secret"
LIMIT_S = 20.0
HEADS = ["SINK", "KIND", "FROM SEVERITY", "WAITING", "LAST"]


class Hook(ThreadingHTTPServer):
    """A receiver on a thread of its own: keeps each body, answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 200
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{HOOK}"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def listening() -> Iterator[Hook]:
    with Hook() as hook:
        threading.Thread(target=hook.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield hook
        finally:
            hook.shutdown()


def webhooks(*urls: str) -> dict[str, str]:
    """Return the environment that sends alerts to these URLs."""
    sinks = [
        {"kind": "webhook", "name": f"hook {number}", "url": url, "token": "token-secret"}
        for number, url in enumerate(urls, start=1)
    ]
    return {"SELINE_ALERTS__SINKS": json.dumps(sinks)}


@pytest.fixture
def dead() -> Iterator[str]:
    """Give an address where no server listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}{HOOK}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as hook:
        yield hook


@pytest.fixture(scope="module")
def listener() -> Iterator[Hook]:
    with listening() as hook:
        yield hook


@pytest.fixture(scope="module")
def beside(listener: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Give a command line on a served directory after a recovery and its alert."""
    environ = {"SELINE_STORAGE__SETTLE_S": "0", **webhooks(listener.url)}
    line = line_at(tmp_path_factory.mktemp("alerts"), **environ)
    with served(line):
        for number in range(2):
            line("save", NAME, stdin=json.dumps({"n": number, "text": "words " * 50}))
        line("documents")  # a listing has the file written
        flip(line.data / NAME)
        assert line("verify").code == 3
        until(lambda: "recovery" in [body["type"] for body in listener.received])
        yield line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


def until(done: Callable[[], bool]) -> None:
    """Wait until another process has done something."""
    over_s = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < over_s, "it did not happen"
        time.sleep(0.02)


def rows(ran: Ran) -> list[list[str]]:
    """Return the cells of a table; at least two spaces separate them."""
    return [
        [cell.strip() for cell in text.split("  ") if cell.strip()]
        for text in ran.out.splitlines()
        if not text.startswith("    ")
    ]


# with a server


@pytest.mark.prove
def test_alerts_are_listed_with_their_next_step_and_their_sinks(beside: Line) -> None:
    shown = beside("alerts")

    [row] = [text for text in shown.out.splitlines() if " recovery " in text]
    assert (shown.code, row.split()[:3]) == (0, ["open", "warning", "recovery"])
    assert f"    {NAME} was broken and has been recovered." in shown.out
    assert "    Next: Look at what was set aside with `seline quarantine`" in shown.out
    table = rows(shown)
    assert [cells[:4] for cells in table[table.index(HEADS) + 1 :]] == [
        ["log", "log", "info", "0"],
        ["hook 1", "webhook", "info", "0"],
    ]
    assert "secret" not in shown.out + shown.err


def test_alerts_as_json_are_the_objects_of_the_api(beside: Line) -> None:
    listed = beside("alerts", "--json")

    [alert] = [alert for alert in listed.value()["alerts"] if alert["type"] == "recovery"]
    assert listed.code == 0
    assert set(alert) == FIELDS
    assert (alert["document"], alert["state"], alert["count"]) == (NAME, "open", 1)
    assert [sink["name"] for sink in listed.value()["sinks"]] == ["log", "hook 1"]
    assert "secret" not in listed.out


def test_a_test_alert_reaches_every_sink(beside: Line, listener: Hook) -> None:
    tested = beside("alerts", "test")

    assert tested.code == 0
    assert rows(tested)[0] == ["SINK", "KIND", "TEST", "DETAIL"]
    assert [cells[:3] for cells in rows(tested)[1:]] == [
        ["log", "log", "delivered"],
        ["hook 1", "webhook", "delivered"],
    ]
    assert listener.received[-1]["type"] == "test"
    assert "Only the log" not in tested.err


def test_a_test_alert_that_a_sink_does_not_receive_is_a_failure(
    beside: Line, listener: Hook
) -> None:
    listener.status = 503
    try:
        tested = beside("alerts", "test")
        for_a_script = beside("alerts", "test", "--json")
    finally:
        listener.status = 200

    assert (tested.code, for_a_script.code) == (1, 1)
    assert rows(tested)[2] == ["hook 1", "webhook", "failed", "it answered 503"]
    delivered = {sink["sink"]: sink["delivered"] for sink in for_a_script.value()["deliveries"]}
    assert delivered == {"log": True, "hook 1": False}
    assert "secret" not in tested.out + tested.err + for_a_script.out


def test_a_read_token_cannot_send_a_test_alert(beside: Line) -> None:
    reader = beside("token", "create", "--scope", "read").out.strip()
    url = json.loads((beside.data / ".seline" / "server.json").read_text())["address"]
    elsewhere = {"SELINE_URL": url, "SELINE_TOKEN": reader, "SELINE_DATA_DIR": ""}

    assert beside("alerts", **elsewhere).code == 0
    assert beside("alerts", "test", **elsewhere).code == 8


# without a server


def test_without_sinks_only_the_log_receives_alerts(line: Line) -> None:
    line.data.mkdir()

    shown, tested = line("alerts"), line("alerts", "test")

    assert (shown.code, tested.code) == (0, 0)
    assert "There are no alerts." in shown.err
    assert [cells[0] for cells in rows(shown)] == ["SINK", "log"]
    assert "Only the log receives alerts. Set alerts.sinks" in tested.err


def test_a_test_alert_without_a_server_reports_each_sink(line: Line, hook: Hook, dead: str) -> None:
    line.data.mkdir()

    tested = line("alerts", "test", "--json", **webhooks(hook.url, dead))

    deliveries = tested.value()["deliveries"]
    assert tested.code == 1
    assert [sink["delivered"] for sink in deliveries] == [True, True, False]
    assert deliveries[2]["detail"] == "cannot connect: Connection refused"
    assert [body["type"] for body in hook.received] == ["test"]
    assert "secret" not in tested.out + tested.err


def test_a_command_without_a_server_sends_no_alert(line: Line, hook: Hook) -> None:
    """The person who ran it sees the error."""
    (line.folder / "file").write_text("in the way of a folder")
    environ = webhooks(hook.url)
    places = [{"name": "nas", "url": f"file://{line.folder}/file/exports"}]
    line("save", NAME, stdin="{}")

    failed = line(
        "jobs", "run", "export", **environ, SELINE_EXPORTS__DESTINATIONS=json.dumps(places)
    )

    assert failed.code == 1
    assert failed.out.startswith("export: failed.")
    assert line("alerts", "--json", **environ).value()["alerts"] == []


def test_an_unknown_action_is_a_usage_error(line: Line) -> None:
    assert line("alerts", "tset").code == 2
    assert line("alerts", "test", "more").code == 2


# jobs


def test_a_disabled_job_is_listed_as_off_and_can_be_run(line: Line) -> None:
    line.data.mkdir()
    off = {"SELINE_JOBS__ROTATION__ENABLED": "false"}

    shown = line("jobs", **off)
    before = line("jobs", "runs", "rotation", **off)
    ran = line("jobs", "run", "rotation", "--json", **off)
    after = line("jobs", "runs", "rotation", **off)

    assert [cells[:2] for cells in rows(shown)][1:3] == [
        ["integrity", "every 1 h"],
        ["rotation", "off"],
    ]
    assert (before.code, before.out) == (0, "")
    assert "It has not run yet." in before.err
    assert (ran.code, ran.value()["outcome"]) == (0, "ok")
    assert [cells[1:2] for cells in rows(after)] == [["OUTCOME"], ["ok"]]
