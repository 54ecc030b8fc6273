"""The verb jobs: how they stand, run one now, and what its runs came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import api_verb

if TYPE_CHECKING:
    from seline.cli.client import Api

LOOK_EVERY_S: Final = 0.2
_INTEGRITY: Final = "integrity"


@api_verb(
    front,
    "jobs",
    section="Everything at once",
    examples="""
    seline jobs
    seline jobs run integrity
    seline jobs runs export --json
    """,
)
@click.argument("action", required=False, type=click.Choice(["run", "runs"]))
@click.argument("name", required=False)
async def jobs(api: Api, action: str | None, name: str | None) -> Exit:
    """Show the jobs that run by the clock; `run NAME` runs one now, `runs NAME` lists its runs.

    Running one waits for its end, and exits 1 if it failed, 3 if `integrity` ends with a document
    broken beyond recovery.
    """
    if action is None:
        _show(api, await api.get("/jobs"))
        return Exit.DONE
    if name is None:
        raise Problem(
            f"`seline jobs {action}` needs the name of a job.",
            "Run `seline jobs` to see the names.",
            exit=Exit.USAGE,
        )
    if action == "runs":
        _show_runs(api, await _runs(api, name))
        return Exit.DONE
    return await _run(api, name)


async def _run(api: Api, name: str) -> Exit:
    from seline.cli.client import segment

    started = (await api.request("POST", f"/jobs/{segment(name)}/run")).value()
    with terminal.busy(f"Running {name}"):
        run = await _ended(api, name, started["run"])
    broken = await _broken(api) if name == _INTEGRITY and run["outcome"] == "ok" else None
    if api.options.json:
        terminal.out_json(run)
    else:
        came_to = "something is broken" if broken else run["outcome"]
        terminal.out(f"{name}: {came_to}. {run['detail']}")
    if broken:
        terminal.complain(broken["detail"], broken["fix"])
        return Exit.DAMAGE
    return Exit.DONE if run["outcome"] == "ok" else Exit.FAILED


async def _broken(api: Api) -> dict[str, Any] | None:
    """Return what health says of broken documents: the check has run well, what it found is not."""
    checks: list[dict[str, Any]] = (await api.get("/health"))["checks"]
    return next(
        (one for one in checks if one["name"] == "documents" and one["status"] == "critical"), None
    )


async def _ended(api: Api, name: str, run: str) -> dict[str, Any]:
    import asyncio

    while True:
        found = [one for one in await _runs(api, name) if one["id"] == run]
        if found and found[0]["ended_at"] is not None:
            return found[0]
        await asyncio.sleep(LOOK_EVERY_S)


async def _runs(api: Api, name: str) -> list[dict[str, Any]]:
    from seline.cli.client import segment

    runs: list[dict[str, Any]] = (await api.get(f"/jobs/{segment(name)}/runs"))["runs"]
    return runs


def _show(api: Api, listed: dict[str, Any]) -> None:
    if api.options.json:
        terminal.out_json(listed)
        return
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
    terminal.out_table(("JOB", "SCHEDULE (UTC)", "NEXT RUN", "LAST RUN", "WHAT IT DID"), rows)


def _show_runs(api: Api, runs: list[dict[str, Any]]) -> None:
    if api.options.json:
        terminal.out_json({"runs": runs})
        return
    rows = [(run["started_at"], run["outcome"] or "running", run["detail"]) for run in runs]
    if rows:
        terminal.out_table(("STARTED", "OUTCOME", "WHAT IT DID"), rows)
    else:
        terminal.say("It has not run yet.")
