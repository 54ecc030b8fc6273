"""The user's profile, stored in `user_profile.json`."""

from typing import Final

from seline.domain.document import Json, Revision
from seline.errors import NotAnObject
from seline.manager import DataManager

PROFILE_NAME: Final = "user_profile.json"


class UserProfile:
    """One user's profile: a JSON object with any fields."""

    def __init__(self, data: DataManager) -> None:
        """Store the profile with `data`."""
        self._data = data

    async def save(self, profile: dict[str, Json]) -> Revision:
        """Replace the profile, with a backup of the previous one; return the new revision."""
        return await self._data.save_json(PROFILE_NAME, profile, backup=True)

    async def load(self) -> dict[str, Json]:
        """Return the profile, `{}` if there is none. Raises NotAnObject for any other value."""
        profile = await self._data.load_json(PROFILE_NAME)
        if not isinstance(profile, dict):
            raise NotAnObject(f"{PROFILE_NAME} is not an object, so it has no fields.")
        return profile

    async def get_field(self, field: str, default: Json = None) -> Json:
        """Return one field, or `default` if it is not set. A null is a value."""
        return (await self.load()).get(field, default)

    async def update_field(self, field: str, value: Json) -> Revision:
        """Set one field atomically; return the profile's new revision."""
        return await self._data.update_field(PROFILE_NAME, field, value)

    async def clear(self) -> Revision:
        """Replace the profile with `{}`, with a backup of the previous one."""
        return await self._data.save_json(PROFILE_NAME, {}, backup=True, shrink=True)

    async def restore_from_backup(self) -> bool:
        """Restore the newest backup that differs from the profile; False if there is none."""
        return await self._data.restore_from_backup(PROFILE_NAME)
