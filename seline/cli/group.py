"""The group of all verbs, and the text of `seline --help`."""

from typing import Final

import click

from seline.cli.verbs import Verbs, with_options

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
@with_options
def front() -> None:
    """Keep a bot's JSON documents on one small volume.

    A saved document survives crashes and power cuts, a broken one is found and recovered, and you
    can see, restore and export everything.
    """
