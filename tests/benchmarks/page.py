"""The page: the processor time of Home and of `GET /health` with 10,000 documents."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from seline import open_seline
from seline.http import PREFIX
from seline.library import Seline
from tests.benchmarks.printing import DOCUMENT, print_measure
from tests.benchmarks.serving import Server, processor_s, serving
from tests.browser import Browser, jar
from tests.http_client import ADMIN

FEW, MANY = 10, 10_000
TOGETHER = 500
REQUESTS = 100
SETTLES_S = 20.0
"""The time in which the jobs that a start catches up with run."""


def home(here: Path) -> None:
    """Measure Home and health of a server with 10,000 documents, and of one with 10."""
    few_ms = asyncio.run(_measure(here / "few", FEW))
    home_ms, health_ms = asyncio.run(_measure(here / "many", MANY))
    detail = f"{few_ms[0]:.1f} ms with {FEW}"
    print_measure(f"Home of {MANY:,} documents: processor", f"{home_ms:.1f} ms", "≤ 30 ms", detail)
    detail = f"{few_ms[1]:.1f} ms with {FEW}"
    print_measure(
        f"GET /health of {MANY:,} documents: processor", f"{health_ms:.1f} ms", "≤ 30 ms", detail
    )


async def _measure(volume: Path, documents: int) -> tuple[float, float]:
    """Return the milliseconds of processor of one Home and of one health, signed in."""
    async with open_seline(volume, lock_wait_s=0, storage__documents_max=2 * MANY) as seline:
        for first in range(0, documents, TOGETHER):
            await _save(seline, range(first, min(first + TOGETHER, documents)))
    variables = {"SELINE_ADMIN_TOKEN": ADMIN, "SELINE_STORAGE__DOCUMENTS_MAX": str(2 * MANY)}
    with serving(volume, **variables) as server:
        await asyncio.sleep(SETTLES_S)
        async with jar() as session:
            browser = Browser(session, f"http://127.0.0.1:{server.port}")
            await browser.sign_in()
            bearer = {"Authorization": f"Bearer {ADMIN}"}
            return (
                await _per_request(server, lambda: browser.get("/")),
                await _per_request(server, lambda: browser.get(f"{PREFIX}/health", **bearer)),
            )


async def _save(seline: Seline, numbers: range) -> None:
    """Save documents twice, so that each has a backup."""
    for version in range(2):
        await asyncio.gather(
            *(seline.data.save_json(f"d{n}.json", {**DOCUMENT, "n": version}) for n in numbers)
        )


async def _per_request(server: Server, request: Callable[[], Awaitable[object]]) -> float:
    await request()  # what only the first one loads
    before_s = processor_s(server.pid)
    for _ in range(REQUESTS):
        await request()
    return (processor_s(server.pid) - before_s) / REQUESTS * 1e3
