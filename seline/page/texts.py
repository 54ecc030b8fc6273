"""The words of the page: a TOML table for each view and language, in `seline/page/texts/`."""

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import msgspec

from seline.domain.texts import LANGUAGES, Language

_RANGE: Final = re.compile(r"^([a-z]{2})(?:-[a-z0-9]+)*$")


@functools.cache
def table(language: Language) -> Mapping[str, str]:
    """Return every text of a language, by `view.key`. Blocks once."""
    found: dict[str, str] = {}
    for file in sorted(
        files("seline.page").joinpath("texts").iterdir(), key=lambda path: path.name
    ):
        view, _, rest = file.name.partition(".")
        if rest == f"{language}.toml":
            texts = msgspec.toml.decode(file.read_bytes(), type=dict[str, str])
            found |= {f"{view}.{key}": text for key, text in texts.items()}
    return found


class Texts:
    """The texts of one language."""

    def __init__(self, language: Language) -> None:
        """Use the tables of `language`."""
        self.language = language
        self._table = table(language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its fields filled in. Raises KeyError for an unknown key."""
        return self._table[key].format_map(values)

    def count(self, key: str, count: int, **values: object) -> str:
        """Return `KEY_one` or `KEY_many`, with `{count}`. In French 0 is singular."""
        is_one = count == 1 or (self.language == "fr" and count == 0)
        return self(f"{key}_{'one' if is_one else 'many'}", count=self.number(count), **values)

    def number(self, value: float, digits: int = 0) -> str:
        """Return a number with the separators of the language."""
        text = f"{value:,.{digits}f}"
        if self.language == "fr":
            return text.replace(",", "\u202f").replace(".", ",")
        return text

    def size(self, size_bytes: float) -> str:
        """Return a size in bytes, KB, MB or GB (powers of 1,024)."""
        unit = 0
        while size_bytes >= 1024 and unit < len(_UNITS) - 1:
            size_bytes, unit = size_bytes / 1024, unit + 1
        digits = 1 if unit and size_bytes < 100 else 0
        return f"{self.number(size_bytes, digits)} {self(_UNITS[unit])}"

    def span(self, seconds: float) -> str:
        """Return how long ago something was, in the largest unit that is not zero."""
        for unit, length_s in _SPANS:
            if seconds >= length_s:
                return self.count(f"kit.ago_{unit}", int(seconds // length_s))
        return self("kit.ago_now")


_UNITS: Final = ("kit.bytes", "kit.kb", "kit.mb", "kit.gb")
_SPANS: Final = (("days", 86_400), ("hours", 3_600), ("minutes", 60))


def preferred(accept_language: str) -> Language:
    """Return the language that an `Accept-Language` header ranks highest; else English."""
    best: Language = LANGUAGES[0]
    best_quality = 0.0
    for part in accept_language.lower().split(",")[:20]:
        name, _, quality = part.strip().partition(";q=")
        match = _RANGE.match(name.strip())
        for language in LANGUAGES:
            if match and match[1] == language and _quality(quality) > best_quality:
                best, best_quality = language, _quality(quality)
    return best


def _quality(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0.0
