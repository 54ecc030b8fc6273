"""Every way in which Seline can say no: one tree, each error with a code and the next step.

The class's docstring is the message's first line when none is given; `code` is the class's
name in snake_case, `hint` the next step for a person. The tables to HTTP statuses and exit
codes stand at the edges (`seline.http.problems`, `seline.cli.exits`), never here.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class SelineError(Exception):
    """Seline could not do what was asked."""

    code: ClassVar[str] = "seline_error"
    hint: str = "Run `seline status` to see the state of the store."

    def __init__(self, message: str = "", *, hint: str | None = None, **details: Any) -> None:
        """Say what happened, and carry `details` (plain JSON values) for the edges.

        `message` defaults to the class's first docstring line, `hint` to the class's hint.
        """
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.details = details
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = _WORD_STARTS.sub("_", cls.__name__).lower()


class DocumentError(SelineError):
    """Something about one document stands in the way."""


class DocumentNotFound(DocumentError):
    """There is no document of this name."""

    hint = "`seline documents` lists the names; a deleted one can be restored from its backups."


class BackupNotFound(DocumentError):
    """There is no sound backup of this document to take."""

    hint = "`seline backups NAME` lists what is kept, and why each can or cannot be used."


class InvalidDocumentName(DocumentError):
    """This is not a name that a document can have."""

    hint = "Use letters, digits, `_`, `.`, `-`, at most 100 characters, ending in `.json`."


class NotSerializable(DocumentError):
    """The value holds something that JSON cannot; nothing was written."""

    hint = "Convert the value at the path named, then save again."


class ImportRefused(DocumentError):
    """The import cannot be taken as it is; nothing was changed."""

    hint = "Mend what is named, then import again; `--dry-run` shows the outcome first."


class DocumentTooLarge(DocumentError):
    """The document is larger than `storage.document_bytes_max`; nothing was written."""

    hint = "Split it into several documents, or raise `storage.document_bytes_max`."


class RevisionMismatch(DocumentError):
    """The document has changed since the revision you named; nothing was written."""

    hint = "Read it again, apply your change to what is there now, and save with that revision."


class DocumentUnrecoverable(DocumentError):
    """The document is broken and no sound backup of it exists; nothing was overwritten."""

    hint = "Restore or import it, or give it up with `seline reset`: its bytes go to quarantine."


class DocumentUnreadable(DocumentError):
    """The disk does not let the document be read; it is neither missing nor replaced."""

    hint = "Check the file's owner and kind, and the disk's log; then read it again."


class DocumentBusy(DocumentError):
    """Another edit or transaction holds the document for too long; nothing was written."""

    hint = "Keep `edit` and `transaction` blocks short; try again."


class NestedEdit(DocumentError):
    """This task already holds the document; changing it here would wait for itself."""

    hint = "Change the value that the `edit` or `transaction` block gave you."


class NotAnObject(DocumentError):
    """The document is not a JSON object, so it has no fields."""

    hint = "Use `edit` or `save_json` for lists and plain values."


class AccessError(SelineError):
    """The caller is not let in."""


class Unauthorized(AccessError):
    """A valid token is needed."""

    hint = "Send `Authorization: Bearer …`; `seline token create` makes a token."


class TokenNotFound(AccessError):
    """There is no token with this id."""

    hint = "`seline token list` shows the tokens."


class Forbidden(AccessError):
    """This token or origin may not do that."""

    hint = "Use a token with scope `admin`; `seline token create --scope admin` makes one."


class TooManyRequests(AccessError):
    """Too many failed attempts; wait before the next one."""

    hint = "Wait as long as `Retry-After` says; a right token is let in at any time."


class RequestError(SelineError):
    """The request cannot be understood."""


class InvalidRequest(RequestError):
    """A field, parameter or header of the request is wrong; nothing was changed."""

    hint = "See the field named; `/api/v1/data-admin` in the README lists what each route takes."


class RequestTooLarge(RequestError):
    """The request's body is larger than this route takes; nothing was changed."""

    hint = "Send a smaller body, or raise `storage.document_bytes_max`."


class UnsupportedCoding(RequestError):
    """The request's body is compressed or coded, which is not undone here; nothing was changed."""

    hint = "Send the body as it is, without `Content-Encoding`."


class RouteNotFound(RequestError):
    """There is no such address."""

    hint = "The README lists the routes."


class MethodNotAllowed(RequestError):
    """This address does not take that method."""

    hint = "See the `Allow` header."


class StorageError(SelineError):
    """The volume stands in the way."""


class VolumeFull(StorageError):
    """The volume has no room for this change; nothing was written."""

    hint = "Free space with `seline prune`, delete documents, or enlarge the volume."


class VolumeBusy(StorageError):
    """Too many changes are waiting for the disk; this one was not taken."""

    hint = "Try again in a moment; if it stays so, the disk is too slow for the load."


class VolumeLocked(StorageError):
    """Another process holds this data directory."""

    hint = "Stop the other process, or let this one talk to it (`seline status` does)."


class VolumeNotMounted(StorageError):
    """The data directory does not lie on a mounted volume; writing here would be lost."""

    hint = "Attach the volume, or set `storage.require_mount = false` if this is meant."


class VolumeReadOnly(StorageError):
    """The volume is read-only; nothing was written."""

    hint = "Reads and exports still work; writes resume by themselves once it is writable."


class VolumeFailed(StorageError):
    """The disk reported an error; this change was not made."""

    hint = "Seline reopens the volume by itself; check the disk, and take an export now."


class OutcomeUnknown(StorageError):
    """The disk failed at the last step: the change may or may not be there."""

    hint = "Read the document again: the next read tells which content is current."


class ForkedStore(StorageError):
    """This store was opened before a fork; only the parent process may use it."""

    hint = "Open the store in the child after the fork, never before it."


class JobNotFound(SelineError):
    """There is no job of this name."""

    hint = "`seline jobs` lists the jobs."


class ExportFailed(SelineError):
    """A destination did not take the export, or did not give it back as it was written."""

    hint = "Check the destination's space, rights and address, then run `seline jobs run export`."


class ExportDamaged(SelineError):
    """The export is not whole; nothing was changed."""

    hint = "Take another export; each is checked by the digests in its manifest.json."


class StoreClosed(StorageError):
    """The store is closed, or was never opened."""

    hint = "Open it again with `open_seline`, and keep it open while your bot runs."


class UnsupportedFormat(StorageError):
    """The volume was written by a newer Seline; nothing was touched."""

    hint = "Upgrade Seline to the version that wrote it, or newer."


class CalledInEventLoop(SelineError):
    """`seline.blocking` was called inside a running event loop, which it would stop."""

    hint = "Use the awaited names from `seline` there."


class SettingsError(SelineError):
    """A setting is wrong; nothing was started."""

    hint = "`seline config show --origin` shows every setting and where it comes from."
