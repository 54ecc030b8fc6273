"""The verb migrate: choose the form in which a volume at rest commits."""

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import VerbOptions, local_verb, settings_of


@local_verb("migrate")
@click.option(
    "--commit-form",
    type=click.Choice(("first", "journal")),
    required=True,
    help="first: without a journal, as earlier versions of Seline commit.",
)
def migrate(options: VerbOptions, commit_form: str) -> Exit | None:
    """Have a volume opened with or without a journal from now on; no process may hold it.

    "first" writes what the journal has to the documents' files and removes the journal, so that
    an earlier Seline opens the volume, too. Later starts make no journal there, whatever the
    settings say, until "journal" ends that.

    Examples:
      seline migrate --commit-form first
      seline migrate --commit-form journal
    """
    from seline import library
    from seline.client.find_store import check_data_dir

    if options.url:
        raise click.UsageError("A volume is migrated on its own machine only: leave out --url.")
    settings, journal = settings_of(options), commit_form == "journal"
    check_data_dir(settings)
    with terminal.busy("Migrating"):
        why_not = library.migrate(settings, journal=journal)
    if options.json:
        form = "first" if why_not else commit_form
        terminal.out_json({"data_dir": settings.data_dir, "commit_form": form})
    if why_not:
        terminal.report(
            f"No journal is used on {settings.data_dir}: {why_not}.",
            "Enlarge the volume, or set a smaller `storage.journal_bytes`: a start then makes the "
            "journal.",
        )
        return Exit.FAILED
    if journal:
        terminal.notice(
            f"{settings.data_dir} has a journal. `seline migrate --commit-form first` goes back."
        )
        return None
    terminal.notice(
        f"{settings.data_dir} has no journal, and everything is in its files: an earlier Seline "
        "opens it, too. No start makes a journal there before `seline migrate --commit-form "
        "journal`."
    )
    return None
