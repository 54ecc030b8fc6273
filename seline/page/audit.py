"""Audit: who changed what, newest first."""

from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from seline.page.visit import PageRoute, View, Visit

PAGE: Final = 50


async def show(visit: Visit) -> web.Response:
    """Show a page of the audit log, of one document if the filter names one."""
    query = visit.request.query
    document = query.get("document", "").strip()
    page = await visit.context.audit.read(
        limit=PAGE, before=query.get("before", ""), document=document
    )
    fields = {"document": document} if document else {}
    return visit.render(
        "audit.html",
        document=document,
        page=page,
        older=f"/audit?{urlencode({**fields, 'before': page.next})}" if page.next else "",
        is_first=not query.get("before"),
    )


AUDIT: Final = View("audit", "/audit", (PageRoute("GET", "/audit", show, "admin"),))
