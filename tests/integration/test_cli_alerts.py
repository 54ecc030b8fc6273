"""The verbs alerts and jobs, beside a server and alone: what a person sees, and what a script."""

from __future__ import annotations

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
from tests.integration.test_alarm import FIELDS, flip

NAME = "user_profile.json"
HOOK = "/hooks/path-secret"
LIMIT_S = 20.0
HEADS = ["SINK", "KIND", "HEARS FROM", "WAITING", "LAST"]


class Hook(ThreadingHTTPServer):
    """A receiver on a thread of its own: notes what it is sent, answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 200
        self.heard: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{HOOK}"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening() -> Iterator[Hook]:
    with Hook() as hook:
        threading.Thread(target=hook.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield hook
        finally:
            hook.shutdown()


def hearing(*urls: str) -> dict[str, str]:
    """Return the environment that has webhooks hear of alerts."""
    sinks = [
        {"kind": "webhook", "name": f"hook {number}", "url": url, "token": "token-secret"}
        for number, url in enumerate(urls, start=1)
    ]
    return {"SELINE_ALERTS__SINKS": json.dumps(sinks)}


@pytest.fixture
def dead() -> Iterator[str]:
    """Give an address where nobody listens, and nobody will."""
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
    """Give a command line beside a server that has recovered a document, and told so."""
    environ = {"SELINE_STORAGE__SETTLE_S": "0", **hearing(listener.url)}
    line = line_at(tmp_path_factory.mktemp("alerts"), **environ)
    with served(line):
        for number in range(2):
            line("save", NAME, stdin=json.dumps({"n": number, "text": "words " * 50}))
        flip(line.data / NAME)
        assert line("verify").code == 3
        until(lambda: "recovery" in [heard["type"] for heard in listener.heard])
        yield line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


def until(done: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    over_s = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < over_s, "it does not happen"
        time.sleep(0.02)


def rows(ran: Ran) -> list[list[str]]:
    """Return the cells of a table, which two spaces part at least."""
    return [
        [cell.strip() for cell in text.split("  ") if cell.strip()]
        for text in ran.out.splitlines()
        if not text.startswith("    ")
    ]


# beside a server


def test_alerts_are_shown_with_their_next_step_and_who_hears_of_them(beside: Line) -> None:
    shown = beside("alerts")

    [told] = [text for text in shown.out.splitlines() if " recovery " in text]
    assert (shown.code, told.split()[:3]) == (0, ["open", "warning", "recovery"])
    assert f"    {NAME} was broken and has been recovered." in shown.out
    assert "    Next: Look at what was set aside with `seline quarantine`" in shown.out
    table = rows(shown)
    assert [cells[:4] for cells in table[table.index(HEADS) + 1 :]] == [
        ["log", "log", "info", "0"],
        ["hook 1", "webhook", "info", "0"],
    ]
    assert "secret" not in shown.out + shown.err


def test_alerts_for_a_script_are_what_the_api_answers(beside: Line) -> None:
    listed = beside("alerts", "--json")

    [alert] = [one for one in listed.value()["alerts"] if one["type"] == "recovery"]
    assert listed.code == 0
    assert set(alert) == FIELDS
    assert (alert["document"], alert["state"], alert["count"]) == (NAME, "open", 1)
    assert [sink["name"] for sink in listed.value()["sinks"]] == ["log", "hook 1"]
    assert "secret" not in listed.out


def test_a_test_reaches_everyone(beside: Line, listener: Hook) -> None:
    tested = beside("alerts", "test")

    assert tested.code == 0
    assert rows(tested)[0] == ["SINK", "KIND", "TEST", "DETAIL"]
    assert [cells[:3] for cells in rows(tested)[1:]] == [
        ["log", "log", "delivered"],
        ["hook 1", "webhook", "delivered"],
    ]
    assert listener.heard[-1]["type"] == "test"
    assert "Only the log" not in tested.err


def test_a_test_that_somebody_did_not_get_is_a_failure(beside: Line, listener: Hook) -> None:
    listener.status = 503
    try:
        tested = beside("alerts", "test")
        for_a_script = beside("alerts", "test", "--json")
    finally:
        listener.status = 200

    assert (tested.code, for_a_script.code) == (1, 1)
    assert rows(tested)[2] == ["hook 1", "webhook", "failed", "it answered 503"]
    delivered = {one["sink"]: one["delivered"] for one in for_a_script.value()["deliveries"]}
    assert delivered == {"log": True, "hook 1": False}
    assert "secret" not in tested.out + tested.err + for_a_script.out


def test_who_may_only_read_tests_nobody(beside: Line) -> None:
    reader = beside("token", "create", "--scope", "read").out.strip()
    url = json.loads((beside.data / ".seline" / "server.json").read_text())["address"]
    elsewhere = {"SELINE_URL": url, "SELINE_TOKEN": reader, "SELINE_DATA_DIR": ""}

    assert beside("alerts", **elsewhere).code == 0
    assert beside("alerts", "test", **elsewhere).code == 8


# alone


def test_without_sinks_only_the_log_hears(line: Line) -> None:
    line.data.mkdir()

    shown, tested = line("alerts"), line("alerts", "test")

    assert (shown.code, tested.code) == (0, 0)
    assert "There are no alerts." in shown.err
    assert [cells[0] for cells in rows(shown)] == ["SINK", "log"]
    assert "Only the log hears of alerts. Set alerts.sinks" in tested.err


def test_a_test_alone_reaches_those_who_live(line: Line, hook: Hook, dead: str) -> None:
    line.data.mkdir()

    tested = line("alerts", "test", "--json", **hearing(hook.url, dead))

    deliveries = tested.value()["deliveries"]
    assert tested.code == 1
    assert [one["delivered"] for one in deliveries] == [True, True, False]
    assert deliveries[2]["detail"] == "cannot connect: Connection refused"
    assert [heard["type"] for heard in hook.heard] == ["test"]
    assert "secret" not in tested.out + tested.err


def test_a_command_alone_tells_nobody(line: Line, hook: Hook) -> None:
    """A person sees the answer; the chats hear of what happens while nobody looks."""
    (line.folder / "file").write_text("in the way of a folder")
    environ = hearing(hook.url)
    places = [{"name": "nas", "url": f"file://{line.folder}/file/exports"}]
    line("save", NAME, stdin="{}")

    failed = line(
        "jobs", "run", "export", **environ, SELINE_EXPORTS__DESTINATIONS=json.dumps(places)
    )

    assert failed.code == 1
    assert failed.out.startswith("export: failed.")
    assert line("alerts", "--json", **environ).value()["alerts"] == []


def test_an_action_that_is_none_is_wrong_usage(line: Line) -> None:
    assert line("alerts", "tset").code == 2
    assert line("alerts", "test", "more").code == 2


# jobs


def test_a_job_that_is_off_is_shown_so_and_runs_when_asked(line: Line) -> None:
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
