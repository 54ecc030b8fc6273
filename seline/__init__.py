"""Seline keeps a bot's JSON documents on one small volume.

No acknowledged change is lost, no broken document is served as sound, and one person can inspect,
restore and export everything. `open_seline` opens a store. `seline.blocking` has the same names
without `await`. V1 to V12 are the guarantees in docs/guarantees.md.

Each name is imported at its first use, so that the command line need not load the store for help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from seline.bot.lessons_learned import LessonsLearned
    from seline.bot.user_profile import UserProfile
    from seline.domain.document import ABSENT, Document, Json, Revision
    from seline.errors import SelineError
    from seline.library import (
        Seline,
        get_data_manager,
        get_lessons_service,
        get_seline,
        get_user_profile,
        open_seline,
    )
    from seline.manager import DataManager

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "DataManager",
    "Document",
    "Json",
    "LessonsLearned",
    "Revision",
    "Seline",
    "SelineError",
    "UserProfile",
    "get_data_manager",
    "get_lessons_service",
    "get_seline",
    "get_user_profile",
    "open_seline",
]

_MODULES: Final = {
    "ABSENT": "seline.domain.document",
    "DataManager": "seline.manager",
    "Document": "seline.domain.document",
    "Json": "seline.domain.document",
    "LessonsLearned": "seline.bot.lessons_learned",
    "Revision": "seline.domain.document",
    "Seline": "seline.library",
    "SelineError": "seline.errors",
    "UserProfile": "seline.bot.user_profile",
    "get_data_manager": "seline.library",
    "get_lessons_service": "seline.library",
    "get_seline": "seline.library",
    "get_user_profile": "seline.library",
    "open_seline": "seline.library",
}


if not TYPE_CHECKING:  # else type checkers would accept any name

    def __getattr__(name: str) -> object:
        """Import a public name from its module at its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
