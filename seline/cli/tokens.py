"""The verbs for tokens: token create, list, revoke. They need the data directory's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from seline.cli import terminal
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import (
    Verbs,
    WholeNumber,
    agreed,
    api_verb,
    dry_run_option,
    in_section,
    yes_option,
)
from seline.errors import TokenNotFound

if TYPE_CHECKING:
    from seline.cli.client import Api

EXPIRY_DAYS_MAX: Final = 36_500


@front.group("token", cls=Verbs)
def token() -> None:
    """Make, list and revoke the tokens that open the admin API.

    On the machine of the data directory only, beside the server or without it.
    """


in_section(token, "Server")


@api_verb(
    token,
    "create",
    makes=True,
    examples="""
    seline token create
    seline token create --scope read --label dashboard --expires-days 90
    TOKEN=$(seline token create)
    """,
)
@click.option(
    "--scope",
    type=click.Choice(["read", "admin"]),
    default="admin",
    show_default=True,
    help="What it may do.",
)
@click.option("--label", default="", metavar="TEXT", help="What it is for.")
@click.option(
    "--expires-days",
    type=WholeNumber(1, EXPIRY_DAYS_MAX),
    metavar="DAYS",
    help="After how many days it ends (else never).",
)
async def create(api: Api, scope: str, label: str, expires_days: int | None) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    body: dict[str, str] = {"scope": scope, "label": label}
    if expires_days is not None:
        body["expires_at"] = _in_days(expires_days)
    made = (await api.request("POST", "/tokens", body=body)).value()
    if api.options.json:
        terminal.out_json(made)
    else:
        terminal.out(made["token"])
    terminal.say(f"Token {made['id']} (scope {made['scope']}). Keep it now: it is not shown again.")
    terminal.say("Send it as `Authorization: Bearer …`, or set SELINE_TOKEN for `seline --url`.")


@api_verb(
    token,
    "list",
    examples="""
    seline token list
    seline token list --json
    """,
)
async def list_tokens(api: Api) -> None:
    """List the tokens; their secrets are not known to anyone but their bearers."""
    listed = await api.get("/tokens")
    if api.options.json:
        terminal.out_json(listed)
        return
    rows = [
        (one["id"], one["scope"], one["created_at"], one["expires_at"] or "never", one["label"])
        for one in listed["tokens"]
    ]
    if rows:
        terminal.out_table(("ID", "SCOPE", "MADE", "EXPIRES", "LABEL"), rows)
    else:
        terminal.say("There is no token yet. Next: `seline token create`.")


@api_verb(
    token,
    "revoke",
    examples="""
    seline token revoke 1a2b3c4d
    seline token revoke 1a2b3c4d --yes
    """,
)
@click.argument("identifier", metavar="ID")
@dry_run_option
@yes_option
async def revoke(api: Api, identifier: str, dry_run: bool, yes: bool) -> None:
    """Take a token back: it opens nothing from now on."""
    from seline.cli.client import segment

    path = f"/tokens/{segment(identifier)}"
    if identifier not in [one["id"] for one in (await api.get("/tokens"))["tokens"]]:
        raise Problem.of(TokenNotFound(f"There is no token {identifier!r}."))
    plan = f"Token {identifier} would open nothing any more; whoever uses it would be refused."
    if not await agreed(plan, dry_run=dry_run, yes=yes):
        return
    answer = (await api.request("DELETE", path)).value()
    if api.options.json:
        terminal.out_json(answer)
    terminal.say(f"Token {identifier} is revoked.")


def _in_days(days: int) -> str:
    from datetime import timedelta

    from seline.clock import SystemClock, instant_text

    return instant_text(SystemClock().now() + timedelta(days=days))
