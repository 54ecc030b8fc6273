"""Every error that Seline raises, in one tree.

`code` is the class's name in snake_case. `hint` is the next step for a person; a traceback ends
with it. The first line of a class's docstring is its default message. HTTP statuses and exit codes
are tables in `seline.http` and `seline.cli`.
"""

import re
from typing import Any, ClassVar

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class SelineError(Exception):
    """Seline could not carry out the request."""

    code: ClassVar[str] = "seline_error"
    hint: str = "Run `seline status` to see the state of the store."

    def __init__(self, message: str = "", *, hint: str | None = None, **details: Any) -> None:
        """Store the message, the hint and `details` (plain JSON values, shown over HTTP).

        `message` defaults to the first line of the class's docstring, `hint` to the class's hint,
        in which NAME stands for the detail `document` or `destination`.
        """
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.details = details
        name = details.get("document") or details.get("destination")
        self.hint = self.hint.replace("NAME", name or "NAME")
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)
        self.add_note(f"Next: {self.hint}")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = _WORD_STARTS.sub("_", cls.__name__).lower()


class DocumentError(SelineError):
    """A document could not be read or changed."""


class DocumentNotFound(DocumentError):
    """There is no document of this name."""

    hint = "`seline documents` lists the names; `seline restore NAME` brings back a deleted one."


class BackupNotFound(DocumentError):
    """There is no sound backup of this document."""

    hint = "`seline backups NAME` lists what is kept, and why each can or cannot be used."


class PathNotFound(DocumentError):
    """There is no value at this path; nothing was changed."""

    hint = "`seline diff NAME` shows the paths at which the newest backup differs."


class InvalidDocumentName(DocumentError):
    """This is not a valid document name."""

    hint = (
        "Use letters, digits, `_`, `.`, `-`, a letter or digit first, at most 100 characters, "
        "ending in `.json`."
    )


class NotSerializable(DocumentError):
    """The value contains something that JSON cannot represent; nothing was written."""

    hint = "Convert the value at the path named, then save again."


class ImportRefused(DocumentError):
    """The import is not valid; nothing was changed."""

    hint = "Correct what is named, then import again; `--dry-run` shows the outcome first."


class DocumentTooLarge(DocumentError):
    """The document is larger than `storage.document_bytes_max`; nothing was written."""

    hint = "Split it into several documents, or raise `storage.document_bytes_max`."


class RevisionMismatch(DocumentError):
    """The document has changed since the revision you named; nothing was written."""

    hint = "Read it again, apply your change to what is there now, and save with that revision."


class DocumentUnrecoverable(DocumentError):
    """The document is broken and no sound backup of it exists."""

    hint = (
        "Bring it back with `seline import EXPORT --only NAME`, or give it up with "
        "`seline reset NAME`: nothing was overwritten, and its bytes go to quarantine."
    )


class DocumentUnreadable(DocumentError):
    """The document exists, but it cannot be read from the disk; nothing was changed."""

    hint = "Check the file's owner and kind, and the disk's log; then read it again."


class DocumentBusy(DocumentError):
    """Another edit or transaction has held the document for too long; nothing was written."""

    hint = "Keep `edit` and `transaction` blocks short; try again."


class NestedEdit(DocumentError):
    """This task already holds the document, so changing it here would wait for itself."""

    hint = "Change the value that the `edit` or `transaction` block gave you."


class NotAnObject(DocumentError):
    """The document is not a JSON object, so it has no fields."""

    hint = "Use `edit` or `save_json` for lists and plain values."


class WrongShape(DocumentError):
    """The document's value is not of the type that was asked for."""

    hint = "Load it without `type` to see what it holds, then correct the type or the document."


class Unauthorized(SelineError):
    """A valid token is needed."""

    hint = (
        "Send a valid token (the command line sends SELINE_TOKEN, else SELINE_ADMIN_TOKEN); "
        "`seline token create` on the server's machine makes one."
    )


class TokenNotFound(SelineError):
    """There is no token with this id."""

    hint = "`seline token list` shows the tokens."


class Forbidden(SelineError):
    """This token or origin may not do that."""

    hint = "Use a token with scope `admin`; `seline token create --scope admin` makes one."


class TooManyRequests(SelineError):
    """Too many failed attempts; wait before the next one."""

    hint = "Wait a minute, then try again; a valid token is accepted at any time."


class InvalidRequest(SelineError):
    """A field, parameter or header of the request is wrong; nothing was changed."""

    hint = "Correct what is named, then try again."


class RequestTooLarge(SelineError):
    """The request's body is larger than this route takes; nothing was changed."""

    hint = "Split it into several documents, or raise `storage.document_bytes_max`."


class UnsupportedCoding(SelineError):
    """The request's body has a content coding, which is not supported; nothing was changed."""

    hint = "Send the body as it is, without `Content-Encoding`."


class UnsupportedMediaType(SelineError):
    """The body has another type than this route takes; nothing was changed."""

    hint = "Send `Content-Type: application/merge-patch+json`."


