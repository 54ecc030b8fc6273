"""The verb config show: print each setting with its value and origin; secrets are masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from seline.cli import terminal
from seline.cli.group import front
from seline.cli.verbs import GlobalOptions, Verbs, in_section, local_verb, settings_of

if TYPE_CHECKING:
    from seline.settings import Settings


@front.group("config", cls=Verbs)
def config() -> None:
    """Show the settings."""


in_section(config, "Server")


@local_verb(
    config,
    "show",
    examples="""
    seline config show
    seline config show --origin
    seline config show --json | jq '."storage.data_dir"'
    """,
)
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
def show(options: GlobalOptions, origin: bool) -> None:
    """Print every setting as this command would use it; secrets are masked."""
    settings = settings_of(options)
    if options.json:
        terminal.out_json(_as_json(settings, origin=origin))
    else:
        _show(settings, origin=origin)
    for warning in settings.warnings:
        terminal.warn(warning)


def _show(settings: Settings, *, origin: bool) -> None:
    heads = ("SETTING", "VALUE", "FROM")
    rows = [
        (name, _text(value), settings.origins[name]) for name, value in _values(settings).items()
    ]
    columns = 3 if origin else 2
    terminal.out_table(heads[:columns], [row[:columns] for row in rows])


def _as_json(settings: Settings, *, origin: bool) -> dict[str, Any]:
    values = _values(settings)
    if not origin:
        return values
    return {
        name: {"value": value, "origin": settings.origins[name]} for name, value in values.items()
    }


def _values(settings: Settings) -> dict[str, Any]:
    """Return the settings by name; those without a fixed default show the value in use."""
    from seline.settings import setting_names, shown

    values = {name: shown(settings, name) for name in setting_names()}
    host, port = settings.bind
    return values | {
        "storage.data_dir": settings.data_dir,
        "server.host": host or "all addresses",
        "server.port": port,
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"  # pyright: ignore[reportUnknownArgumentType]
    return str(value)
