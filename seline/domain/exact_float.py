"""Numbers of a text that a float cannot hold: they keep their text until a caller replaces them."""

from decimal import Decimal, InvalidOperation
from math import isfinite

_CHARACTERS_ALWAYS_EXACT = 16
"""A float holds 15 digits exactly, and there is a point."""


class ExactFloat(float):
    """The float next to a number with more digits; it is encoded as the number's text.

    It computes and compares as a float does, and what is computed from it is a plain float.
    """

    text: str

    def __new__(cls, text: str) -> "ExactFloat":  # noqa: PYI034  # never subclassed
        """Return the float of a JSON number, with its text."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type["ExactFloat"], tuple[str]]:
        return ExactFloat, (self.text,)


def parse_float(text: str) -> float:
    """Return the float of a JSON number, an ExactFloat if it would be written as another number."""
    number = float(text)
    if len(text) <= _CHARACTERS_ALWAYS_EXACT and "e" not in text and "E" not in text:
        return number
    if repr(number) == text or not isfinite(number):
        return number  # what is not finite is refused by the decoders
    try:
        is_exact = Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # an exponent beyond those of Decimal
        is_exact = False
    return number if is_exact else ExactFloat(text)
