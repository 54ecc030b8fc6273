"""The verb jobs: list the jobs, run one now, list its runs."""

from typing import Any, Final

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb

POLL_S: Final = 0.2
_INTEGRITY: Final = "integrity"


@api_verb("jobs")
@click.argument("action", required=False, type=click.Choice(["run", "runs"]))
@click.argument("name", required=False)
async def jobs(api: Api, options: VerbOptions, action: str | None, name: str | None) -> Exit:
    """List the scheduled jobs; `run NAME` runs one now, `runs NAME` lists its runs.

    `run` waits for the job's end. It exits 1 if the job failed, 3 if `integrity` finds a document
    that is broken beyond recovery.

    Examples:
      seline jobs
      seline jobs run integrity
      seline jobs runs export --json
    """
    if action is None:
        _show(api, options, await api.get("/jobs"))
        return Exit.DONE
    if name is None:
        raise click.UsageError(f"`seline jobs {action}` needs a job's name: see `seline jobs`.")
    if action == "runs":
        _show_runs(options, await _runs(api, name))
        return Exit.DONE
    return await _run(api, options, name)


async def _run(api: Api, options: VerbOptions, name: str) -> Exit:
    with terminal.busy(f"Running {name}"):
        run = await _ran(api, name)
    broken = await _broken(api) if name == _INTEGRITY and run["outcome"] == "ok" else None
    if options.json:
        terminal.out_json(run)
    else:
        outcome = "something is broken" if broken else run["outcome"]
        terminal.out(f"{name}: {outcome}. {run['detail'] or _idle_text(name)}")
    if broken:
        terminal.report(broken["detail"], broken["fix"])
        return Exit.DAMAGE
    return Exit.DONE if run["outcome"] == "ok" else Exit.FAILED


async def _ran(api: Api, name: str) -> dict[str, Any]:
    """Run a job and return the run.

    A copy that goes on after the run would end with this command, if that has opened the store:
    then it is waited for, by the next run.
    """
    from seline.domain.copy import STILL_COPYING

    while True:
        started = await api.request("POST", "/jobs/{}/run", name)
        run = await _ended(api, name, started["run"])
        is_copying = name == "mirror" and STILL_COPYING in (run["detail"] or "")
        if not (is_copying and api.endpoint.opened_here and run["outcome"] == "ok"):
            return run


def _idle_text(name: str) -> str:
    """Return why a run of a job had nothing to do."""
    if name == "mirror":
        return "Nothing to copy: no destination is mirrored, or each has every change."
    return "Nothing to do: `exports.destinations` names no destination for it."


async def _broken(api: Api) -> dict[str, Any] | None:
    """Return the health check of documents if it is critical; the run itself may have succeeded."""
    checks: list[dict[str, Any]] = (await api.get("/health"))["checks"]
    critical = {check["name"]: check for check in checks if check["status"] == "critical"}
    return critical.get("documents")


async def _ended(api: Api, name: str, identifier: str) -> dict[str, Any]:
    """Return a run once it has ended."""
    import asyncio

    while True:
        found = [run for run in await _runs(api, name) if run["id"] == identifier]
        if found and found[0]["ended_at"] is not None:
            return found[0]
        await asyncio.sleep(POLL_S)


async def _runs(api: Api, name: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = (await api.get("/jobs/{}/runs", name))["runs"]
    return runs


def _show(api: Api, options: VerbOptions, listed: dict[str, Any]) -> None:
    rows = [
        (
            job["name"],
            job["schedule"] if job["enabled"] else "off",
            "now" if job["running"] else job["next_run"] or "-",
            "-" if job["last"] is None else f"{job['last']['outcome']} {job['last']['ended_at']}",
            "" if job["last"] is None else job["last"]["detail"],
        )
        for job in listed["jobs"]
    ]
    heads = ("JOB", "SCHEDULE (UTC)", "NEXT RUN", "LAST RUN", "WHAT IT DID")
    terminal.out_list(listed, heads, rows, as_json=options.json)
    planned = [job["next_run"] for job in listed["jobs"] if job["enabled"]]
    if planned and not any(planned) and not options.json:
        from seline.domain.report import nothing_runs

        terminal.report(*nothing_runs(is_held=not api.endpoint.opened_here)[1:])


def _show_runs(options: VerbOptions, runs: list[dict[str, Any]]) -> None:
    rows = [(run["started_at"], run["outcome"] or "running", run["detail"]) for run in runs]
    terminal.out_list(
        {"runs": runs},
        ("STARTED", "OUTCOME", "WHAT IT DID"),
        rows,
        as_json=options.json,
        empty="It has not run yet.",
    )
