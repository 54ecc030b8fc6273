"""Assemble the app from the table of routes."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import cache

import msgspec
from aiohttp import web

from seline.domain.document import Content
from seline.http.access import ROUTE, access, set_headers, traced
from seline.http.context import CONTEXT, AppContext
from seline.http.metrics import REQUESTS
from seline.http.problems import problems
from seline.http.reference import DESCRIPTION
from seline.http.requests import DECODING
from seline.http.routes import ROUTES


def build_app(context: AppContext) -> web.Application:
    """Return the app with its middlewares: request log, errors, authentication."""
    app = web.Application(middlewares=[traced, problems, access])
    app[CONTEXT] = context
    app[REQUESTS] = Counter()
    app[DECODING] = asyncio.Semaphore(1)
    described: Callable[[], Content] = cache(_description)
    app[DESCRIPTION] = described
    app[ROUTE] = {(route.method, route.path): route for route in ROUTES}
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
    app.on_response_prepare.append(set_headers)
    return app


def _description() -> Content:
    from seline.http.openapi import description  # only for who asks for it

    return Content.of(msgspec.json.encode(description(ROUTES)))
