"""Render templates. jinja2 is imported with the first page, and is in the extra `page`."""

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from seline.clock import instant_text
from seline.domain.sentences.translate import Passage, passages
from seline.domain.texts import Language
from seline.page.static import address_of
from seline.page.texts import Texts, own_texts
from seline.program import typed

if TYPE_CHECKING:
    from jinja2 import Environment

NOT_INSTALLED: Final = (
    "The page needs the extra `page`: pip install 'seline[page]', then restart.\n"
    "The admin API under /api/v1/data-admin works without it.\n"
)


@functools.cache
def environment() -> "Environment":
    """Return the templates. Raises ImportError without the extra."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(str(files("seline.page").joinpath("templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def is_installed() -> bool:
    """Whether the extra is installed."""
    try:
        environment()
    except ImportError:
        return False
    return True


def render(template: str, texts: Texts, now: datetime, values: Mapping[str, Any]) -> str:
    """Return a page as HTML. The templates know what is in `known`, besides the values."""

    def instant(moment: datetime) -> dict[str, str]:
        moment = moment.astimezone(UTC)
        return {
            "iso": instant_text(moment),
            "utc": f"{moment:%Y-%m-%d %H:%M}",
            "ago": texts.span((now - moment).total_seconds()),
        }

    known = {
        "t": texts,
        "count": texts.count,
        "number": texts.number,
        "size": texts.size,
        "instant": instant,
        "language": texts.language,
        "passages": functools.partial(_passages, texts.language),
        "static": address_of,
        "typed": typed,
    }
    return environment().get_template(template).render(**known, **values)


def _passages(language: Language, text: str) -> Sequence[Passage]:
    """Return the parts of a text with their languages; a text of the page itself is in its own."""
    return [Passage(text, language)] if text in own_texts(language) else passages(language, text)
