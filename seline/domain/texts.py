"""Texts for people: one TOML file per language, in the package that uses it.

A text is a list of sentences with `{fields}`. A sentence is left out if one of its fields has no
value; `[name]` at its start requires a field without inserting it.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Formatter
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

Language: TypeAlias = Literal["en", "fr"]
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
