"""The verb status: the store's health, the next steps, and the process that holds the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from seline.cli import terminal
from seline.cli.errors import EXIT_FOR_CHECK, Exit
from seline.cli.group import front
from seline.cli.verbs import GlobalOptions, api_verb
from seline.domain.plural import counted

if TYPE_CHECKING:
    from seline.client import Api

_MARKS: Final = {"ok": "ok  ", "info": "note", "warning": "WARN", "critical": "CRIT"}


@api_verb(
    front,
    "status",
    section="Server",
    examples="""
    seline status
    seline status --json | jq -r .status
    seline status --url https://bot.example.org
    """,
)
async def status(api: Api, options: GlobalOptions) -> Exit:
    """Show the store's health and the next step for each problem.

    Exits 0 while nothing is critical; 3 if documents are broken, 6 if the volume is full.
    """
    health = await api.get("/health")
    if options.json:
        terminal.out_json(health)
    else:
        documents = (await api.get("/documents"))["documents"]
        _show(health, documents, served_by=await _served_by(api))
    return _exit(health)


def _show(health: dict[str, Any], documents: list[dict[str, Any]], *, served_by: str) -> None:
    count = counted(len(documents), "document")
    backups = counted(health["backup_count"], "backup")
    terminal.out(f"{health['status'].upper()}: {count}, {backups}")
    terminal.out(f"  in {health['mount_path']} ({served_by})")
    terminal.out(
        f"  {health['total_size_mb']} MB, {health['usage_percent']} % of the volume is used"
    )
    terminal.out()
    for check in health["checks"]:
        terminal.out(f"  {_MARKS[check['status']]}  {check['name']}: {check['detail']}")
        if check["fix"] and check["status"] != "ok":
            terminal.out(f"        {check['fix']}")


async def _served_by(api: Api) -> str:
    """Return which process answers."""
    if api.endpoint.opened_here:
        return "no process holds it: opened for this command"
    if api.endpoint.socket is None:
        return api.endpoint.where
    about = await api.get("/status")
    address = f", listening on {about['address']}" if about["address"] else ""
    return f"held by process {about['pid']} since {about['since']}{address}"


def _exit(health: dict[str, Any]) -> Exit:
    for check in health["checks"]:
        if check["status"] == "critical":
            return EXIT_FOR_CHECK.get(check["name"], Exit.FAILED)
    return Exit.DONE
