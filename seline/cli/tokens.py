"""The verbs token create, list, revoke. They work only on the data directory's machine."""

from typing import Final

import click

from seline.cli import terminal
from seline.cli.verbs import (
    Api,
    VerbOptions,
    WholeNumber,
    api_verb,
    carry_out,
    front,
    preview_options,
)

EXPIRY_DAYS_MAX: Final = 36_500


@front.group("token")
def token() -> None:
    """Create, list and revoke the tokens of the admin API.

    Only on the data directory's machine, with or without a running server.
    """


@api_verb("create", group=token, create=True)
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
    help="Days until it expires (else never).",
)
async def create(
    api: Api, options: VerbOptions, scope: str, label: str, expires_days: int | None
) -> None:
    """Create a token and print it once: the store keeps only its hash.

    Examples:
      seline token create
      seline token create --scope read --label dashboard --expires-days 90
      TOKEN=$(seline token create)
    """
    body: dict[str, str] = {"scope": scope, "label": label}
    if expires_days is not None:
        body["expires_at"] = _in_days(expires_days)
    created = await api.request("POST", "/tokens", body=body)
    if options.json:
        terminal.out_json(created)
    else:
        terminal.out(created["token"])
    terminal.notice(
        f"Token {created['id']} (scope {created['scope']}). Keep it now: it is not shown again."
    )
    terminal.notice("Send it as `Authorization: Bearer …`, or set SELINE_TOKEN for `seline --url`.")
    terminal.notice_undo(created)


@api_verb("list", group=token)
async def list_tokens(api: Api, options: VerbOptions) -> None:
    """List the tokens, without their secrets, and when each was last used.

    Examples:
      seline token list
      seline token list --json
    """
    listed = await api.get("/tokens")
    rows = [
        (
            token["id"],
            token["scope"],
            token["created_at"],
            token["expires_at"] or "never",
            token["used_at"] or "never",
            token["label"],
        )
        for token in listed["tokens"]
    ]
    terminal.out_list(
        listed,
        ("ID", "SCOPE", "CREATED", "EXPIRES", "LAST USE", "LABEL"),
        rows,
        as_json=options.json,
        empty="There is no token yet. Next: `seline token create`.",
    )


@api_verb("revoke", group=token)
@click.argument("identifier", metavar="ID")
@preview_options
async def revoke(api: Api, options: VerbOptions, identifier: str) -> None:
    """Revoke a token: the server refuses it from then on.

    Examples:
      seline token revoke 1a2b3c4d
      seline token revoke 1a2b3c4d --yes
    """
    plan = f"Token {identifier} would be revoked: the server would refuse every request with it."
    done = await carry_out(
        api,
        options,
        lambda query: api.request("DELETE", "/tokens/{}", identifier, query=query),
        lambda _preview: plan,
    )
    if done is not None:
        terminal.notice(f"Token {identifier} is revoked.")


def _in_days(days: int) -> str:
    from datetime import timedelta

    from seline.clock import Clock, instant_text

    return instant_text(Clock().now() + timedelta(days=days))
