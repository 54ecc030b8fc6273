"""The words of the page: a TOML table for each view and language, in `seline/page/texts/`."""

import asyncio
import functools
import re
from collections.abc import Mapping
from typing import Final

from seline.domain.sentences.translate import rows
from seline.domain.texts import LANGUAGES, Language, Wording, load_tables

_RANGE: Final = re.compile(r"^([a-z]{2})(?:-[a-z0-9]+)*$")


@functools.cache
def table(language: Language) -> Mapping[str, str]:
    """Return every text of a language, by `view.key`. Blocks once."""
    return load_tables("seline.page", language)


@functools.cache
def own_texts(language: Language) -> frozenset[str]:
    """Return the texts of a language without their keys."""
    return frozenset(table(language).values())


class Texts(Wording):
    """The texts of the page in one language."""

    def __init__(self, language: Language) -> None:
        """Use the tables of `language`."""
        super().__init__(language, table(language))


async def texts_in(language: Language) -> Texts:
    """Return the texts of a language; the tables are read in a thread, once."""
    await asyncio.to_thread(lambda: (table(language), rows(language)))
    return Texts(language)


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
