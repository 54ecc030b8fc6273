"""The failures that every remote destination has: what happened, and the next step.

`doing` begins each message, such as "Writing a/b" or "Listing".
"""

from seline.errors import ExportFailed
from seline.ports.destinations import ObjectForbidden, ObjectMissing, ObjectStore, ObjectTooLarge


def absent(store: ObjectStore, key: str) -> ObjectMissing:
    """An object does not exist."""
    return ObjectMissing(f"{store.where} has no {key}.")


def too_large(store: ObjectStore, key: str, bytes_max: int) -> ObjectTooLarge:
    """An object has more than `bytes_max` bytes."""
    return ObjectTooLarge(
        f"{key} at {store.where} is larger than the {bytes_max:,} bytes that it may have: another "
        "program has stored it.",
        hint=f"Move {key} away there. Then `seline exports list {store.name}` shows the copies "
        "that are left.",
    )


def timed_out(store: ObjectStore, doing: str, timeout_s: float) -> ExportFailed:
    """A call took longer than `timeout_s`."""
    return ExportFailed(
        f"{doing} at {store.where} took over {timeout_s:g} s.",
        hint="Check that the server answers; if it is only slow, raise `timeout_s` of "
        f"{store.name} in `exports.destinations`, then restart.",
    )


def unreachable(store: ObjectStore, doing: str, reason: str) -> ExportFailed:
    """No connection, or it was lost."""
    return ExportFailed(
        f"{doing} at {store.where}: {reason}.",
        hint="Check that the server runs, and that the host and the port in `url` of "
        f"{store.name} in `exports.destinations` are its own; the next run tries again.",
    )


def login_refused(store: ObjectStore, doing: str, options: str) -> ExportFailed:
    """The login is wrong; `options` are those it consists of, such as "`user` and `password`"."""
    return ExportFailed(
        f"{doing} at {store.where}: the server refuses the login.",
        hint=f"Correct {options} of {store.name} in `exports.destinations`, then restart.",
    )


def forbidden(store: ObjectStore, doing: str) -> ObjectForbidden:
    """The login is right, and lacks the rights."""
    return ObjectForbidden(
        f"{doing} at {store.where}: the server forbids it.",
        hint=f"On the server, let the user of {store.name} read and write there.",
    )


def top_missing(store: ObjectStore, doing: str) -> ExportFailed:
    """The folder of the destination does not exist."""
    return ExportFailed(
        f"{doing} at {store.where}: this folder does not exist.",
        hint=f"Run `seline destinations use {store.name}`, which makes it, or correct its `url` in "
        "`exports.destinations`, then restart.",
    )


def full(store: ObjectStore, doing: str) -> ExportFailed:
    """No space is left, or no quota."""
    return ExportFailed(
        f"{doing} at {store.where}: it is full.",
        hint=f"Free space there, or lower `keep` of {store.name} in `exports.destinations`; the "
        "next run tries again.",
    )


def too_short(store: ObjectStore, key: str, stored: int | None, size_bytes: int) -> ExportFailed:
    """Fewer bytes are stored than were sent."""
    return ExportFailed(
        f"{store.where} has {stored or 0} of the {size_bytes} bytes of {key}, which was not put "
        "in place."
    )
