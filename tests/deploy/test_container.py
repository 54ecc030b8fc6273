"""Test the container's entrypoint, as root where possible, and the contents of the image."""

import ast
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from seline.server import container
from seline.server.container import USER_ID, User, data_dir, hand_over, must_hand_over
from seline.settings import Storage, load_settings

ROOT = Path(__file__).parents[2]
ROOT_USER, SELINE_USER, OTHER_USER = ((0, 0), (USER_ID, USER_ID), (1000, 1000))
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="changing the owner of a mount needs root"
)


@pytest.mark.parametrize(
    ("process", "owner", "expected"),
    [
        (ROOT_USER, ROOT_USER, True),
        (ROOT_USER, OTHER_USER, True),
        (ROOT_USER, SELINE_USER, False),
        (OTHER_USER, ROOT_USER, False),
    ],
)
def test_only_root_hands_a_mount_over_and_only_a_foreign_one(
    process: User, owner: User, expected: bool
) -> None:
    assert must_hand_over(process, owner, SELINE_USER) is expected


def test_the_data_directory_comes_from_the_environment() -> None:
    assert data_dir({"SELINE_STORAGE__DATA_DIR": "/e"}) == "/e"
    assert data_dir({"SELINE_BACKUPS__KEEP_NEWEST": "none"}) is None
    assert data_dir({"RAILWAY_VOLUME_MOUNT_PATH": "/app/server/data"}) == "/app/server/data"
    assert data_dir({"SELINE_DATA_DIR": "/d", "RAILWAY_VOLUME_MOUNT_PATH": "/x"}) == "/d"


def test_the_directory_that_is_handed_over_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`~` is resolved by root before, and by Seline's user after."""
    handed: list[str] = []
    used: list[str | None] = []

    def execute(*_: object) -> None:
        used.append(data_dir(os.environ))
        raise SystemExit(0)

    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(container, "become", lambda _target: None)
    monkeypatch.setattr(container, "hand_over", lambda path, _target: handed.append(path))
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("SELINE_DATA_DIR", "~")
    with pytest.raises(SystemExit):
        container.start([], SELINE_USER)

    assert handed == used == ["/tmp"]


@needs_root
def test_only_the_top_directory_changes_its_owner(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    (mount / "lost+found").mkdir(parents=True)
    assert hand_over(str(mount), SELINE_USER)
    assert (mount.stat().st_uid, (mount / "lost+found").stat().st_uid) == (USER_ID, 0)
    assert not hand_over(str(mount), SELINE_USER)


@needs_root
def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        hand_over(str(tmp_path / "link"), SELINE_USER)
    assert (tmp_path / "real").stat().st_uid == 0


@needs_root
def test_the_server_runs_unprivileged_on_a_mount_owned_by_root(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    mount = tmp_path / "mount"
    mount.mkdir(mode=0o755)
    if not _seline_user_can_run_this_python():
        pytest.skip("only root can run this Python")
    command = [sys.executable, "-m", "seline.server.container", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": _pythonpath(), "SELINE_DATA_DIR": str(mount),
            "SELINE_ADMIN_TOKEN": "a-token-that-is-long-enough",
        },
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = None
        while ready is None:
            line = process.stdout.readline()
            assert line, "the server ended before it was ready"
            ready = re.search(r"ready on (http://[0-9.:]+)", line)
        with urllib.request.urlopen(f"{ready[1]}/livez", timeout=5) as response:
            assert json.load(response) == {"status": "ok"}
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{USER_ID}\s+{USER_ID}\s+{USER_ID}", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert (mount / "backups").stat().st_uid == USER_ID
    finally:
        started = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - started < 5


def _seline_user_can_run_this_python() -> bool:
    try:
        process = subprocess.run(
            [sys.executable, "-c", "import seline, seline_workers, aiohttp"],
            user=USER_ID, group=USER_ID, extra_groups=[], cwd="/", check=False,
            env={"PYTHONPATH": _pythonpath()}, capture_output=True,
        )  # fmt: skip
    except PermissionError:
        return False
    return process.returncode == 0


def _pythonpath() -> str:
    return os.pathsep.join((str(ROOT), str(ROOT / "workers")))


def test_the_dockerfile_follows_the_rules_of_the_platform() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    instructions = re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)
    keywords = [keyword for keyword, _ in instructions]
    assert "VOLUME" not in keywords, "Railway does not build an image with VOLUME"
    for keyword, rest in instructions:
        if keyword in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), f"{keyword} must be in exec form"
        if keyword == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
        if keyword == "FROM":
            assert re.match(r"python:3\.\d+-slim\b", rest), "the base image has a Python version"
    assert "--require-hashes" in text
    assert "/livez" in text


def test_the_build_context_holds_only_what_the_dockerfile_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    copied = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert {source for line in copied for source in line.split()} == allowed


def test_the_health_check_waits_longer_than_the_lock_wait() -> None:
    text = (ROOT / ".railway" / "railway.py").read_text(encoding="utf-8")
    names: dict[str, int] = {
        name: int(value) for name, value in re.findall(r"^([A-Z_]+) = (\d+)$", text, re.MULTILINE)
    }
    assert names["LOCK_WAIT_S"] == Storage().lock_wait_s
    assert "healthcheckTimeout=LOCK_WAIT_S + 60" in text
    assert '"drainingSeconds": DRAINING_S' in text


def test_the_service_on_railway_refers_to_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that are wired are enough for a destination without a setting."""
    text = (ROOT / ".railway" / "railway.py").read_text(encoding="utf-8")
    [names] = re.findall(r"^BUCKET_VARIABLES = (.*)$", text, re.MULTILINE)
    wired = {name: f"https://{name.lower()}.example" for name in ast.literal_eval(names)}

    settings = load_settings(environ={"RAILWAY_ENVIRONMENT": "production", **wired}, arguments={})

    assert "copies.env[name] for name in BUCKET_VARIABLES" in text
    assert settings.warnings == ()
    assert [given.name for given in settings.exports.destinations] == ["bucket"]
