"""The mirror: its memory and speed at a bucket, a WebDAV server and a folder; and coming back.

The servers are on loopback, in a separate process. A bare upload of the same documents, as many at
once as the mirror has, is measured in the same run. moto is a real S3 service; the stand-in of this
suite answers at once, or after 20 ms.
"""

import asyncio
import base64
import json
import random
import shutil
import time
import urllib.request
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web

from seline.blocking import open_seline
from seline.operations.copies import Copies
from seline.operations.mirror_contents import UPLOADS_MAX
from seline.outbound.destinations.table import build_targets
from seline.ports.destinations import ObjectStore
from seline.ports.sealing import UNSEALED
from seline.settings import load_settings
from tests.acceptance.s3_services import moto
from tests.benchmarks.printing import print_measure
from tests.benchmarks.serving import memory_mb, serving
from tests.destinations.webdav_server import PASSWORD, USER, webdav_server
from tests.s3_server import BUCKET, KEY_ID, SECRET, s3_server

DOCUMENTS, DOCUMENT_BYTES = 3000, 100_000
RESTORED = 5000
IDLE_AFTER_S = 5.0
LIMIT_S = 600.0
ANSWER_S = 0.02
"""How long a bucket in the same region takes for an answer."""
SLOW_S3 = "s3-after-20-ms"
MOTO_S3 = "s3-moto"
TOKEN = "a-token-of-the-benchmark"
SPAWN = get_context("spawn")
JOBS_OFF = {
    f"SELINE_JOBS__{name}__ENABLED": "false" for name in ("INTEGRITY", "ROTATION", "USAGE", "DRILL")
}


def mirror(here: Path) -> None:
    """Measure the first run of the mirror, of 300 MB, to each kind of destination."""
    volume = here / "mirrored"
    _fill(volume, DOCUMENTS)
    for kind in (MOTO_S3, "s3", SLOW_S3, "webdav", "file"):
        copies = here / "copies"
        copies.mkdir()
        with _destination(kind, copies) as settings:
            bare_s = asyncio.run(_bare_upload(settings, volume))
            _mirrored(here, volume, kind, settings, bare_s)
        shutil.rmtree(copies)
    shutil.rmtree(volume)


def restore(here: Path) -> None:
    """Measure a start on an empty volume that restores 500 MB from a bucket."""
    volume = here / "lost"
    _fill(volume, RESTORED)
    with _destination("s3", here) as settings:
        with serving(volume, **_environ(settings)) as server:
            _run_mirror(server.port, settings)
        shutil.rmtree(volume)
        started = time.perf_counter()
        with serving(volume, limit_s=LIMIT_S, **_environ(settings)) as server:
            taken_s = time.perf_counter() - started
            peak_mb = memory_mb(server.pid, "VmHWM")
    assert len(list(volume.glob("d*.json"))) == RESTORED
    shutil.rmtree(volume)
    size_mb = RESTORED * DOCUMENT_BYTES / 1e6
    detail = f"a new process on an empty volume; its peak {peak_mb:.0f} MB"
    print_measure(f"restore of {size_mb:.0f} MB from S3", f"{taken_s:.1f} s", "≤ 60 s", detail)


def _mirrored(
    here: Path, volume: Path, kind: str, settings: dict[str, object], bare_s: float
) -> None:
    with serving(volume, **_environ(settings)) as server:
        time.sleep(IDLE_AFTER_S)
        idle_mb = memory_mb(server.pid)
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forget the peak so far
        taken_s = _run_mirror(server.port, settings)
        peak_mb = memory_mb(server.pid, "VmHWM") - idle_mb
    size_mb = DOCUMENTS * DOCUMENT_BYTES / 1e6
    what = f"the mirror of {size_mb:.0f} MB to {kind}"
    detail = f"idle {idle_mb:.0f} MB"
    print_measure(f"{what}: peak above idle", f"{peak_mb:.0f} MB", "≤ 96 MB", detail)
    detail = f"{taken_s:.1f} s, bare {bare_s:.1f} s"
    print_measure(f"{what}: speed / bare", f"{bare_s / taken_s:.2f} ×", "≥ 0.6", detail)


