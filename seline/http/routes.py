"""The table of routes: the handler, the scope and the query parameters of each."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from aiohttp import web

from seline.errors import RestorePending, SelineError
from seline.http import (
    MERGE_PATCH,
    PREFIX,
    alerts,
    destinations,
    documents,
    exporting,
    jobs,
    metrics,
    operator,
    probes,
    reference,
)
from seline.http.answers import Exported, IdentityBody, PinBody, RestoreBody

RouteScope: TypeAlias = Literal["open", "read", "admin", "control"]


class Route(NamedTuple):
    """One row. Scope `control`: only over the control socket. `query`: the known parameters."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: RouteScope
    query: tuple[str, ...] = ()
    is_conditional: bool = False
    """Whether the handler judges preconditions; every other change refuses them."""
    answers_unopened: bool = False
    """Whether it is answered before the volume is open, and after it was closed."""
    statuses: tuple[int, ...] = (200,)
    """The statuses of its answers that are no problem."""
    media: Mapping[str, object] = {}
    """The types of its answers by media type, if the handler returns no `JsonAnswer`."""
    has_revision: bool = False
    """Whether a read answers the revision as its ETag, and 304 to a reader that has it."""
    is_polled: bool = False
    """Whether its answer has an ETag, for readers who ask again and again (`polling`)."""
    body: Mapping[str, object] = {}
    """The types of its body by media type; empty if it takes none."""
    needs_body: bool = True
    ends_pending: bool = False
    """Whether it is answered while a restore onto the empty volume is pending."""
    no_undo: str = ""
    """Why its answer has no `undo`, if it changes something."""

    def answers(self, failure: SelineError) -> bool:
        """Whether it is answered although the volume is not served because of a failure."""
        is_pending = isinstance(failure, RestorePending)
        return self.answers_unopened or (self.ends_pending and is_pending)


