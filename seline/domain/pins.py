"""Pins: backups that rotation keeps, pinned by a person or by the blank-save guard (V11).

A pin names a document and a revision, not a file: it is written in the same commit as the blank
save, before the backup has a file name.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from seline.domain.document import Revision
from seline.domain.stored import Stored

BY_HAND: Final = "by hand"
BLANK: Final = "before a blank save"
REMOVED: Final = "another program removed the file"
LOST: Final = "the pins were lost"


class Pin(Stored, frozen=True, kw_only=True):
    """One pinned content; `until` None keeps it until it is unpinned."""

    document: str
    revision: Revision
    because: str = ""
    pinned_at: datetime
    until: datetime | None = None


def current(pins: Iterable[Pin], now: datetime) -> tuple[Pin, ...]:
    """Return the pins that have not expired."""
    return tuple(pin for pin in pins if pin.until is None or pin.until > now)


def guard_pin(
    document: str, revision: Revision, reason: str, now: datetime, *, pin_days: int
) -> Pin:
    """Return the pin of the content before a blank save; without a reason, before a removal."""
    at = f"{now:%Y-%m-%d}"
    return Pin(
        document=document,
        revision=revision,
        because=f"{BLANK} of {at} ({reason})" if reason else f"{REMOVED}, noticed on {at}",
        pinned_at=now,
        until=now + timedelta(days=pin_days),
    )


def with_blank_pins(
    pins: Iterable[Pin], added: Iterable[Pin], *, ended_by: datetime
) -> tuple[Pin, ...]:
    """Return the pins with those of the guard added, without those expired at `ended_by`.

    At most one of a blank save is added for each document and day.
    """
    kept = current(pins, ended_by)
    pinned = {(pin.document, pin.pinned_at.date()) for pin in kept if is_blank(pin)}
    new = (p for p in added if not is_blank(p) or (p.document, p.pinned_at.date()) not in pinned)
    return (*kept, *new)


def with_added(pins: Iterable[Pin], added: Iterable[Pin], now: datetime) -> tuple[Pin, ...]:
    """Return the pins with those of a copy, except of contents that are pinned already."""
    kept = current(pins, now)
    pinned = {(pin.document, pin.revision) for pin in kept}
    new = (p for p in current(added, now) if (p.document, p.revision) not in pinned)
    return (*kept, *new)


def is_blank(pin: Pin) -> bool:
    """Whether the guard of V11 made this pin before a blank save."""
    return pin.because.startswith(BLANK)


def with_pin(
    pins: Iterable[Pin], document: str, revision: Revision, because: str, now: datetime
) -> tuple[Pin, ...]:
    """Return the pins with one added by a person, which replaces any of the same revision."""
    kept = without_pin(pins, document, revision)
    pin = Pin(document=document, revision=revision, because=because, pinned_at=now, until=None)
    return (*kept, pin)


def without_pin(pins: Iterable[Pin], document: str, revision: Revision) -> tuple[Pin, ...]:
    """Return the pins without those of this revision."""
    return tuple(pin for pin in pins if (pin.document, pin.revision) != (document, revision))


def without_document(pins: Iterable[Pin], document: str) -> tuple[Pin, ...]:
    """Return the pins without those of `document` (used by a purge)."""
    return tuple(pin for pin in pins if pin.document != document)


def pins_after_loss(contents: Iterable[tuple[str, Revision]], now: datetime) -> tuple[Pin, ...]:
    """Return a pin for each (document, revision): any of them may have been pinned before."""
    return tuple(
        Pin(
            document=document,
            revision=revision,
            because=f"{LOST} on {now:%Y-%m-%d}, so every backup that existed then is kept",
            pinned_at=now,
        )
        for document, revision in dict.fromkeys(contents)
    )
