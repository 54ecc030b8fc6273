"""Prune: remove the backups that the policy drops, after a question that lists them."""

from typing import Final

from aiohttp import web

from seline.page import work
from seline.page.documents import reasons_in_words, rows_of
from seline.page.visit import PageRoute, View, Visit


async def ask(visit: Visit) -> web.Response:
    """Show which backups go and why, and ask."""
    pruned = await visit.context.operations.prune(dry_run=True)
    rows = rows_of(visit, pruned)
    return visit.render(
        "prune.html",
        rows=rows,
        reasons=[reasons_in_words(visit.texts, item.because) for item in rows.items],
        freed_bytes=sum(item.size_bytes for item in pruned),
    )


async def prune(visit: Visit) -> web.Response:
    """Remove the backups that the policy drops."""
    t = visit.texts

    async def operation(_progress: work.NoteProgress) -> work.Done:
        pruned = await visit.context.operations.prune()
        freed = t.size(sum(item.size_bytes for item in pruned))
        return work.Done(t.count("prune.done", len(pruned), freed=freed))

    return await work.start(visit, t("prune.title"), operation, back="/")


PRUNE: Final = View(
    "prune",
    "",
    (PageRoute("GET", "/prune", ask, "admin"), PageRoute("POST", "/prune", prune, "admin")),
)
"""It is not in the navigation: Home leads to it."""
