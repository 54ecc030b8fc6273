"""Pins: backups that rotation keeps, pinned by a person or by the blank-save guard (V11).

A pin names a document and a revision, not a file: it is written in the same commit as the blank
save, before the backup has a file name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from seline.clock import instant_text, parse_instant
from seline.domain.document import Json, Revision
from seline.errors import DocumentUnrecoverable

BLANK_PINS_MAX: Final = 5
BY_HAND: Final = "by hand"
BLANK: Final = "before a blank save"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One pinned revision of a document. `until` None: pinned until a person unpins it."""

    document: str
    revision: Revision
    because: str
    pinned_at: datetime
    until: datetime | None


def read_pins(value: Json) -> tuple[Pin, ...]:
    """Read the value of `pins.json`. Raises DocumentUnrecoverable if it has another shape."""
    try:
        if not isinstance(value, dict) or not isinstance(value.get("pins"), list):
            raise ValueError("it holds no list of pins")  # noqa: TRY004
        return tuple(_read(item) for item in cast("list[Json]", value["pins"]))
    except (ValueError, KeyError, OverflowError) as error:
        raise DocumentUnrecoverable(
            f"The pins cannot be read: pins.json has another shape ({error}).",
            hint="Mend .seline/pins.json by hand, or remove it with all of its pins.",
            document="pins.json",
        ) from error


def write_pins(pins: Iterable[Pin]) -> Json:
    """Return the value of `pins.json`."""
    return {
        "pins": [
            {
                "document": pin.document,
                "revision": pin.revision,
                "because": pin.because,
                "pinned_at": instant_text(pin.pinned_at),
                "until": None if pin.until is None else instant_text(pin.until),
            }
            for pin in pins
        ]
    }


def current(pins: Iterable[Pin], now: datetime) -> tuple[Pin, ...]:
    """Return the pins that have not expired."""
    return tuple(pin for pin in pins if pin.until is None or pin.until > now)


def wants_blank_pin(pins: Iterable[Pin], document: str, now: datetime) -> bool:
    """Whether a blank save of `document` adds a pin: at most one per day does."""
    return not any(
        pin.document == document
        and pin.because.startswith(BLANK)
        and pin.pinned_at.date() == now.date()
        for pin in pins
    )


def with_blank_pin(
    pins: Iterable[Pin],
    document: str,
    revision: Revision,
    now: datetime,
    *,
    pin_days: int,
    ended_by: datetime,
) -> tuple[Pin, ...]:
    """Return the pins with one added for a blank save, without those expired at `ended_by`.

    At most `BLANK_PINS_MAX` such pins exist: beyond that the oldest are removed.
    """
    kept = list(current(pins, ended_by))
    blank = [pin for pin in kept if pin.because.startswith(BLANK)]
    for released in blank[: max(0, len(blank) - BLANK_PINS_MAX + 1)]:
        kept.remove(released)
    kept.append(
        Pin(
            document=document,
            revision=revision,
            because=f"{BLANK} of {now:%Y-%m-%d}",
            pinned_at=now,
            until=now + timedelta(days=pin_days),
        )
    )
    return tuple(kept)


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


def _read(item: Json) -> Pin:
    if not isinstance(item, dict):
        raise ValueError("a pin is an object")  # noqa: TRY004
    until = item.get("until")
    return Pin(
        document=str(item["document"]),
        revision=str(item["revision"]),
        because=str(item.get("because", "")),
        pinned_at=parse_instant(str(item["pinned_at"])),
        until=None if until is None else parse_instant(str(until)),
    )
