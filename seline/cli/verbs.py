"""How a verb is made: its place in `--help`, the options every verb takes, and its way out.

`@api_verb` gives an async function the admin API, however it is reached; `@own_verb` runs a plain
one. Nothing heavy is imported before a verb runs, so that `seline --help` is quick.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.problem import Problem, Stopped, way_out

if TYPE_CHECKING:
    from seline.cli.client import Api

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """What was asked for besides the verb: where the store is, and how to answer."""

    data_dir: str | None = None
    config: str | None = None
    url: str | None = None
    json: bool = False


class WholeNumber(click.IntRange):
    """A whole number within bounds, both included; what is none is refused with the bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number from {self.min} to {self.max}.", param, ctx)


Decorator: TypeAlias = Callable[[Callable[P, Any]], Callable[P, Any]]
SECTIONS: Final = ("Server", "Documents", "Backups", "Damage", "Everything at once", "Commands")
_SECTION: Final = "seline_section"
_SHORT_HELP_CHARACTERS_MAX: Final = 90


class Verbs(click.Group):
    """The verbs, shown by section, in each in the order in which they were made."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; name the nearest one where it is mistyped."""
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no verb {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        for section in SECTIONS:
            rows = [
                (name, command.get_short_help_str(_SHORT_HELP_CHARACTERS_MAX))
                for name, command in self.commands.items()
                if getattr(command, _SECTION, "Commands") == section
            ]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that stand before or after the verb."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name:
        ctx.ensure_object(dict)[parameter.name] = value


def _option(*names: str, **attributes: Any) -> Callable[..., Any]:
    return click.option(*names, expose_value=False, callback=_remember, **attributes)


_OPTIONS: Final = (
    _option("--data-dir", metavar="DIR", help="The data directory (else SELINE_DATA_DIR, …)."),
    _option(
        "--url", metavar="URL", help="A server elsewhere (else SELINE_URL), with SELINE_TOKEN."
    ),
    _option("--config", metavar="FILE", help="The settings file (else ./config/seline.toml)."),
    _option("--json", is_flag=True, help="Answer in JSON, the same objects as over HTTP."),
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")


def api_verb(
    group: click.Group, name: str, *, section: str = "Commands", examples: str, makes: bool = False
) -> Callable[[Callable[Concatenate[Api, P], Coroutine[Any, Any, Exit | None]]], Callable[P, None]]:
    """Make a verb of an async function that speaks to the admin API.

    `makes` allows the verb to make the data directory where there is none yet.
    """

    def decorate(
        work: Callable[Concatenate[Api, P], Coroutine[Any, Any, Exit | None]],
    ) -> Callable[P, None]:
        def run(options: GlobalOptions, /, *args: P.args, **kwargs: P.kwargs) -> Exit | None:
            return with_api(options, lambda api: work(api, *args, **kwargs), makes=makes)

        functools.update_wrapper(run, work)
        return own_verb(group, name, section=section, examples=examples)(run)

    return decorate


def own_verb(
    group: click.Group, name: str, *, section: str = "Commands", examples: str
) -> Callable[[Callable[Concatenate[GlobalOptions, P], Exit | None]], Callable[P, None]]:
    """Make a verb of a function; what it returns is the exit code, None is done."""

    def decorate(work: Callable[Concatenate[GlobalOptions, P], Exit | None]) -> Callable[P, None]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            given: dict[str, Any] = click.get_current_context().obj or {}
            options = GlobalOptions(**given)
            with way_out():
                code = work(options, *args, **kwargs)
                if code:
                    raise Stopped(code)

        command = group.command(name, epilog=_examples(examples))(with_options(run))
        setattr(command, _SECTION, section)
        return run

    return decorate


def with_api(
    options: GlobalOptions,
    work: Callable[[Api], Coroutine[Any, Any, Exit | None]],
    *,
    makes: bool = False,
) -> Exit | None:
    """Reach the admin API, wherever it is, and do one verb's work with it."""
    from seline.cli.reach import reached

    async def reach_and_work() -> Exit | None:
        async with reached(options, makes=makes) as api:
            return await work(api)

    return run_to_its_end(reach_and_work())


def run_to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Run async work; Ctrl-C ends it at once, also while it waits for a person."""
    import asyncio
    import signal

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        return asyncio.run(work)
    finally:
        signal.signal(signal.SIGINT, before)


def in_section(group: click.Group, section: str) -> None:
    """Put a group of verbs under a heading of the front page."""
    setattr(group, _SECTION, section)


def _examples(text: str) -> str:
    """Return an epilog that click leaves as it is."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


async def agreed(what: str, *, dry_run: bool, yes: bool) -> bool:
    """Show what will be done and have it confirmed; False where it was only to be shown.

    Without a terminal nobody can be asked: `--yes` is needed, else this is wrong usage.
    """
    terminal.say(what)
    if dry_run:
        terminal.say("Nothing was changed (--dry-run).")
        return False
    if yes:
        return True
    if not terminal.on_a_terminal():
        raise Problem(
            "There is no terminal to ask on, so nothing was changed.",
            "Run the same command with --yes to do it, or with --dry-run to look first.",
            exit=Exit.USAGE,
        )
    if not await terminal.ask("Go ahead?"):
        terminal.say("Nothing was changed.")
        raise Stopped(Exit.FAILED)
    return True
