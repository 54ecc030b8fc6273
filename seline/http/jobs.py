"""The handlers for jobs: their status, a run on request, and their runs."""

from aiohttp import web

from seline.domain.job import JobStatus, Run
from seline.http.answers import JobList, JobShown, JobStarted, RunList, RunShown
from seline.http.context import context
from seline.http.rendering import JsonAnswer, answer


async def list_jobs(request: web.Request) -> JsonAnswer[JobList]:
    """Answer the status of every job."""
    return answer(JobList(jobs=[_status(job) for job in context(request).jobs.jobs()]))


async def run_job(request: web.Request) -> JsonAnswer[JobStarted]:
    """Start a job; if a run is in progress, answer that one."""
    name = request.match_info["job"]
    run = context(request).jobs.run_now(name)
    url = f"{request.path.removesuffix('/run')}/runs"
    started = JobStarted(job=name, run=run.id, url=url)
    return answer(started, status=202, headers={"Location": url})


async def list_runs(request: web.Request) -> JsonAnswer[RunList]:
    """Answer a job's runs, newest first."""
    name = request.match_info["job"]
    runs = [_run(run) for run in context(request).jobs.runs(name)]
    return answer(RunList(job=name, runs=runs))


def _status(job: JobStatus) -> JobShown:
    return JobShown(
        name=job.name,
        schedule=job.schedule,
        enabled=job.enabled,
        next_run=job.next_run,
        running=job.running is not None,
        last=None if job.last is None else _run(job.last),
        last_success=job.last_success,
    )


def _run(run: Run) -> RunShown:
    return RunShown(
        id=run.id,
        started_at=run.started_at,
        ended_at=run.ended_at,
        outcome=run.outcome,
        detail=run.detail,
    )
