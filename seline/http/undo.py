"""The `undo` of an answer: requests, and commands, that take back what the call has done."""

from collections.abc import Mapping
from typing import assert_never

from seline.domain.undo import DeleteAgain, PinAgain, RestoreBack, RevokeAgain, Undo, UnpinAgain
from seline.http import PREFIX
from seline.http.answers import UndoStep
from seline.manager.call_record import current_record
from seline.program import typed
from seline.quoting import quoted


def undo_steps() -> list[UndoStep]:
    """Return what takes back the call that is answered, in order; empty if nothing can.

    A step about a document is refused if the document has changed since.
    """
    record = current_record()
    return [] if record is None else [_step(undo) for undo in record.undo()]


def _step(undo: Undo) -> UndoStep:
    match undo:
        case RestoreBack(document, backup, revision):
            return _request(
                "POST",
                "/restore-backup",
                f"seline restore {document} {quoted(backup)} --yes",
                {"filename": document, "backup": backup},
                {"If-None-Match": "*"} if revision is None else {"If-Match": f'"{revision}"'},
            )
        case DeleteAgain(document, revision):
            headers = {"If-Match": f'"{revision}"'}
            command = f"seline delete {document} --yes"
            return _request("DELETE", f"/documents/{document}", command, None, headers)
        case PinAgain(document, backup, because):
            command = f"seline pin {document} {quoted(backup)} --because {quoted(because)}"
            return _request("PUT", _pin(document, backup), command, {"because": because})
        case UnpinAgain(document, backup):
            command = f"seline unpin {document} {quoted(backup)}"
            return _request("DELETE", _pin(document, backup), command)
        case RevokeAgain(token):
            return _request("DELETE", f"/tokens/{token}", f"seline token revoke {token} --yes")
        case _:
            assert_never(undo)


def _pin(document: str, backup: str) -> str:
    return f"/documents/{document}/backups/{backup}/pin"


def _request(
    method: str,
    path: str,
    command: str,
    body: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> UndoStep:
    return UndoStep(
        method=method, path=PREFIX + path, headers=headers or {}, body=body, command=typed(command)
    )
