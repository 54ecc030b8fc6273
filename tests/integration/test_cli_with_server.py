"""The verbs on a directory that another process holds, at a URL, and where neither answers."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import Line, Served, line_at, served

NAME = "user_profile.json"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_at(tmp_path_factory.mktemp("beside"))


@pytest.fixture(scope="module")
def server(line: Line) -> Iterator[Served]:
    with served(line) as running:
        yield running


@contextmanager
def held(data: Path, **fields: object) -> Iterator[None]:
    """Hold a data directory's lock, with these fields in server.json."""
    (data / ".seline").mkdir(parents=True, exist_ok=True)
    holder = {"pid": 7, "host": socket.gethostname(), "since": "2025-01-06T14:30:22Z", **fields}
    (data / ".seline" / "server.json").write_text(json.dumps(holder), encoding="utf-8")
    descriptor = os.open(data, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


BOTS = {
    "open_seline": """
import asyncio, sys
from seline import open_seline
async def main():
    async with open_seline() as seline:
        await seline.data.save_json("user_profile.json", {"n": 1})
        await seline.data.save_json("user_profile.json", {"n": 2})
        print("aiohttp" in sys.modules, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
""",
    "blocking": """
import sys
from seline.blocking import open_seline
with open_seline() as seline:
    seline.data.save_json("user_profile.json", {"n": 1})
    seline.data.save_json("user_profile.json", {"n": 2})
    print("aiohttp" in sys.modules, flush=True)
    sys.stdin.readline()
""",
    "get_data_manager": """
import sys
from seline.blocking import get_data_manager
data = get_data_manager()
data.save_json("user_profile.json", {"n": 1})
data.save_json("user_profile.json", {"n": 2})
print("aiohttp" in sys.modules, flush=True)
sys.stdin.readline()
""",
}
"""Bots that open the volume and serve no API, by the way in which they do."""


@contextmanager
def bot(line: Line, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run a bot on the directory during the block; it must end by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=line.folder, env=dict(line.environ),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "False\n"  # no web library before a command connects
        yield process
        if process.poll() is None:
            process.communicate("\n", timeout=5)
            assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.prove
@pytest.mark.parametrize("way", BOTS)
def test_verbs_work_beside_a_bot_that_serves_no_api(tmp_path: Path, way: str) -> None:
    line = line_at(tmp_path)
    with bot(line, BOTS[way]) as running:
        assert f"held by process {running.pid}" in line("status").out
        assert (line.data / ".seline" / "control.sock").stat().st_mode & 0o777 == 0o600
        assert line("load", NAME).value() == {"n": 2}
        assert NAME in line("documents").out
        assert "newest 5" in line("backups", NAME).out
        assert line("export").value()["data"]["files"] == {NAME: {"n": 2}}
        assert line("verify").code == 0
        restored = line("restore", NAME, "--yes")
        assert restored.code == 0, restored.err
        assert line("load", NAME).value() == {"n": 1}
    assert not (line.data / ".seline" / "control.sock").exists()
    assert line("load", NAME).value() == {"n": 1}


@pytest.mark.prove
def test_where_no_jobs_run_and_no_alerts_are_sent_every_verb_says_it(tmp_path: Path) -> None:
    sinks = json.dumps([{"kind": "webhook", "url": "http://127.0.0.1:9/hook"}])
    line = line_at(tmp_path, SELINE_ALERTS__SINKS=sinks)
    said = "no job runs by itself and no alert is sent"

    def checks() -> dict[str, str]:
        found = line("status", "--json").value()["checks"]
        return {check["name"]: check["status"] for check in found}

    with bot(line, BOTS["open_seline"]):
        assert f"WARN  jobs: {said}" in line("status").out
        for verb in (("jobs",), ("alerts",), ("alerts", "test")):
            assert said in line(*verb).err
        assert line("alerts", "--json").value()["sending"] is False
        beside_a_bot = checks()
    alone = checks()
    nothing_serves = f"no process serves these documents now, so {said}"
    for verb in ("status", "jobs", "alerts"):
        shown = line(verb)
        assert nothing_serves in shown.out + shown.err
    with served(line):
        beside_a_server = checks()
        assert said not in line("jobs").err + line("alerts").err

    assert "alerts" in beside_a_server
    assert "jobs" not in beside_a_server
    assert "alerts" not in {*beside_a_bot, *alone}


@pytest.mark.prove
def test_a_program_beside_a_server_names_the_holder_and_the_next_step(tmp_path: Path) -> None:
    """As the example of README.md while `make run` still serves the same directory."""
    line = line_at(tmp_path)
    with served(line) as server:
        ran = subprocess.run(
            [sys.executable, "-c", BOTS["blocking"]],
            cwd=line.folder, env=dict(line.environ), capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert f"is held by process {server.pid}" in ran.stderr
    assert "Next: Stop that process (Ctrl-C where it runs)" in ran.stderr


@pytest.mark.prove
def test_a_child_forked_by_a_killed_bot_takes_no_commands(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    fork = "import os, time; os.fork() or time.sleep(60)"
    forking = BOTS["get_data_manager"].replace("print(", f"{fork}\nprint(")
    with bot(line, forking) as running:
        line("status")
        child = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0]
        running.kill()
        running.wait()
        try:
            assert line("load", NAME).value() == {"n": 2}
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_the_first_start_prints_a_ready_curl_line_once(line: Line, server: Served) -> None:
    curl = next(text for text in server.greeting.splitlines() if "curl -H" in text)
    address = curl.split()[-1]
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {server.token}"})

    with urllib.request.urlopen(request) as answer:
        health = json.loads(answer.read())

    assert health["status"] in ("healthy", "warning")
    assert server.greeting.count(server.token) == 1


@pytest.mark.prove
def test_a_later_start_prints_no_token_but_how_to_make_one(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    line("token", "create")

    with served(line) as running:
        assert running.token == ""
        assert "seline token create" in running.greeting


def test_verbs_on_a_served_directory_use_the_server(line: Line, server: Served) -> None:
    assert line("save", NAME, stdin='{"userName": "Alex"}').code == 0
    assert line("load", NAME).value() == {"userName": "Alex"}
    assert f"held by process {server.pid}" in line("status").out
    assert line("verify").code == 0
    assert line("prune", "--yes").code == 0
    assert line("export").value()["data"]["files"][NAME] == {"userName": "Alex"}
    assert line("import", "-", "--yes", stdin='{"files": {"b.json": [1]}}').code == 0
    assert line("load", "b.json").value() == [1]


def test_a_server_at_a_url_needs_a_token_of_the_right_scope(line: Line, server: Served) -> None:
    elsewhere = ("--url", server.url)
    line("save", NAME, stdin='{"userName": "Alex"}')
    reader = line("token", "create", "--scope", "read").out.strip()

    none = line("load", NAME, *elsewhere)
    wrong = line("load", NAME, *elsewhere, SELINE_TOKEN="sel_wrong")
    assert (none.code, wrong.code) == (8, 8)
    assert "Next: Send a valid token" in none.err
    assert "SELINE_TOKEN" in wrong.err
    assert "Bearer" not in none.err + wrong.err
    assert line("load", NAME, *elsewhere, SELINE_TOKEN=reader).code == 0
    assert line("save", NAME, *elsewhere, stdin="{}", SELINE_TOKEN=reader).code == 8
    assert line("save", NAME, *elsewhere, stdin="{}", SELINE_TOKEN=server.token).code == 0
    environ = {"SELINE_URL": server.url, "SELINE_TOKEN": server.token, "SELINE_DATA_DIR": ""}
    assert line("documents", "--json", **environ).code == 0
    assert server.token not in line("documents", "--json", **environ).err


def test_tokens_are_managed_only_on_the_servers_machine(line: Line, server: Served) -> None:
    refused = line("token", "list", "--url", server.url, SELINE_TOKEN=server.token)

    assert refused.code == 1
    assert "control socket" in refused.err


def test_a_flip_beside_a_server_loses_nothing(line: Line, server: Served) -> None:
    value = {"userName": "Alex", "location": "Lyon"}
    line("save", NAME, stdin=json.dumps(value))
    line("documents")  # a listing has the file written
    before = (line.data / NAME).read_bytes()

    flipped = line("demo", "--flip", NAME)

    assert flipped.code == 0
    assert (line.data / NAME).read_bytes() != before
    assert line("load", NAME).value() == value
    assert (line.data / NAME).read_bytes() == before
    recovered = [
        check
        for check in line("status", "--json").value()["checks"]
        if check["name"] == "recovered"
    ]
    assert "nothing is lost" in recovered[0]["detail"]


def test_an_address_without_a_server_is_a_failure(line: Line) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        refused = line("status", "--url", url)

    assert refused.code == 1
    assert f"Nothing answers at {url}" in refused.err


def test_a_port_in_use_is_a_settings_error(line: Line, server: Served, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]

    refused = line("serve", "--host", "127.0.0.1", "--port", port, "--data-dir", str(tmp_path))

    assert refused.code == 2
    assert "Cannot listen" in refused.err
    assert "Traceback" not in refused.err


def test_an_unknown_host_is_a_settings_error(line: Line, tmp_path: Path) -> None:
    refused = line("serve", "--host", "no-host.invalid", "--data-dir", str(tmp_path))

    assert refused.code == 2
    assert "Cannot listen on no-host.invalid" in refused.err
    assert "Unknown error" not in refused.err
    assert "Give an address of this machine with --host" in refused.err


def test_the_error_for_a_holder_in_another_container_names_it(tmp_path: Path) -> None:
    line = line_at(tmp_path)

    with held(line.data, host="another-container", deployment="d-42"):
        refused = line("documents")

    assert refused.code == 7
    assert "process 7 on another-container" in refused.err
    assert "another container" in refused.err


@pytest.mark.prove
def test_the_error_for_a_holder_that_serves_no_commands_names_it(tmp_path: Path) -> None:
    line = line_at(tmp_path)

    with held(line.data):
        refused = line("documents")

    assert refused.code == 7
    assert "is held by process 7" in refused.err
    assert "no socket for commands" in refused.err
    assert "Stop the other" not in refused.err


def test_a_holder_without_a_socket_is_called_at_its_address(line: Line, server: Served) -> None:
    control = line.data / ".seline" / "control.sock"
    aside = control.with_name("aside.sock")
    control.rename(aside)
    try:
        unknown = line("documents")
        known = line("documents", SELINE_TOKEN=server.token)
    finally:
        aside.rename(control)

    assert unknown.code == 7
    assert "asks for a token" in unknown.err
    assert known.code == 0


def test_a_volume_that_is_not_mounted_is_not_written(tmp_path: Path) -> None:
    line = line_at(tmp_path)

    refused = line("save", NAME, stdin="{}", SELINE_STORAGE__REQUIRE_MOUNT="true")

    assert refused.code == 7
    assert not (line.data / NAME).exists()


def test_commands_that_start_together_all_succeed(tmp_path: Path) -> None:
    """Each command that holds the directory serves the other ones."""
    line = line_at(tmp_path)
    names = [f"n{number}.json" for number in range(6)]

    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(lambda name: line("save", name, stdin="{}"), names))

    assert [ran.code for ran in saved] == [0] * 6, [ran.err for ran in saved]
    assert not any("Stop the other" in ran.err for ran in saved)
    listed = line("documents", "--json").value()["documents"]
    assert [document["name"] for document in listed] == names


@pytest.mark.prove
def test_a_killed_server_blocks_no_later_command(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    line("save", NAME, stdin='{"a": 1}')
    line("save", NAME, stdin='{"a": 2}')
    holder = line.start("serve", "--port", "0", "--host", "127.0.0.1", stdout=subprocess.PIPE)
    assert holder.stdout is not None
    while b"Next:" not in holder.stdout.readline():
        pass

    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()

    assert line("load", NAME).value() == {"a": 2}


@pytest.mark.prove
def test_a_server_stops_on_sigint_with_exit_code_0(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    process = line.start("serve", "--port", "0", "--host", "127.0.0.1", stdout=subprocess.PIPE)
    assert process.stdout is not None
    while b"Next:" not in process.stdout.readline():
        pass

    process.send_signal(signal.SIGINT)
    process.stdout.read()

    assert process.wait(timeout=20) == 0
    process.stdout.close()


@pytest.mark.prove
def test_an_interrupted_command_exits_130(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    line.data.mkdir()
    with held(line.data):
        waiting = line.start("documents", stderr=subprocess.PIPE)
        assert waiting.stderr is not None
        assert b"waiting" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        printed = waiting.stderr.read()
        waiting.stderr.close()

    assert waiting.wait(timeout=20) == 130
    assert b"Interrupted." in printed
    assert b"Traceback" not in printed


@pytest.mark.prove
@pytest.mark.parametrize("verb", [("import", "--yes"), ("save", NAME)], ids=lambda verb: verb[0])
def test_a_file_is_sent_without_being_read_into_memory(
    line: Line, server: Served, verb: tuple[str, ...]
) -> None:
    with (line.folder / "large.json").open("wb") as large:
        large.write(b"x")
        large.truncate(128 << 20)

    peaks_kib = {}
    for name in ("small.json", "large.json"):
        (line.folder / "small.json").write_bytes(b"x")
        process = line.start(*verb, name, stderr=subprocess.PIPE)
        assert process.stderr is not None
        message = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 5, message
        peaks_kib[name] = usage.ru_maxrss

    assert peaks_kib["large.json"] - peaks_kib["small.json"] < 16 << 10


def test_a_second_server_on_a_directory_names_the_first_one(line: Line, server: Served) -> None:
    port = server.url.rpartition(":")[2]

    refused = line("serve", "--host", "127.0.0.1", "--port", port)

    assert refused.code == 7
    assert f"held by process {server.pid}" in refused.err
    assert f"It listens on {server.url}" in refused.err
