"""The usage on Home: a chart of its figures for scripts, and a table of the same for all."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from seline.manager import DataManager
from seline.operations import Operations
from seline.page.history import history_of
from seline.page.texts import Texts
from seline.server import serving
from tests.browser import Browser, jar
from tests.http_client import settings_for
from tests.integration.test_operations import SettableClock
from tests.page.test_static import FIRST_LOAD_BYTES_MAX
from tests.stores import open_managed

STEPS, STEP = 9, timedelta(hours=3)
LIMIT_MB = 10


@pytest.fixture
async def filling(tmp_path: Path) -> Path:
    """Return a data directory that an earlier process has filled for 27 hours."""
    clock = SettableClock()
    clock.instant -= STEPS * STEP
    store = open_managed(tmp_path / "data", clock, storage__volume_limit_mb=LIMIT_MB)
    operations, data = Operations(store), DataManager(store)
    for number in range(STEPS):
        await data.save_json(f"d{number}.json", "x" * (300 << 10))
        clock.instant += STEP
        await operations.usage.measure()
    await store.close()
    return tmp_path / "data"


async def test_home_shows_how_the_volume_filled_and_when_it_is_full(filling: Path) -> None:
    settings = settings_for(filling, storage__volume_limit_mb=LIMIT_MB)
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        browser = Browser(session, server.address)
        await browser.sign_in()
        report = await server.operations.usage.measure()
        page = await browser.get("/")
        sizes = [len(page.html.encode())]
        for path in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.html)):
            async with session.get(server.address + path) as response:
                assert response.status == 200, path
                sizes.append(int(response.headers["Content-Length"]))

    assert report.forecast is not None
    full_on = datetime.now(UTC) + timedelta(days=report.forecast.days)
    assert f"full in {report.forecast.days:.1f} days, about {full_on:%Y-%m-%d}; in" in page.text
    assert "Changes that add are refused from 9.5 MB on." in page.text
    for day in {point.at.date() for point in report.points}:
        assert f"<td>{day}</td>" in page.html
    assert figures_in(page.html)["unit"] == "MB"
    assert "uPlot" in page.html
    assert len(sizes) == 8
    assert sum(sizes) <= FIRST_LOAD_BYTES_MAX


async def test_the_chart_ends_where_the_volume_is_full(filling: Path) -> None:
    report = await measured(filling)
    now = datetime.now(UTC)
    history = history_of(report, now, Texts("en"))
    assert history is not None
    figures = json.loads(history.chart)
    used, projected, full = figures["lines"]
    times = figures["times"]

    assert len(times) == len(used) == len(projected) == len(full) == len(report.points) + 1
    assert times == sorted(times)
    assert history.full_on is not None
    assert times[-1] == int(history.full_on.timestamp())
    assert used[-1] is None
    assert projected[-2] == used[-2]
    assert projected[-1] == pytest.approx(full[-1], rel=0.1)
    assert set(full) == {9.5}


async def test_the_table_has_one_row_for_each_day_the_newest_first(filling: Path) -> None:
    report = await measured(filling)
    history = history_of(report, datetime.now(UTC), Texts("en"))
    assert history is not None
    days: list[date] = [point.at.date() for point in history.days]

    assert days == sorted({point.at.date() for point in report.points}, reverse=True)
    assert history.days[0] == report.points[-1]


async def test_a_young_volume_has_no_chart(owner: Browser) -> None:
    page = await owner.get("/")

    assert "data-chart" not in page.html
    assert "uPlot" not in page.html


async def measured(filling: Path) -> Any:
    store = open_managed(filling, SettableClock(), storage__volume_limit_mb=LIMIT_MB)
    report = await Operations(store).usage.measure()
    await store.close()
    return report


def figures_in(html: str) -> dict[str, Any]:
    """Return the figures of the chart."""
    [found] = re.findall(r'data-chart="([^"]*)"', html)
    figures: dict[str, Any] = json.loads(unescape(found))
    return figures
