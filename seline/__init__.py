"""Seline keeps a bot's JSON documents on one small volume.

Nothing acknowledged is lost, nothing broken is served as sound, and one person can see, restore
and take away everything. `open_seline` is the front door; `seline.blocking` has the same names
without `await`.
"""

from seline.domain.document import ABSENT, Document, Json, Revision
from seline.errors import SelineError
from seline.library import (
    Seline,
    get_data_manager,
    get_lessons_service,
    get_user_profile,
    open_seline,
)
from seline.manager import DataManager
from seline.services.lessons_learned import LessonsLearned
from seline.services.user_profile import UserProfile

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
    "get_user_profile",
    "open_seline",
]
