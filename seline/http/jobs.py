"""The handlers for jobs: their status, a run on request, and their runs."""

from aiohttp import web

from seline.domain.document import Json
from seline.domain.job import JobStatus, Run
from seline.http.context import context
from seline.http.rendering import answer, members


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Answer the status of every job."""
    return answer({"jobs": [_status(job) for job in context(request).jobs.jobs()]})


async def run_job(request: web.Request) -> web.StreamResponse:
    """Start a job; if a run is in progress, answer that one."""
    name = request.match_info["job"]
    run = context(request).jobs.run_now(name)
    url = f"{request.path.removesuffix('/run')}/runs"
    return answer({"job": name, "run": run.id, "url": url}, status=202, headers={"Location": url})


async def list_runs(request: web.Request) -> web.StreamResponse:
    """Answer a job's runs, newest first."""
    name = request.match_info["job"]
    return answer({"job": name, "runs": [_run(run) for run in context(request).jobs.runs(name)]})


def _status(job: JobStatus) -> dict[str, Json]:
    return {
        **members(job, "name", "schedule", "enabled", "next_run"),
        "running": job.running is not None,
        "last": None if job.last is None else _run(job.last),
        **members(job, "last_success"),
    }


def _run(run: Run) -> dict[str, Json]:
    return members(run, "id", "started_at", "ended_at", "outcome", "detail")