def _run_mirror(port: int, settings: dict[str, object]) -> float:
    """Run the job; return the seconds until there is a copy."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/data-admin/jobs/mirror/run",
        method="POST",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    started = time.perf_counter()
    urllib.request.urlopen(request).close()
    asyncio.run(_wait_for_copy(settings))
    return time.perf_counter() - started


async def _wait_for_copy(settings: dict[str, object]) -> None:
    destination = _store(settings)
    ends_at = time.perf_counter() + LIMIT_S
    while time.perf_counter() < ends_at:
        if await Copies(destination, UNSEALED).listed():
            await destination.close()
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(f"no copy within {LIMIT_S:.0f} s")


async def _bare_upload(settings: dict[str, object], volume: Path) -> float:
    """Upload every document as it is; return the seconds that it took."""
    destination = _store(settings)
    paths = sorted(volume.glob("d*.json"))
    await destination.make()
    started = time.perf_counter()
    await _each(paths, lambda path: destination.put(f"bare/{path.name}", path.read_bytes()))
    taken_s = time.perf_counter() - started
    await _each(paths, lambda path: destination.remove(f"bare/{path.name}"))
    await destination.close()
    return taken_s


async def _each(paths: list[Path], call: Callable[[Path], Awaitable[None]]) -> None:
    """Call for each path, as many at once as the mirror uploads."""
    waiting = iter(paths)

    async def work() -> None:
        for path in waiting:
            await call(path)

    await asyncio.gather(*(work() for _ in range(UPLOADS_MAX)))


# the volume and the destinations


def _fill(volume: Path, documents: int) -> None:
    """Save documents that hardly compress, and are all different."""
    chance = random.Random(1)
    with open_seline(volume) as seline:
        for number in range(documents):
            text = base64.b85encode(chance.randbytes(DOCUMENT_BYTES * 4 // 5 - 20)).decode()
            seline.data.save_json(f"d{number}.json", {"text": text})


@contextmanager
def _destination(kind: str, folder: Path) -> Generator[dict[str, object]]:
    """Yield the settings of a destination of a kind, served while the block runs."""
    common: dict[str, object] = {"name": kind, "mode": "mirror"}
    if kind == "file":
        yield {**common, "url": f"file://{folder}/folder", "same_disk": True}
        return
    keys = {"access_key_id": KEY_ID, "secret_access_key": SECRET}
    if kind == MOTO_S3:
        with moto() as (url, _):
            yield {**common, "url": "s3://copies", "endpoint": url, **keys}
        return
    ours, theirs = SPAWN.Pipe()
    server = SPAWN.Process(target=_serve, args=(kind, str(folder), theirs))
    server.start()
    try:
        url = ours.recv()
        if kind == "webdav":
            yield {**common, "url": f"{url}/", "user": USER, "password": PASSWORD}
        else:
            yield {**common, "url": f"s3://{BUCKET}", "endpoint": url, **keys}
    finally:
        ours.close()
        server.join(20)
        server.kill()


def _serve(kind: str, folder: str, until_closed: Connection) -> None:
    """Serve in this process until the other end of the connection is closed."""
    if kind == "webdav":
        _serve_webdav(folder, until_closed)
    else:
        asyncio.run(_serve_s3(until_closed, ANSWER_S if kind == SLOW_S3 else 0.0))


async def _serve_s3(until_closed: Connection, answer_s: float) -> None:
    async def wait(_request: web.Request) -> None:
        await asyncio.sleep(answer_s)

    async with s3_server() as server:
        server.fault = wait if answer_s else None
        until_closed.send(server.url)
        await asyncio.to_thread(until_closed.poll, None)


def _serve_webdav(folder: str, until_closed: Connection) -> None:
    with webdav_server(Path(folder)) as server:
        until_closed.send(server.url)
        until_closed.poll(None)


def _store(settings: dict[str, object]) -> ObjectStore:
    loaded = load_settings(environ={}, arguments={"exports.destinations": [settings]})
    return build_targets(loaded)[0].destination


def _environ(settings: dict[str, object]) -> dict[str, str]:
    """Return the variables of a server whose only job is the mirror, and that does not begin it."""
    return {
        **JOBS_OFF,
        "SELINE_JOBS__MIRROR__SCHEDULE": "daily 03:00",
        "SELINE_EXPORTS__DESTINATIONS": json.dumps([settings]),
        "SELINE_ADMIN_TOKEN": TOKEN,
    }