_NAME: Final = "/documents/{name}"
_JSON: Final = "application/json"
_ANY: Final[Mapping[str, object]] = {_JSON: Any}
_BYTES: Final[Mapping[str, object]] = {"application/octet-stream": bytes}
_BACKUP: Final = _NAME + "/backups/{backup}"

ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/livez", probes.livez, "open"),
    Route("GET", "/readyz", probes.readyz, "open", ("verbose",), statuses=(200, 503)),
    Route("GET", "/metrics", metrics.metrics, "read", media={"text/plain": str}),
    Route(
        "GET", PREFIX + "/health", operator.health, "read", answers_unopened=True, is_polled=True
    ),
    Route("GET", PREFIX + "/storage-info", operator.storage_info, "read"),
    Route(
        "GET",
        PREFIX + "/export",
        exporting.export,
        "read",
        ("form",),
        media={_JSON: Exported, operator.TAR: bytes},
    ),
    Route(
        "POST",
        PREFIX + "/restore-backup",
        documents.restore_backup,
        "admin",
        ("dry_run",),
        is_conditional=True,
        body={_JSON: RestoreBody},
    ),
    Route(
        "POST",
        PREFIX + "/import",
        operator.import_documents,
        "admin",
        ("mode", "dry_run", "only", "skip", "backups", "volume", "foreign"),
        body={_JSON: Any, operator.TAR: bytes},
    ),
    Route(
        "POST",
        PREFIX + "/verify",
        operator.verify,
        "admin",
        no_undo="It only repairs what is broken. The broken bytes are kept in quarantine.",
    ),
    Route(
        "GET", PREFIX + "/documents", documents.list_documents, "read", ("deleted",), is_polled=True
    ),
    Route("GET", PREFIX + _NAME, documents.get_document, "read", media=_ANY, has_revision=True),
    Route(
        "PUT",
        PREFIX + _NAME,
        documents.put_document,
        "admin",
        ("backup", "shrink"),
        True,
        statuses=(200, 201),
        body=_ANY,
    ),
    Route(
        "PATCH",
        PREFIX + _NAME,
        documents.patch_document,
        "admin",
        ("backup", "shrink"),
        True,
        statuses=(200, 201),
        body={MERGE_PATCH: Any},
    ),
    Route("DELETE", PREFIX + _NAME, documents.delete_document, "admin", ("purge", "dry_run"), True),
    Route("GET", PREFIX + _NAME + "/raw", documents.get_raw, "read", media=_BYTES),
    Route(
        "POST",
        PREFIX + _NAME + "/reset",
        documents.reset_document,
        "admin",
        ("dry_run",),
        no_undo="There was no content that could be served. The broken bytes are in quarantine.",
    ),
    Route("GET", PREFIX + _NAME + "/diff", documents.get_difference, "read", ("from", "to")),
    Route("GET", PREFIX + _NAME + "/backups", documents.list_backups, "read"),
    Route("GET", PREFIX + _BACKUP, documents.get_backup, "read", media=_ANY),
    Route(
        "PUT",
        PREFIX + _BACKUP + "/pin",
        documents.pin_backup,
        "admin",
        body={_JSON: PinBody},
        needs_body=False,
    ),
    Route("DELETE", PREFIX + _BACKUP + "/pin", documents.unpin_backup, "admin"),
    Route("GET", PREFIX + "/quarantine", operator.list_quarantine, "read"),
    Route("GET", PREFIX + "/quarantine/{item}", operator.get_quarantined, "read", media=_BYTES),
    Route(
        "POST",
        PREFIX + "/prune",
        operator.prune,
        "admin",
        ("dry_run",),
        no_undo="The removed backups are gone; `dry_run` lists them before.",
    ),
    Route("GET", PREFIX + "/jobs", jobs.list_jobs, "read", is_polled=True),
    Route(
        "POST",
        PREFIX + "/jobs/{job}/run",
        jobs.run_job,
        "admin",
        statuses=(202,),
        no_undo="The job would run at its time, too.",
    ),
    Route("GET", PREFIX + "/jobs/{job}/runs", jobs.list_runs, "read", is_polled=True),
    Route("GET", PREFIX + "/destinations", destinations.list_destinations, "read", is_polled=True),
    Route("GET", PREFIX + "/destinations/{destination}/copies", destinations.list_copies, "read"),
    Route(
        "POST",
        PREFIX + "/destinations/{destination}/restore",
        destinations.restore_copy,
        "admin",
        ("at", "only", "volume", "dry_run", "foreign", "unencrypted"),
        body={_JSON: IdentityBody},
        needs_body=False,
        ends_pending=True,
    ),
    Route(
        "POST",
        PREFIX + "/destinations/{destination}/accept",
        destinations.accept_copy,
        "admin",
        no_undo="The new copy stays at the destination. So do the older ones.",
    ),
    Route(
        "POST",
        PREFIX + "/destinations/{destination}/use",
        destinations.use_destination,
        "admin",
        no_undo="The folder and its marker stay. No copy is changed.",
    ),
    Route("GET", PREFIX + "/alerts", alerts.list_alerts, "read", is_polled=True),
    Route(
        "POST", PREFIX + "/alerts/test", alerts.test_alerts, "admin", no_undo="The alert is sent."
    ),
    Route(
        "GET",
        PREFIX + "/openapi.json",
        reference.get_openapi,
        "read",
        media=_ANY,
        has_revision=True,
    ),
    Route("GET", PREFIX + "/audit", operator.list_audit, "admin", ("limit", "before", "document")),
    Route("GET", PREFIX + "/status", operator.status, "control"),
    Route("POST", PREFIX + "/tokens", operator.create_token, "control"),
    Route("GET", PREFIX + "/tokens", operator.list_tokens, "control"),
    Route(
        "DELETE",
        PREFIX + "/tokens/{id}",
        operator.revoke_token,
        "control",
        ("dry_run",),
        no_undo="Only the hash of its secret was kept. `seline token create` makes another token.",
    ),
)
