"""Home: whether everything is well, what is not, and a button where an operation mends it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from aiohttp import web

from seline.domain.report import Status
from seline.page import copies, jobs, work
from seline.page.history import history_of
from seline.page.visit import POLL_S, Button, PageRoute, View, Visit

_OF_COPIES: Final = frozenset({"export", "mirror", "drill"})
"""Jobs that do nothing, and succeed, while there is no destination; Home leaves them out then."""
_RANK: Final = {Status.CRITICAL: 0, Status.WARNING: 1, Status.INFO: 2, Status.OK: 3}


async def show(visit: Visit) -> web.Response:
    """Show the checks of health, the worst first, the usage, the copies and the jobs."""
    operations = visit.context.operations
    destinations = operations.exports.destinations.records()
    health = cast("dict[str, Any]", await operations.health())
    checks: list[dict[str, Any]] = sorted(health["checks"], key=lambda each: _RANK[each["status"]])
    return visit.render(
        "home.html",
        poll_s=POLL_S,
        health=health,
        checks=[
            {
                **check,
                "buttons": list(_buttons(visit, check)),
                "links": [view for view in visit.site.views if _is_about(view, check)],
            }
            for check in checks
        ],
        history=history_of(operations.usage.measured, visit.now, visit.texts),
        destinations=destinations,
        jobs=[
            job for job in visit.context.jobs.jobs() if destinations or job.name not in _OF_COPIES
        ],
    )


async def verify(visit: Visit) -> web.Response:
    """Check every document and backup now."""

    async def operation(_progress: work.NoteProgress) -> work.Done:
        report = await visit.context.operations.verify()
        documents = visit.texts.count("home.documents", report.documents)
        backups = visit.texts.count("home.backups", report.backups)
        key = "home.verified_damage" if report.damage else "home.verified"
        return work.Done(visit.texts(key, documents=documents, backups=backups))

    return await work.start(visit, visit.texts("home.verify"), operation, back="/")


async def run_job(visit: Visit) -> web.Response:
    """Run a job now, and wait for it."""
    return await jobs.run_now(visit, visit.part("job"), "/")


async def accept(visit: Visit) -> web.Response:
    """Make this volume's copy the one that a restore takes from a destination."""
    return await copies.at_destination(visit, visit.context.accept, "accept", back="/")


async def use(visit: Visit) -> web.Response:
    """Take a destination into use that was moved or replaced."""
    destinations = visit.context.operations.exports.destinations
    return await copies.at_destination(visit, destinations.use, "use", back="/")


class _Fix(NamedTuple):
    """An operation that a step in words may name, as a command, and the button for it.

    `asks`: a link to the page that asks before the change.
    """

    command: re.Pattern[str]
    action: str
    label: str
    asks: bool = False


_NAMED: Final = r"(?P<name>[\w.-]+)"
_FIXES: Final = (
    _Fix(re.compile(r"`seline prune`"), "/prune", "prune.title", asks=True),
    _Fix(re.compile(r"`seline verify`"), "/fix/verify", "home.verify"),
    _Fix(re.compile(rf"`seline jobs run {_NAMED}`"), "/fix/jobs/{name}", "jobs.run"),
    _Fix(
        re.compile(rf"`seline destinations accept {_NAMED}`"),
        "/fix/destinations/{name}/accept",
        "copies.accept",
    ),
    _Fix(
        re.compile(rf"`seline destinations use {_NAMED}`"),
        "/fix/destinations/{name}/use",
        "copies.use",
    ),
)


def _buttons(visit: Visit, check: Mapping[str, str]) -> Iterator[Button]:
    """Yield a button for each operation that the next step of a check names."""
    if check["status"] == Status.OK or not visit.may_change:
        return
    for fix in _FIXES:
        for found in fix.command.finditer(check["fix"]):
            name = found.groupdict().get("name", "")
            label = visit.texts(fix.label, job=jobs.label_of(visit.texts, name), destination=name)
            yield Button(fix.action.format(name=name), label, asks=fix.asks)


_COMMANDS_OF: Final = {
    "documents": ("backups", "restore", "reset", "delete", "load", "save", "pin", "unpin"),
    "set_aside": ("quarantine",),
    "copies": ("exports", "destinations", "drill"),
    "jobs": ("jobs",),
    "alerts": ("alerts",),
    "tokens": ("token",),
}
"""The commands whose view shows the same."""


def _is_about(view: View, check: Mapping[str, str]) -> bool:
    """Whether the next step of a check names a command whose view shows the same."""
    commands = _COMMANDS_OF.get(view.name, ())
    return any(f"`seline {command}" in check["fix"] for command in commands)


HOME: Final = View(
    "home",
    "/",
    (
        PageRoute("GET", "/", show),
        PageRoute("POST", "/fix/verify", verify, "admin"),
        PageRoute("POST", "/fix/jobs/{job}", run_job, "admin"),
        PageRoute("POST", "/fix/destinations/{destination}/accept", accept, "admin"),
        PageRoute("POST", "/fix/destinations/{destination}/use", use, "admin"),
    ),
)
