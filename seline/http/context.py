"""What the handlers use: the documents, the operations, the tokens, the process."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from seline.access.audit import AuditLog
from seline.access.tokens import Tokens
from seline.alerts.log import AlertLog
from seline.domain.document import Json
from seline.errors import SelineError, StoreClosed
from seline.manager import DataManager
from seline.operations import Operations
from seline.settings import Settings
from seline_workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class AppContext:
    """Everything an app needs.

    `unavailable` returns why no document can be served yet, None once the store is open. `about`
    describes the process for `GET /status`.
    """

    settings: Settings
    data: DataManager
    operations: Operations
    tokens: Tokens
    jobs: Worker
    alerts: AlertLog
    audit: AuditLog
    unavailable: Callable[[], SelineError | None]
    about: Callable[[], Mapping[str, Json]]

    async def accept(self, destination: str) -> None:
        """Copy now, make that the copy which a restore takes, and run the destination's jobs.

        The runs end the alert of a job that failed because of a doubt; they are not awaited.
        Raises DestinationNotFound, ExportFailed.
        """
        await self.operations.accept(destination)
        target = self.operations.exports.destinations.target(destination)
        with contextlib.suppress(StoreClosed):  # the copy is accepted all the same
            if target.takes_mirror:
                self.jobs.run_now("mirror")
            if target.takes_exports:
                self.jobs.run_now("export")


T = TypeVar("T")
CONTEXT = web.AppKey("context", AppContext)


def context(request: web.Request) -> AppContext:
    """Return the context of the request's app."""
    return app_value(request, CONTEXT)


def app_value(request: web.Request, key: web.AppKey[T]) -> T:
    """Return what the request's app has under a key, or the app that it is a part of."""
    found = request.app.get(key)
    return request.config_dict[key] if found is None else found


def data(request: web.Request) -> DataManager:
    """Return the documents."""
    return context(request).data


def operations(request: web.Request) -> Operations:
    """Return the operator's verbs."""
    return context(request).operations


def is_control(request: web.Request) -> bool:
    """Whether the request came through the control socket."""
    address = request.transport.get_extra_info("sockname") if request.transport else None
    return isinstance(address, str)  # of a TCP socket it is a tuple
