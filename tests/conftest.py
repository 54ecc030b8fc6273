"""Fixtures and hooks for all tests: strict mode, a fake clock, and the time limit of long rounds.

SELINE_PROVE_MINUTES limits the time for the tests marked `prove`; one such run is a slice.
"""

import logging
import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from seline import open_seline
from seline.library import Seline
from seline.server import Serving, serving
from tests.clocks import FakeClock
from tests.command_line import SETTLES_SOON
from tests.faults.forms import (
    EACH,
    FIRST,
    FORMS,
    PUBLISH_WITHIN_MS,
    SMALL_JOURNAL,
    synced_in_its_files,
)
from tests.http_client import settings_for
from tests.installing import installing

os.environ["SELINE_STRICT"] = "1"
os.environ.update(SETTLES_SOON | SMALL_JOURNAL)
for name in ("http_proxy", "https_proxy", "all_proxy"):  # a test's receiver is on this machine
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
settings.register_profile("seline", deadline=None)  # a slow machine is no failure
settings.load_profile("seline")
LOGGERS = ("seline", "seline.server")
PROVE_UNTIL = time.monotonic() + 60 * float(os.environ.pop("SELINE_PROVE_MINUTES", "") or math.inf)


def pytest_xdist_auto_num_workers() -> int:
    """Return how many tests run at once: many of them wait, for a process or for a timer."""
    cores = len(os.sched_getaffinity(0))
    return max(2 * cores, min(3 * cores, 6))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the tests of a slice, differently each day, so that each suite gets its turn.

    Those marked `prove(first=True)` are short, and in every slice.
    """
    _leave_variants_to_prove(items)
    if math.isfinite(PROVE_UNTIL):
        random.Random(f"{datetime.now(UTC):%Y-%m-%d}").shuffle(items)
        items.sort(key=lambda item: not _is_first(item))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long round if the time of this slice is over."""
    if item.get_closest_marker("prove") and time.monotonic() >= PROVE_UNTIL:
        pytest.skip("left out of this slice; `make prove` runs all of them")


@pytest.fixture
def share_s(request: pytest.FixtureRequest) -> float:
    """Return the seconds that this long round may take: its share of the slice's remaining time.

    Rounds have equal shares; one marked `prove(share=20)` has twenty. A round that needs less
    leaves the rest to the later ones. Without a slice the time is unlimited (`inf`).
    """
    items = request.session.items
    remaining = items[items.index(request.node) :]
    left_s = max(0.0, PROVE_UNTIL - time.monotonic())
    return left_s * _share_of(request.node) / sum(map(_share_of, remaining))


def _leave_variants_to_prove(items: list[pytest.Item]) -> None:
    """Mark all but one in n variants of the tests with `one_in(n)` as long tests."""
    seen = Counter[str]()
    for item in items:
        mark = item.get_closest_marker("one_in")
        if mark is not None and item.get_closest_marker("prove") is None:
            name = item.nodeid.partition("[")[0]
            if seen[name] % mark.args[0]:
                item.add_marker("prove")
            seen[name] += 1


def _is_first(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("prove")
    return mark is not None and bool(mark.kwargs.get("first"))


def _share_of(item: pytest.Item) -> float:
    mark = item.get_closest_marker("prove")
    return 0.0 if mark is None else float(mark.kwargs.get("share", 1))


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Restore the levels of the loggers, which a command sets for its whole process."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    yield
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that is stopped at 2025-01-06 14:30:22 UTC."""
    return FakeClock()


@pytest.fixture(params=EACH)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every store of the test use one form of the commit; return its name.

    A test that asks for `first_form`, in a module that runs over several, has that one.
    """
    name = FIRST if "first_form" in request.fixturenames else str(request.param)
    FORMS[name](monkeypatch)
    return name


@pytest.fixture
def first_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every store of the test sync each change in its files."""
    synced_in_its_files(monkeypatch)


@pytest.fixture
def files_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every store of the test write a file before the change is answered."""
    monkeypatch.setenv(PUBLISH_WITHIN_MS, "0")


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    """Yield an open Seline on an empty directory."""
    async with open_seline(tmp_path / "data", lock_wait_s=0) as opened:
        yield opened


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    """Serve the admin API in this process."""
    async with serving(settings_for(tmp_path / "data")) as running:
        await running.acquired()
        yield running


@pytest.fixture(scope="session")
def installed() -> None:
    """Install the program age, as root on Debian, unless it is there."""
    with installing():
        if shutil.which("age") is None:
            command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "age"]
            subprocess.run(command, check=True, capture_output=True, timeout=100)
