"""Add the page to the app: its views, in the order of the navigation, and its static files."""

from typing import Final

from aiohttp import web

from seline.access.sessions import OneTimeLink, Sessions
from seline.page import (
    alerts,
    audit,
    copies,
    documents,
    editing,
    home,
    jobs,
    new,
    prune,
    reference,
    set_aside,
    static,
    tokens,
)
from seline.page.gate import answering, stray_pages
from seline.page.sign_in import SIGN_IN
from seline.page.visit import SITE, Site, View
from seline.page.work import WORK, WORKS, end_works

VIEWS: Final[tuple[View, ...]] = (
    home.HOME,
    prune.PRUNE,
    new.NEW,
    documents.DOCUMENTS,
    editing.EDIT,
    set_aside.SET_ASIDE,
    copies.COPIES,
    jobs.JOBS,
    alerts.ALERTS,
    tokens.TOKENS,
    audit.AUDIT,
    SIGN_IN,
    WORK,
    reference.REFERENCE,
)
"""Every view; those with an address are in the navigation, in this order."""


def add_page(app: web.Application, sessions: Sessions, once: OneTimeLink) -> None:
    """Add the routes of every view, and pages in place of problems where a browser errs."""
    navigation = tuple(view for view in VIEWS if view.path)
    app[SITE] = Site(sessions=sessions, once=once, views=navigation)
    app[WORKS] = {}
    app.middlewares.append(stray_pages)
    app.on_shutdown.append(end_works)
    app.router.add_route("GET", static.ROUTE, static.serve)
    for view in VIEWS:
        for route in view.routes:
            answer = answering(route)
            app.router.add_route(route.method, route.path, answer)
            if route.method == "GET":
                app.router.add_route("HEAD", route.path, answer)
