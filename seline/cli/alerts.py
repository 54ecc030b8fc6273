"""The verb alerts: what there is to hear of, and a test of everyone who should hear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.verbs import api_verb

if TYPE_CHECKING:
    from seline.cli.client import Api


@api_verb(
    front,
    "alerts",
    section="Everything at once",
    examples="""
    seline alerts
    seline alerts test
    seline alerts --json
    """,
)
@click.argument("action", required=False, type=click.Choice(["test"]))
async def alerts(api: Api, action: str | None) -> Exit:
    """Show what alerts there are and who hears of them; `test` sends everyone a test alert.

    Who hears of them is set in `alerts.sinks`. A test exits 1 if one of them did not get it.
    """
    if action == "test":
        return await _test(api)
    listed = await api.get("/alerts")
    if api.options.json:
        terminal.out_json(listed)
    else:
        _show(listed)
    return Exit.DONE


async def _test(api: Api) -> Exit:
    with terminal.busy("Sending the test alert"):
        answered = (await api.request("POST", "/alerts/test")).value()
    deliveries: list[dict[str, Any]] = answered["deliveries"]
    if api.options.json:
        terminal.out_json(answered)
    else:
        rows = [
            (
                one["sink"],
                one["kind"],
                "delivered" if one["delivered"] else "failed",
                one["detail"] or f"{one['took_ms']:.0f} ms",
            )
            for one in deliveries
        ]
        terminal.out_table(("SINK", "KIND", "TEST", "DETAIL"), rows)
    if [one["kind"] for one in deliveries] == ["log"]:
        terminal.say("Only the log hears of alerts. Set alerts.sinks, so that somebody is told.")
    return Exit.DONE if all(one["delivered"] for one in deliveries) else Exit.FAILED


def _show(listed: dict[str, Any]) -> None:
    for alert in listed["alerts"]:
        often = f", {alert['count']} times" if alert["count"] > 1 else ""
        terminal.out(
            f"{alert['state']} {alert['severity']} {alert['type']} {alert['last_at']}{often}"
        )
        terminal.out(f"    {alert['summary']}")
        if alert["fix"]:
            terminal.out(f"    Next: {alert['fix']}")
    if not listed["alerts"]:
        terminal.say("There are no alerts.")
    rows = [
        (
            sink["name"],
            sink["kind"],
            sink["min_severity"],
            str(sink["waiting"]),
            sink["detail"] or sink["delivered_at"] or "-",
        )
        for sink in listed["sinks"]
    ]
    terminal.out_table(("SINK", "KIND", "HEARS FROM", "WAITING", "LAST"), rows)
