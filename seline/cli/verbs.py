"""Define verbs: `seline --help`, options of every verb, errors and exit codes.

`@api_verb` gives an async function the admin API; `@local_verb` runs a function without it. Modules
that import slowly are imported inside a verb, so that `seline --help` is quick.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import click

from seline.cli import terminal
from seline.cli.errors import Exit, exit_on_error

if TYPE_CHECKING:
    from seline import client
    from seline.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Server": ("audit", "bench", "config", "migrate", "serve", "status", "token"),
    "Documents": ("save", "load", "documents", "delete"),
    "Backups": ("backups", "diff", "pin", "unpin", "restore", "prune"),
    "Damage": ("verify", "quarantine", "reset", "demo"),
    "Everything at once": ("alerts", "export", "import", "jobs"),
    "Copies elsewhere": ("destinations", "drill", "exports", "key"),
}
"""The verbs of each section of `seline --help`."""

_EPILOG: Final = """\b
First steps:
  seline serve                        run the server on ./data
  seline save profile.json FILE       store a document (or pipe it in)
  seline status                       show the health
  seline demo                         watch a flipped bit being found and recovered

\b
The store is, in this order: the server at --url or SELINE_URL (with SELINE_TOKEN); the process that
holds the data directory; the data directory itself, if no process holds it.

\b
Exit codes: 0 done, 1 failed, 2 usage or settings, 3 damage found, 4 not found, 5 refused, 6 full,
7 locked or not mounted, 8 not allowed, 130 interrupted.

\b
Completion in your shell:
  bash: eval "$(_SELINE_COMPLETE=bash_source seline)"
  zsh:  eval "$(_SELINE_COMPLETE=zsh_source seline)"
  fish: _SELINE_COMPLETE=fish_source seline | source
"""
_EXAMPLES: Final = "\n\nExamples:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbOptions:
    """The options of every verb, and those of a change."""

    data_dir: str | None = None
    config: str | None = None
    url: str | None = None
    json: bool = False
    dry_run: bool = False
    yes: bool = False


Api: TypeAlias = "client.Api"
ApiVerb: TypeAlias = Callable[Concatenate[Api, VerbOptions, P], Coroutine[Any, Any, Exit | None]]
LocalVerb: TypeAlias = Callable[Concatenate[VerbOptions, P], Exit | None]


class WholeNumber(click.IntRange):
    """A whole number within bounds, both included; its error names the bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number from {self.min} to {self.max}.", param, ctx)


class Verbs(click.Group):
    """A group that suggests the nearest verb; the front page lists the verbs by section."""

    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; suggest the nearest one for a mistyped name."""
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, n=1)
            suggestion = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no verb {args[0]!r}.{suggestion}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = SECTIONS if ctx.parent is None else {"Commands": tuple(self.commands)}
        for section, names in sections.items():
            rows = [(name, self.commands[name].get_short_help_str(limit=90)) for name in names]
            with formatter.section(section):
                formatter.write_dl(rows)


def _store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name:
        ctx.ensure_object(dict)[parameter.name] = value


def _option(*names: str, **attributes: Any) -> Callable[..., Any]:
    return click.option(*names, expose_value=False, callback=_store, **attributes)


def with_options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that adds options to a verb."""

    def decorate(command: Callable[..., Any]) -> Any:
        return functools.reduce(lambda made, option: option(made), reversed(options), command)

    return decorate


global_options = with_options(
    _option("--data-dir", metavar="DIR", help="The data directory (else SELINE_DATA_DIR, …)."),
    _option(
        "--url",
        metavar="URL",
        help="Another machine's server (else SELINE_URL), with SELINE_TOKEN.",
    ),
    _option("--config", metavar="FILE", help="The settings file (else ./config/seline.toml)."),
    _option("--json", is_flag=True, help="Print JSON, the same objects as over HTTP."),
)
"""Add the options of every verb, which may come before or after its name."""

preview_options = with_options(
    _option("--dry-run", is_flag=True, help="Only show what would be done."),
    _option("--yes", "-y", is_flag=True, help="Do it without asking."),
)
"""Add the options of a change that `carry_out` makes."""


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import seline

        click.echo(f"seline {seline.__version__}")
        ctx.exit()


