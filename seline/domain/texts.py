"""Texts for people: one TOML file per language, in the package that uses it.

A text is a list of sentences with `{fields}`. A sentence is left out if one of its fields has no
value; `[name]` at its start requires a field without inserting it. `Wording` has texts of one
sentence, from a folder `texts/` with a TOML file for each table and language.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Formatter
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

Language: TypeAlias = Literal["en", "fr"]
CLOCK_DIFFERENCE_S: Final = 10
"""What is so near in the future was now, by another clock."""
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
_Texts = TypeVar("_Texts")
_REQUIRED = re.compile(r"^\[(\w+)\]")


def load_texts(package: str, language: Language, type: type[_Texts]) -> _Texts:
    """Read `<language>.toml` of a package as a msgspec type. Blocks; cache the result."""
    data = files(package).joinpath(f"{language}.toml").read_bytes()
    return msgspec.toml.decode(data, type=type)


def compose(sentences: Iterable[str], values: Mapping[str, str]) -> str:
    """Return the sentences whose fields all have a value, filled in and joined."""
    return " ".join(
        _REQUIRED.sub("", sentence).format_map(values)
        for sentence in sentences
        if fields_of(sentence) <= values.keys()
    )


def fields_of(sentence: str) -> frozenset[str]:
    """Return the fields that a sentence inserts or requires."""
    inserted = {field for _, field, _, _ in Formatter().parse(sentence) if field}
    return frozenset(inserted | set(_REQUIRED.findall(sentence)))


def load_tables(package: str, language: Language) -> dict[str, str]:
    """Read `texts/TABLE.<language>.toml` of a package: each text by `TABLE.key`. Blocks."""
    found: dict[str, str] = {}
    for file in sorted(files(package).joinpath("texts").iterdir(), key=lambda path: path.name):
        name, _, rest = file.name.partition(".")
        if rest == f"{language}.toml":
            texts = msgspec.toml.decode(file.read_bytes(), type=dict[str, str])
            found |= {f"{name}.{key}": text for key, text in texts.items()}
    return found


class Wording:
    """The texts of one language, by `TABLE.key`; those of units are in the table `kit`."""

    def __init__(self, language: Language, table: Mapping[str, str]) -> None:
        """Use the texts of `table`."""
        self.language: Language = language
        self._table = table

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
        """Return how long ago something was, or when it will be, in the largest unit not zero."""
        kind, whole = ("ago", int) if seconds >= 0 else ("in", round)
        for unit, length_s in _SPANS:
            if abs(seconds) >= length_s:
                return self.count(f"kit.{kind}_{unit}", whole(abs(seconds) / length_s))
        return self("kit.in_now" if seconds < -CLOCK_DIFFERENCE_S else "kit.ago_now")


_UNITS: Final = ("kit.bytes", "kit.kb", "kit.mb", "kit.gb")
_SPANS: Final = (("days", 86_400), ("hours", 3_600), ("minutes", 60))
