"""The user's profile: a document of free fields."""

from __future__ import annotations

from typing import Final

PROFILE_NAME: Final = "user_profile.json"
