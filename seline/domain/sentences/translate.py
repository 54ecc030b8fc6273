"""Put the sentences of errors, checks and jobs into a reader's language.

English is written where a sentence is made: HTTP, the command line, logs and records on disk have
it so. The key of a sentence is its English template, as in gettext. `texts/KIND.fr.toml` has a row
for each: `"{name} has lost {path}." = "{name} a perdu {path}."`. The row and the values of its
fields are found in the finished sentence, because records of an earlier process hold only that.

A field of a translation may say what its value is: `{count:number}`, `{reason:text}` (sentences,
translated if they have rows) or `{reason:known}` (the row applies only if they have). Any other
value is a name or path, and is inserted as it is.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from string import Formatter
from typing import Final, NamedTuple

from seline.domain.texts import Language, load_tables

ROW_CHARACTERS_MAX: Final = 600
"""A longer part of a text has no row."""
RUN_MAX: Final = 4
"""How many sentences one row may have."""
START: Final = 3
"""By how many of its first characters the rows for a text are found."""
DEPTH_MAX: Final = 7
"""How deep values are translated that are sentences."""
STEPS_MAX: Final = 2000
"""How many searches of the rows and matches one text may take; what is left stays English."""
_INSTANT: Final = re.compile(r"\s*\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
"""What an incident begins with; it is no part of a row."""
_COMMA: Final = re.compile(", ")
_SEPARATORS: Final = tuple(
    re.compile(f"`[^`]*`|({between})") for between in (r"\n", "; |(?<=[.!?]) ")
)
"""Where a text without a row is divided, outside of commands."""
_JOINTS: Final = {"; ": " ; "}
"""What is between the parts then, if it is not the same."""
_VALUES: Final[Mapping[str, str]] = {
    "": r"(?:(?![.!?;:] )[^\n])+?",
    "number": r"\d[\d,]*(?:\.\d+)?",
    "text": r"[\s\S]*?",
    "known": r"[\s\S]+?",
}


class Passage(NamedTuple):
    """A part of a text, and the language that it is in."""

    text: str
    language: Language


class SentenceRow:
    """A row with fields. `length`: how much of its key is outside of them."""

    def __init__(self, key: str, text: str) -> None:
        self.key, self._text = key, text
        literals = [literal for literal, *_ in _parts(key)]
        self.length = sum(map(len, literals))
        self._first, self._longest = literals[0], max(literals, key=len)
        self._last = "" if key.endswith("}") else literals[-1]

    def may_begin(self, start: str) -> bool:
        """Whether a text of this row may begin so."""
        return self._first[: len(start)] == start[: len(self._first)]

    def is_likely(self, text: str) -> bool:
        """Whether a text has the parts without fields; a match is much slower."""
        ends = text.startswith(self._first) and text.endswith(self._last)
        return ends and self._longest in text

    @functools.cached_property
    def kinds(self) -> Mapping[str, str]:
        """The kind of each field, by its name."""
        return {field: kind for _, field, kind in _parts(self._text) if field}

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a finished sentence of this row looks like.

        A value ends where the next part of the key begins: trying other ends could take long.
        """
        parts, pattern, seen = list(_parts(self.key)), "", set[str]()
        for number, (literal, field, _) in enumerate(parts):
            pattern += re.escape(literal)
            if field in seen:
                pattern += f"(?P={field})"
            elif field:
                seen.add(field)
                after = re.escape(parts[number + 1][0]) if number + 1 < len(parts) else ""
                value = f"(?P<{field}>{_VALUES[self.kinds[field]]})"
                is_last = number + 2 >= len(parts)
                pattern += value if is_last or not after else f"(?>{value}(?={after}))"
        return re.compile(pattern)

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the translation with its values."""
        return "".join(
            literal + (values[field] if field else "") for literal, field, _ in _parts(self._text)
        )


@functools.lru_cache(maxsize=2048)
def passages(language: Language, text: str) -> Sequence[Passage]:
    """Return a text in a language; the parts that have no row stay English."""
    return (
        (Passage(text, "en"),) if language == "en" else _SentenceFinder(language).found(text, 0)[0]
    )


def translated(language: Language, text: str) -> str:
    """Return `passages` as one text."""
    return "".join(passage.text for passage in passages(language, text))


@functools.cache
def rows(language: Language) -> tuple[Mapping[str, str], Sequence[SentenceRow]]:
    """Return all rows by their key, and those with fields, the longest first. Blocks once."""
    tables = load_tables("seline.domain.sentences", language)
    texts = {key.partition(".")[2]: text for key, text in tables.items()}
    with_fields = [SentenceRow(key, text) for key, text in texts.items() if "{" in key]
    return texts, sorted(with_fields, key=lambda row: -row.length)


@functools.lru_cache(maxsize=1024)
def _rows_from(language: Language, start: str) -> Sequence[SentenceRow]:
    """Return the rows with fields that may match a text with these first characters."""
    return [row for row in rows(language)[1] if row.may_begin(start)]


def _parts(template: str) -> Iterator[tuple[str, str, str]]:
    """Yield each literal part with the field that follows it, and the kind of that."""
    for literal, field, kind, _ in Formatter().parse(template):
        yield literal, field or "", kind or ""


def _language_of(passage: Passage) -> Language:
    return passage.language


def _split(separator: re.Pattern[str], text: str) -> Sequence[str]:
    """Return the parts of a text, and what is between each two of them."""
    parts, first = list[str](), 0
    for found in separator.finditer(text):
        if found[1]:
            parts += text[first : found.start()], found[1]
            first = found.end()
    return [*parts, text[first:]]


class _SentenceFinder:
    """Finds the rows of one text. Its work is bounded, because a text may have any content."""

    def __init__(self, language: Language) -> None:
        self._language: Language = language
        self._known: dict[str, tuple[Sequence[Passage], bool]] = {}
        self._whole: dict[tuple[str, bool], str | None] = {}
        """What `_of_row` has found, by text and `strict`."""
        self._steps_left = STEPS_MAX

    def found(self, text: str, depth: int) -> tuple[Sequence[Passage], bool]:
        """Return the passages, and whether every part of the text has a row."""
        if depth > DEPTH_MAX:
            return (Passage(text, "en"),), not text.strip()
        if text not in self._known:
            self._known[text] = self._found(text, depth)
        return self._known[text]

    def _found(self, text: str, depth: int) -> tuple[Sequence[Passage], bool]:
        instant = _INSTANT.match(text)
        core = text[instant.end() if instant else 0 :].strip()
        if not core:
            return (Passage(text, "en"),), True
        before, _, after = text.partition(core)
        found = list(self._divided(core, depth, strict=True))
        is_whole = all(passage.language != "en" for passage in found)
        if not is_whole:
            found = list(self._divided(core, depth, strict=False))
        parts = [Passage(before, self._language), *found, Passage(after, self._language)]
        grouped = groupby((part for part in parts if part.text), key=_language_of)
        whole = [Passage("".join(part.text for part in group), of) for of, group in grouped]
        return whole, is_whole

    def _divided(self, text: str, depth: int, *, strict: bool) -> Iterator[Passage]:
        """Yield a text whole if it has a row, else in parts. `strict`: the values have rows."""
        whole = self._of_row(text, depth, strict=strict)
        if whole is not None or not text:
            yield Passage(whole or "", self._language)
            return
        for separator in _SEPARATORS:
            parts = _split(separator, text)
            if len(parts) > 1:
                yield from self._joined(parts, depth, strict=strict)
                return
        whole = self._listed(text, depth)
        yield Passage(text, "en") if whole is None else Passage(whole, self._language)

    def _listed(self, text: str, depth: int) -> str | None:
        """Return a list whose entries have rows, or a text that has one without its period."""
        end = "." if text.endswith(".") else ""
        whole = self._of_row(text.removesuffix("."), depth, strict=True) if end else None
        if whole is not None:
            return whole + end
        entries = _COMMA.split(text.removesuffix("."))
        if not end and len(entries) == 1:
            return None
        found = [self._of_row(entry, depth, strict=True) for entry in entries]
        return None if None in found else ", ".join(map(str, found)) + end

    def _joined(self, parts: Sequence[str], depth: int, *, strict: bool) -> Iterator[Passage]:
        """Yield the longest run of parts that has a row, or else one part, and go on after it."""
        first = 0
        while first < len(parts):
            for last in range(min(len(parts), first + 2 * RUN_MAX - 1), first + 1, -2):
                whole = self._of_row("".join(parts[first:last]), depth, strict=strict)
                if whole is not None:
                    yield Passage(whole, self._language)
                    break
            else:
                last = first + 1
                yield from self._divided(parts[first], depth, strict=strict)
            for between in parts[last : last + 1]:
                yield Passage(_JOINTS.get(between, between), self._language)
            first = last + 1

    def _of_row(self, text: str, depth: int, *, strict: bool) -> str | None:
        """Return the translation of a text that has a row, None if it has none."""
        exact = rows(self._language)[0]
        if text in exact and "{" not in text:
            return exact[text]
        if (text, strict) not in self._whole:
            self._whole[text, strict] = self._of_row_with_fields(text, depth, strict=strict)
        return self._whole[text, strict]

    def _of_row_with_fields(self, text: str, depth: int, *, strict: bool) -> str | None:
        self._steps_left -= 1
        if len(text) > ROW_CHARACTERS_MAX or self._steps_left < 0:
            return None
        for row in _rows_from(self._language, text[:START]):
            if not row.is_likely(text):
                continue
            self._steps_left -= 1
            if match := row.pattern.fullmatch(text):
                values = self._values(row, match, depth, strict=strict)
                if values is not None:
                    return row.filled(values)
        return None

    def _values(
        self, row: SentenceRow, match: re.Match[str], depth: int, *, strict: bool
    ) -> Mapping[str, str] | None:
        """Return the values of a row's fields, None if one has to have a row and has none."""
        values = match.groupdict()
        for field, kind in row.kinds.items():
            if kind == "number":
                values[field] = values[field].replace(",", "\u202f").replace(".", ",")
            elif kind:
                found, is_whole = self.found(values[field], depth + 1)
                if not is_whole and (strict or kind == "known"):
                    return None
                values[field] = "".join(passage.text for passage in found)
        return values
