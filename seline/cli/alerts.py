"""The verb alerts: list the alerts and their sinks, or send a test alert."""

from typing import Any

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb


@api_verb("alerts")
@click.argument("action", required=False, type=click.Choice(["test"]))
async def alerts(api: Api, options: VerbOptions, action: str | None) -> Exit:
    """List the alerts and the sinks that receive them; `test` sends a test alert to every sink.

    `alerts.sinks` sets the sinks. A test exits 1 if a sink did not receive it.

    Examples:
      seline alerts
      seline alerts test
      seline alerts --json
    """
    listed, done = await api.get("/alerts"), Exit.DONE
    if action == "test":
        done = await _test(api, options)
    elif options.json:
        terminal.out_json(listed)
    else:
        _show(listed)
    if not (options.json or listed["sending"]):
        from seline.domain.report import nothing_runs

        terminal.report(*nothing_runs(is_held=not api.endpoint.opened_here)[1:])
    return done


async def _test(api: Api, options: VerbOptions) -> Exit:
    with terminal.busy("Sending the test alert"):
        tested = await api.request("POST", "/alerts/test")
    deliveries: list[dict[str, Any]] = tested["deliveries"]
    if options.json:
        terminal.out_json(tested)
    else:
        rows = [
            (
                delivery["sink"],
                delivery["kind"],
                "delivered" if delivery["delivered"] else "failed",
                delivery["detail"] or f"{delivery['took_ms']:.0f} ms",
            )
            for delivery in deliveries
        ]
        terminal.out_table(("SINK", "KIND", "TEST", "DETAIL"), rows)
    if [delivery["kind"] for delivery in deliveries] == ["log"]:
        terminal.notice("Only the log receives alerts. Set alerts.sinks, so that a person does.")
    return Exit.DONE if all(delivery["delivered"] for delivery in deliveries) else Exit.FAILED


def _show(listed: dict[str, Any]) -> None:
    for alert in listed["alerts"]:
        times = f", {alert['count']} times" if alert["count"] > 1 else ""
        terminal.out(
            f"{alert['state']} {alert['severity']} {alert['type']} {alert['last_at']}{times}"
        )
        terminal.out(f"    {alert['summary']}")
        if alert["fix"]:
            terminal.out(f"    Next: {alert['fix']}")
    if not listed["alerts"]:
        terminal.notice("There are no alerts.")
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
    terminal.out_table(("SINK", "KIND", "FROM SEVERITY", "WAITING", "LAST"), rows)
