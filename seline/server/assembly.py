"""Build the parts of the process over one store, in the order in which they need each other."""

from dataclasses import dataclass
from typing import Final

from aiohttp import ClientSession, web

from seline.access.audit import AuditLog
from seline.access.tokens import Tokens
from seline.alerts.process import AlertProcess
from seline.http.app import build_app
from seline.http.context import AppContext
from seline.library import Seline
from seline.outbound.alert_sinks import AlertSource, build_sinks
from seline.outbound.heartbeat import send_heartbeat
from seline.outbound.http_client import open_session
from seline.server.status import ServerStatus
from seline.settings import Settings
from seline_workers import Worker
from seline_workers.runs import ignore

SHUTDOWN_S: Final = 8.0
LINGERING_S: Final = 1.0
"""How long a refused body is still read, so that its sender receives the response."""
REQUEST_BYTES: Final = 1 << 20
"""What a request's body may have beyond the largest document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a process runs over its store."""

    tokens: Tokens
    audit: AuditLog
    outbound: ClientSession
    alerts: AlertProcess
    worker: Worker
    runner: web.AppRunner


def assemble(opened: Seline, settings: Settings, status: ServerStatus, *, network: bool) -> Parts:
    """Build the parts. The store may not be open yet. Call it inside the event loop.

    Without `network`, jobs raise no alerts: the process serves one command.
    """
    tokens = Tokens(opened.store, admin_token=settings.server.admin_token)
    audit = AuditLog(settings.data_dir)
    outbound = open_session()
    alerts = _alerts(opened, settings, status, outbound)
    worker = Worker(
        opened.operations,
        settings.jobs,
        on_run_ended=alerts.report_run if network else ignore,
        on_overdue=alerts.report_overdue,
    )
    context = AppContext(
        data=opened.data,
        operations=opened.operations,
        tokens=tokens,
        audit=audit.append,
        jobs=worker,
        alerts=alerts.log,
        unavailable=status.unavailable,
        about=status.about,
        loopback_only=not settings.bind_is_public,
        trust_proxy=settings.server.trust_proxy,
        metrics_open=settings.server.metrics_open,
        body_bytes_max=settings.storage.document_bytes_max + REQUEST_BYTES,
    )
    return Parts(
        tokens=tokens,
        audit=audit,
        outbound=outbound,
        alerts=alerts,
        worker=worker,
        runner=_runner(context),
    )


def _alerts(
    opened: Seline, settings: Settings, status: ServerStatus, outbound: ClientSession
) -> AlertProcess:
    language, url = settings.alerts.language, settings.alerts.heartbeat_url
    source = AlertSource(service=settings.service, data_dir=settings.data_dir, language=language)
    return AlertProcess(
        opened.operations,
        build_sinks(settings.alerts.sinks, outbound, source),
        unavailable=lambda: status.failure,  # a store that is closing is still evaluated
        heartbeat=(lambda: send_heartbeat(outbound, url)) if url else None,
        language=language,
        renotify_h=settings.alerts.renotify_h,
    )


def _runner(context: AppContext) -> web.AppRunner:
    return web.AppRunner(
        build_app(context),
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_S,
        lingering_time=LINGERING_S,
        access_log=None,
        auto_decompress=False,  # aiohttp would decompress before the token is checked
    )
