"""The table of routes: the handler, the scope and the query parameters of each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aiohttp import web

from seline.http import alerts, documents, exporting, jobs, metrics, operator, probes

PREFIX: Final = "/api/v1/data-admin"
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Scope: TypeAlias = Literal["open", "read", "admin", "control"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. Scope `control`: only over the control socket. `query`: the known parameters."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    query: frozenset[str] = frozenset()


def _route(method: str, path: str, handler: Handler, scope: Scope, *query: str) -> Route:
    return Route(method=method, path=path, handler=handler, scope=scope, query=frozenset(query))


_NAME: Final = "/documents/{name}"
_BACKUP: Final = _NAME + "/backups/{backup}"

ROUTES: Final[tuple[Route, ...]] = (
    _route("GET", "/livez", probes.livez, "open"),
    _route("GET", "/readyz", probes.readyz, "open", "verbose"),
    _route("GET", "/metrics", metrics.metrics, "read"),
    _route("GET", PREFIX + "/health", operator.health, "read"),
    _route("GET", PREFIX + "/storage-info", operator.storage_info, "read"),
    _route("GET", PREFIX + "/export", exporting.export, "read", "form"),
    _route("POST", PREFIX + "/restore-backup", operator.restore_backup, "admin", "dry_run"),
    _route("POST", PREFIX + "/import", operator.import_documents, "admin", "mode", "dry_run"),
    _route("POST", PREFIX + "/verify", operator.verify, "admin"),
    _route("GET", PREFIX + "/documents", documents.list_documents, "read"),
    _route("GET", PREFIX + _NAME, documents.get_document, "read"),
    _route("PUT", PREFIX + _NAME, documents.put_document, "admin", "backup", "shrink"),
    _route("DELETE", PREFIX + _NAME, documents.delete_document, "admin", "purge", "dry_run"),
    _route("GET", PREFIX + _NAME + "/raw", documents.get_raw, "read"),
    _route("POST", PREFIX + _NAME + "/reset", documents.reset_document, "admin", "dry_run"),
    _route("GET", PREFIX + _NAME + "/backups", documents.list_backups, "read"),
    _route("GET", PREFIX + _BACKUP, documents.get_backup, "read"),
    _route("PUT", PREFIX + _BACKUP + "/pin", documents.pin_backup, "admin"),
    _route("DELETE", PREFIX + _BACKUP + "/pin", documents.unpin_backup, "admin"),
    _route("GET", PREFIX + "/quarantine", operator.list_quarantine, "read"),
    _route("GET", PREFIX + "/quarantine/{item}", operator.get_quarantined, "read"),
    _route("POST", PREFIX + "/prune", operator.prune, "admin", "dry_run"),
    _route("GET", PREFIX + "/jobs", jobs.list_jobs, "read"),
    _route("POST", PREFIX + "/jobs/{job}/run", jobs.run_job, "admin"),
    _route("GET", PREFIX + "/jobs/{job}/runs", jobs.list_runs, "read"),
    _route("GET", PREFIX + "/alerts", alerts.list_alerts, "read"),
    _route("POST", PREFIX + "/alerts/test", alerts.test_alerts, "admin"),
    _route("GET", PREFIX + "/status", operator.status, "control"),
    _route("POST", PREFIX + "/tokens", operator.create_token, "control"),
    _route("GET", PREFIX + "/tokens", operator.list_tokens, "control"),
    _route("DELETE", PREFIX + "/tokens/{id}", operator.revoke_token, "control", "dry_run"),
)