@click.group(
    "seline",
    cls=Verbs,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@global_options
def front() -> None:
    """Keep a bot's JSON documents on one small volume.

    A saved document survives crashes and power cuts, a broken one is found and recovered, and you
    can see, restore and export everything.
    """


def api_verb(
    name: str, *, group: click.Group = front, create: bool = False
) -> Callable[[ApiVerb[P]], Callable[P, None]]:
    """Make a verb of an async function that calls the admin API.

    `create` allows the verb to create the data directory.
    """

    def decorate(work: ApiVerb[P]) -> Callable[P, None]:
        def run(options: VerbOptions, /, *args: P.args, **kwargs: P.kwargs) -> Exit | None:
            return with_api(options, lambda api: work(api, options, *args, **kwargs), create=create)

        functools.update_wrapper(run, work)
        return local_verb(name, group=group)(run)

    return decorate


def local_verb(
    name: str, *, group: click.Group = front
) -> Callable[[LocalVerb[P]], Callable[P, None]]:
    """Make a verb of a function that returns the exit code, or None for success.

    Its docstring is the help; the lines after `Examples:` come last.
    """

    def decorate(work: LocalVerb[P]) -> Callable[P, None]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            given: dict[str, Any] = click.get_current_context().obj or {}
            options = VerbOptions(**given)
            with exit_on_error():
                code = work(options, *args, **kwargs)
            if code:
                raise click.exceptions.Exit(code)

        text, _, examples = (inspect.getdoc(work) or "").partition(_EXAMPLES)
        group.command(name, help=text, epilog=f"\b{_EXAMPLES[1:]}{examples}")(global_options(run))
        return run

    return decorate


@functools.cache
def settings_of(options: VerbOptions, **arguments: object) -> "Settings":
    """Return the settings under the command's options and `arguments`. Raises SettingsError."""
    from seline.settings import load_settings

    given = {"storage.data_dir": options.data_dir, **arguments}
    settings = load_settings(config=options.config, arguments=given)
    for warning in settings.warnings:
        terminal.warn(warning)
    return settings


@asynccontextmanager
async def connected(
    options: VerbOptions, *, create: bool = False, scratch: str = ""
) -> AsyncGenerator[Api]:
    """Give the admin API of the store that the options name, or of a new one in `scratch`.

    `create` allows a new data directory. No copy is restored onto an empty one. Raises what
    `seline.client.connect` raises.
    """
    from dataclasses import replace

    from seline.client import connect

    settings, url = settings_of(options), url_of(options)
    if scratch:
        settings, url = replace(settings, data_dir=scratch, mount_required=False), None
    terminal.show_log()
    async with connect(settings, url=url, create=create, notify=terminal.warn) as api:
        yield api


def url_of(options: VerbOptions) -> str | None:
    """Return the address of the server that the options name, None for a data directory."""
    if options.url and options.data_dir:
        raise click.UsageError("--url and --data-dir name two places: give one.")
    return options.url or (None if options.data_dir else settings_of(options).url)


def with_api(
    options: VerbOptions,
    work: Callable[[Api], Coroutine[Any, Any, T]],
    *,
    create: bool = False,
    scratch: str = "",
) -> T:
    """Connect to the admin API as `connected` does, and run one verb's work with it."""

    async def connect_and_work() -> T:
        async with connected(options, create=create, scratch=scratch) as api:
            return await work(api)

    return run_async(connect_and_work())


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; Ctrl-C cancels it and raises KeyboardInterrupt."""
    import asyncio

    return asyncio.run(work)


async def carry_out(
    api: Api,
    options: VerbOptions,
    send: Callable[[dict[str, str]], Awaitable[Any]],
    show: Callable[[dict[str, Any]], str],
    *,
    agreed: bool = False,
) -> Any | None:
    """Preview a change, ask unless it is `agreed`, and make it.

    `send` takes the query parameters of the request. `show` takes the preview and returns the plan
    in words, empty if there is nothing to do. Return what was done; None after a dry run, or with
    nothing to do.
    """
    if not agreed and not await agrees(api, options, send, show):
        return None
    with terminal.busy("Working"):
        done = await send({})
    if options.json:
        terminal.out_json(done)
    return done


def agrees_in_scratch(
    options: VerbOptions,
    send: Callable[[Api, dict[str, str]], Awaitable[Any]],
    show: Callable[[dict[str, Any]], str],
) -> bool:
    """Preview a change of a new store in a scratch one, so it makes none; return as `agrees`."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="seline-preview-") as scratch:
        return with_api(
            options,
            lambda api: agrees(api, options, functools.partial(send, api), show),
            create=True,
            scratch=scratch,
        )


def would_make_store(options: VerbOptions) -> bool:
    """Whether opening the data directory that the options name makes a store there."""
    from seline.client import is_new_store

    return url_of(options) is None and is_new_store(settings_of(options))


async def agrees(
    api: Api,
    options: VerbOptions,
    send: Callable[[dict[str, str]], Awaitable[Any]],
    show: Callable[[dict[str, Any]], str],
) -> bool:
    """Preview a change as `carry_out` does, and ask; return whether to make it.

    A store that this command opened is released for the question. If the change is another one
    afterwards, it asks again.
    """
    agreed_to: object = None
    while True:
        with terminal.busy("Checking"):
            preview = await send({"dry_run": "true"})
        if preview == agreed_to:
            return True
        if agreed_to is not None:
            terminal.notice("The store was changed meanwhile. Now:")
        plan = show(preview)
        if plan:
            terminal.notice(plan)
        if not plan or options.dry_run:
            _report_unchanged(options, preview)
            return False
        if options.yes:
            return True
        async with api.released():
            _confirm()
        agreed_to = preview


def _report_unchanged(options: VerbOptions, preview: dict[str, Any]) -> None:
    terminal.notice(
        "Nothing was changed (--dry-run)." if options.dry_run else "Nothing was changed."
    )
    if options.json:
        terminal.out_json(preview | {"dry_run": options.dry_run})


def _confirm() -> None:
    """Ask whether to go ahead; exit 1 for no, 2 without a terminal."""
    if not terminal.is_interactive():
        terminal.report(
            "There is no terminal to ask on, so nothing was changed.",
            "Run the same command with --yes to do it, or with --dry-run to look first.",
        )
        raise click.exceptions.Exit(Exit.USAGE)
    if not terminal.ask("Go ahead?"):
        terminal.notice("Nothing was changed.")
        raise click.exceptions.Exit(Exit.FAILED)
