"""Jobs: what runs by the clock, a run now, and what each run did."""

import asyncio
from typing import Final

from aiohttp import web

from seline.domain.job import RunOutcome
from seline.domain.sentences.translate import translated
from seline.page import work
from seline.page.texts import Texts
from seline.page.visit import POLL_S, PageRoute, View, Visit, own_address
from seline.settings.values import DEFAULT_JOBS

LOOK_AGAIN_S: Final = 0.2


async def show(visit: Visit) -> web.Response:
    """Show every job with its schedule and its last run."""
    return visit.render("jobs.html", poll_s=POLL_S, jobs=visit.context.jobs.jobs())


async def show_runs(visit: Visit) -> web.Response:
    """Show the runs of one job, newest first."""
    name = visit.part("job")
    runs = visit.context.jobs.runs(name)
    return visit.render("runs.html", poll_s=POLL_S, job=name, runs=runs)


async def run(visit: Visit) -> web.Response:
    """Run a job now, and go back to where the form was."""
    return await run_now(visit, visit.part("job"), own_address(visit.form.get("back", "/jobs")))


async def run_now(visit: Visit, name: str, back: str) -> web.Response:
    """Run a job and wait for its end. Raises JobNotFound."""
    jobs, t = visit.context.jobs, visit.texts
    run, label = jobs.run_now(name), label_of(t, name)

    async def operation(note: work.NoteProgress) -> work.Done:
        while True:
            ended = next((each for each in jobs.runs(name) if each.id == run.id), None)
            if ended is None or ended.outcome is not None:
                break
            note(_progress(visit))
            await asyncio.sleep(LOOK_AGAIN_S)
        is_ok = ended is not None and ended.outcome is RunOutcome.OK
        detail = "" if ended is None else translated(t.language, ended.detail)
        return work.Done(t("jobs.ran" if is_ok else "jobs.failed", job=label, detail=detail))

    return await work.start(visit, t("jobs.run", job=label), operation, back=back)


def label_of(t: Texts, name: str) -> str:
    """Return what the page calls a job; the name itself of one that does not exist."""
    return t(f"home.job_{name}") if name in DEFAULT_JOBS else name


def _progress(visit: Visit) -> str:
    """Return how far the mirrors are, empty if none copies now."""
    operations = visit.context.operations
    targets = operations.exports.destinations.targets
    waiting = [operations.mirrors.waiting(t.destination.name) for t in targets if t.takes_mirror]
    of_all = sum(each.of_all for each in waiting)
    if not of_all:
        return ""
    copied = visit.texts.number(sum(each.copied for each in waiting))
    return visit.texts("jobs.progress", copied=copied, of_all=visit.texts.number(of_all))


JOBS: Final = View(
    "jobs",
    "/jobs",
    (
        PageRoute("GET", "/jobs", show),
        PageRoute("GET", "/jobs/{job}", show_runs),
        PageRoute("POST", "/jobs/{job}/run", run, "admin"),
    ),
)
