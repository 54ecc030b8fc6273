"""The user's profile, in the seed's words, over `user_profile.json`."""

from __future__ import annotations

from seline.domain.document import Json, Revision
from seline.domain.profile import PROFILE_NAME, get_field, read_profile
from seline.manager import DataManager


class UserProfile:
    """One user's profile: free fields of JSON."""

    def __init__(self, data: DataManager) -> None:
        """Work over a DataManager."""
        self._data = data

    async def save(self, profile: dict[str, Json]) -> Revision:
        """Save the whole profile, with a backup of the one before; return its revision."""
        return await self._data.save_json(PROFILE_NAME, profile, backup=True)

    async def load(self) -> dict[str, Json]:
        """Return the profile, `{}` if there is none yet."""
        return read_profile(await self._data.load_json(PROFILE_NAME))

    async def get_field(self, field: str, default: Json = None) -> Json:
        """Return one field, `default` where it is not set."""
        return get_field(await self._data.load_json(PROFILE_NAME), field, default)

    async def update_field(self, field: str, value: Json) -> Revision:
        """Set one field, whatever others do meanwhile; return the revision."""
        return await self._data.update_field(PROFILE_NAME, field, value)

    async def clear(self) -> Revision:
        """Empty the profile, keeping it as a backup."""
        return await self._data.save_json(PROFILE_NAME, {}, backup=True, shrink=True)

    async def restore_from_backup(self) -> bool:
        """Go back to the newest backup that differs; False if there is none."""
        return await self._data.restore_from_backup(PROFILE_NAME)
