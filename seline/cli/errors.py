"""Exit codes and error messages: how a verb ends.

Every exception inside `exit_on_error` becomes a message, a next step and an exit code. A defect's
traceback goes to a file that the message names.
"""

import errno
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import click

from seline.cli import terminal
from seline.errors import SelineError


class Exit(IntEnum):
    """Exit codes. 141 is what a shell reports for a tool whose reader ended (`| head`)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DAMAGE = 3
    NOT_FOUND = 4
    REFUSED = 5
    FULL = 6
    LOCKED = 7
    NOT_ALLOWED = 8
    INTERRUPTED = 130
    PIPE_CLOSED = 141


EXIT_FOR: Final[Mapping[str, Exit]] = {
    "seline_error": Exit.FAILED,
    "document_error": Exit.FAILED,
    "document_not_found": Exit.NOT_FOUND,
    "backup_not_found": Exit.NOT_FOUND,
    "path_not_found": Exit.NOT_FOUND,
    "token_not_found": Exit.NOT_FOUND,
    "job_not_found": Exit.NOT_FOUND,
    "destination_not_found": Exit.NOT_FOUND,
    "copy_not_found": Exit.NOT_FOUND,
    "invalid_document_name": Exit.REFUSED,
    "not_serializable": Exit.REFUSED,
    "import_refused": Exit.REFUSED,
    "document_too_large": Exit.REFUSED,
    "revision_mismatch": Exit.REFUSED,
    "document_unrecoverable": Exit.DAMAGE,
    "document_unreadable": Exit.DAMAGE,
    "document_busy": Exit.LOCKED,
    "nested_edit": Exit.REFUSED,
    "not_an_object": Exit.REFUSED,
    "wrong_shape": Exit.REFUSED,
    "unauthorized": Exit.NOT_ALLOWED,
    "forbidden": Exit.NOT_ALLOWED,
    "too_many_requests": Exit.NOT_ALLOWED,
    "invalid_request": Exit.REFUSED,
    "request_too_large": Exit.REFUSED,
    "unsupported_coding": Exit.REFUSED,
    "unsupported_media_type": Exit.REFUSED,
    "malformed_request": Exit.REFUSED,
    "request_timed_out": Exit.FAILED,
    "expectation_failed": Exit.REFUSED,
    "route_not_found": Exit.FAILED,
    "method_not_allowed": Exit.FAILED,
    "storage_error": Exit.FAILED,
    "copy_not_encrypted": Exit.NOT_ALLOWED,
    "export_damaged": Exit.DAMAGE,
    "export_failed": Exit.FAILED,
    "key_missing": Exit.NOT_ALLOWED,
    "volume_full": Exit.FULL,
    "too_many_documents": Exit.FULL,
    "volume_busy": Exit.FAILED,
    "volume_locked": Exit.LOCKED,
    "volume_not_mounted": Exit.LOCKED,
    "restore_unfinished": Exit.LOCKED,
    "restore_pending": Exit.LOCKED,
    "volume_read_only": Exit.FAILED,
    "volume_failed": Exit.FAILED,
    "outcome_unknown": Exit.FAILED,
    "forked_store": Exit.FAILED,
    "store_closed": Exit.FAILED,
    "unsupported_format": Exit.FAILED,
    "called_in_event_loop": Exit.FAILED,
    "settings_error": Exit.USAGE,
}

EXIT_FOR_CHECK: Final[Mapping[str, Exit]] = {
    "documents": Exit.DAMAGE,
    "usage": Exit.FULL,
    "document_limit": Exit.FULL,
}
"""The exit code of `seline status` for a critical health check; every other check is FAILED."""

OF_OS: Final[Mapping[int, tuple[Exit, str]]] = {
    errno.ENOSPC: (Exit.FULL, "Free space where the file is to be written, then try again."),
    errno.EDQUOT: (Exit.FULL, "Free space where the file is to be written, then try again."),
    errno.EEXIST: (Exit.REFUSED, "Choose another name, or replace it with --force."),
}
OF_ANY_OS: Final = (Exit.FAILED, "Check the path, and that you may read and write there.")


def exit_for(code: str) -> Exit:
    """Return the exit code of an error's code; FAILED for a newer server's unknown code."""
    return EXIT_FOR.get(code, Exit.FAILED)


@contextmanager
def exit_on_error() -> Generator[None]:
    """Turn an exception of the block into a message on stderr and click's Exit."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit):
        raise
    except (KeyboardInterrupt, click.Abort):
        terminal.notice()
        terminal.report("Interrupted.", "What was confirmed is done; `seline status` shows more.")
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        _discard_stdout()
        raise click.exceptions.Exit(Exit.PIPE_CLOSED) from None
    except Exception as error:  # the border of the process
        raise click.exceptions.Exit(_report(error)) from error


def _report(error: Exception) -> Exit:
    """Report an error on stderr; return the exit code."""
    if isinstance(error, SelineError):
        terminal.report(error.message, error.hint)
        return exit_for(error.code)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        code, hint = OF_OS.get(error.errno or 0, OF_ANY_OS)
        terminal.report(f"{where}{error.strerror or error}.", hint)
        return code
    terminal.report(
        f"Seline itself has a defect: {type(error).__name__}: {error}",
        f"Report it with the command you ran and the details in {_write_traceback(error)}.",
    )
    return Exit.FAILED


def _write_traceback(error: Exception) -> str:
    """Write the traceback to a file; return its path."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="seline-error-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.writelines(traceback.format_exception(error))
    return file.name


def _discard_stdout() -> None:
    """Point stdout at the null device, so that the interpreter's last flush raises nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