class MalformedRequest(SelineError):
    """The request is not valid HTTP; nothing was changed."""

    hint = "Send HTTP/1.1 with a head of at most 8190 bytes a line, as any HTTP client does."


class RequestTimedOut(SelineError):
    """The request arrived too slowly; nothing was changed."""

    hint = "Send it again over a faster connection."


class ExpectationFailed(SelineError):
    """The request's `Expect` asks for something that is not supported; nothing was changed."""

    hint = "Send it without `Expect`, or with `Expect: 100-continue`."


class RouteNotFound(SelineError):
    """There is no such address."""

    hint = "Check the address, and that the server is not an older Seline."


class MethodNotAllowed(SelineError):
    """This address does not take that method."""

    hint = "Check the address, and that the server is not an older Seline."


class StorageError(SelineError):
    """The volume could not be used."""


class VolumeFull(StorageError):
    """The volume has no room for this change; nothing was written."""

    hint = (
        "`seline status` lists what frees space now, such as `seline delete NAME --purge`; or "
        "enlarge the volume."
    )


class TooManyDocuments(StorageError):
    """There are as many documents as `storage.documents_max` allows; nothing was written."""

    hint = "Delete one with `seline delete NAME`, or raise `storage.documents_max` and restart."


class VolumeBusy(StorageError):
    """Too many changes are waiting for the disk; this one was refused."""

    hint = "Try again in a moment; if it stays so, the disk is too slow for the load."


class VolumeLocked(StorageError):
    """Another process holds this data directory."""

    hint = (
        "Stop that process (Ctrl-C where it runs) and try again; until then `seline status` and "
        "the other commands reach its documents through it."
    )


class VolumeNotMounted(StorageError):
    """The data directory is not on a mounted volume; what is written here would be lost."""

    hint = (
        "Attach the volume, or set `storage.require_mount = false` "
        "(`SELINE_STORAGE__REQUIRE_MOUNT=false`) if this is intended."
    )


class VolumeReadOnly(StorageError):
    """The volume is read-only; nothing was written."""

    hint = "Reads and exports still work; writes resume by themselves once it is writable."


class VolumeFailed(StorageError):
    """The disk reported an error; this change was not made."""

    hint = "Seline reopens the volume by itself; check the disk, and take an export now."


class OutcomeUnknown(StorageError):
    """The disk failed at the last step: the change may or may not be there."""

    hint = "Read the document again: the next read shows which content is current."


class RestoreUnfinished(StorageError):
    """A restore onto this volume was interrupted; nothing is served before it is completed."""

    hint = (
        "Start `seline serve` while a destination has a whole copy and `exports.restore_from` is "
        "not `off`, or complete it with the folder of an export: `seline import EXPORT`. To begin "
        "empty instead, move everything in the data directory away."
    )


class RestorePending(StorageError):
    """The volume is empty, and the copy that a start restores could not be taken yet."""

    hint = "`seline status` shows what the restore waits for, and how to begin empty instead."


class ForkedStore(StorageError):
    """This store was opened before a fork; only the parent process may use it."""

    hint = "Open the store in the child after the fork, never before it."


class JobNotFound(SelineError):
    """There is no job of this name."""

    hint = "`seline jobs` lists the jobs."


class DestinationNotFound(SelineError):
    """There is no destination of this name."""

    hint = "`seline destinations` lists the destinations."


class ExportFailed(SelineError):
    """A destination did not store the export, or did not return it as it was written."""

    hint = "Check the destination's space, rights and address, then export again."


class ExportDamaged(SelineError):
    """The export is incomplete or damaged; nothing was changed."""

    hint = "Take another export; each is checked by the digests in its manifest.json."


class CopyNotEncrypted(ExportDamaged):
    """The copy is not encrypted, and encryption is set; nothing was changed."""

    hint = (
        "If it is yours, of the time before encryption, take it with `--unencrypted` (over HTTP "
        "`unencrypted=true`)."
    )


class CopyNotFound(SelineError):
    """The destination has no copy that can be restored."""

    hint = "`seline exports list NAME` shows what the destination has."


class KeyMissing(SelineError):
    """This copy is encrypted, and the key for it is not here; nothing was changed."""

    hint = (
        "Give the file with the identity: `--identity key.txt`; or set `exports.passphrase` to the "
        "passphrase that it was made with."
    )


class StoreClosed(StorageError):
    """The store is closed, or was never opened."""

    hint = "Open it again with `open_seline`, and keep it open while your bot runs."


class UnsupportedFormat(StorageError):
    """The volume was written by a newer Seline; nothing was touched."""

    hint = "Upgrade Seline to the version that wrote it, or newer."


class CalledInEventLoop(SelineError):
    """`seline.blocking` was called inside a running event loop, which it would block."""

    hint = "Use the awaited names from `seline` there."


class SettingsError(SelineError):
    """A setting is wrong; nothing was started."""

    hint = "`seline config show --origin` shows every setting and where it comes from."
