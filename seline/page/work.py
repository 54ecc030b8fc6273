"""Long work: a form starts it, and a page shows how it goes on, also to who comes back later."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from aiohttp import web

from seline.errors import RouteNotFound, SelineError
from seline.http.problems import unexpected
from seline.manager.call_record import current_record
from seline.page.gate import named
from seline.page.visit import Button, PageRoute, View, Visit

SHORT_S: Final = 1.0
"""Work that ends within this time has no page."""
WORKS_MAX: Final = 50
POLL_S: Final = 2
_log = logging.getLogger("seline.page")


class Ask(NamedTuple):
    """The question that a preview ends with: its title, what would change, and the button."""

    title: str
    lines: tuple[str, ...]
    button: Button


class Done(NamedTuple):
    """What work has done, in words for its page, and what undoes it. A preview ends with `ask`."""

    text: str
    undo: Button | None = None
    ask: Ask | None = None


NoteProgress: TypeAlias = Callable[[str], None]
"""Call it with a text that says how far the work is."""


@dataclass(slots=True, kw_only=True)
class LongWork:
    """Work that was started. `error` or `done` is set once it has ended."""

    id: str
    title: str
    back: str
    started_at: datetime
    progress: str = ""
    done: Done | None = None
    error: SelineError | None = None
    task: "asyncio.Task[None] | None" = None
    is_left: bool = False
    """Whether the form that started it was answered, and its line is in the audit log."""


WORKS: Final = web.AppKey("works", dict[str, LongWork])


async def start(
    visit: Visit,
    title: str,
    operation: Callable[[NoteProgress], Coroutine[Any, Any, Done]],
    *,
    back: str,
) -> web.Response:
    """Start work and return the redirect to its page, or to `back` if it ends within SHORT_S.

    `operation` gets the function that reports its progress, and returns what it has done. An error
    that it raises within SHORT_S is raised; a later one is shown on the page of the work.
    """
    works = visit.request.config_dict[WORKS]
    work = LongWork(id=secrets.token_hex(8), title=title, back=back, started_at=visit.now)
    works[work.id] = work
    for old in [each for each in works.values() if each.done or each.error][:-WORKS_MAX]:
        del works[old.id]
    work.task = asyncio.create_task(_carry_out(visit, work, operation))
    await asyncio.wait({work.task}, timeout=SHORT_S)
    if work.error is not None:
        raise work.error
    if work.done is not None and work.done.ask is None:
        return visit.go(back, work.done.text, undo=work.done.undo)
    work.is_left = work.done is None
    return visit.go(f"/work/{work.id}")


async def show(visit: Visit) -> web.Response:
    """Show how work goes on, or how it ended."""
    work = visit.request.config_dict[WORKS].get(visit.part("id"))
    if work is None:
        raise RouteNotFound(visit.texts("work.unknown"))
    if work.done is not None and work.done.ask is not None:
        ask = work.done.ask
        return visit.confirm(title=ask.title, lines=ask.lines, button=ask.button, back=work.back)
    is_running = work.done is None and work.error is None
    return visit.render(
        "work.html", poll_s=POLL_S if is_running else None, work=work, is_running=is_running
    )


async def _carry_out(
    visit: Visit, work: LongWork, operation: Callable[[NoteProgress], Coroutine[Any, Any, Done]]
) -> None:
    def note(text: str) -> None:
        work.progress = text

    try:
        work.done = await operation(note)
    except SelineError as error:
        work.error = error
    except Exception:  # noqa: BLE001  # the border of the work: its page shows it
        _log.exception("unexpected error in work of the page")
        work.error = unexpected()
    if work.is_left and visit.session is not None:
        visit.context.audit.append(
            who=named(visit.session),
            what=f"{visit.request.method} {visit.request.path}, ended",
            outcome="done" if work.error is None else work.error.code,
            record=current_record(),
        )


async def end_works(app: web.Application) -> None:
    """Cancel the work that has not ended; the operations undo what they had not completed."""
    tasks = [work.task for work in app[WORKS].values() if work.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


WORK: Final = View("work", "", (PageRoute("GET", "/work/{id:[0-9a-f]{16}}", show),))
"""It is not in the navigation."""
