"""The value of `volume.json`: which volume this is."""

from msgspec.structs import replace

from seline.domain.manifest import is_volume_id
from seline.domain.stored import Stored


class VolumeFile(Stored, frozen=True, kw_only=True):
    """The volume's id, and how many exports it has begun.

    The id is made before the first document is written, and travels with a restored copy.
    """

    id: str = ""
    exports: int = 0

    @property
    def is_identified(self) -> bool:
        """Whether the volume has an id."""
        return is_volume_id(self.id)

    def identified(self, new_id: str) -> "VolumeFile":
        """Return this value, with a new id if it has none."""
        return self if self.is_identified else replace(self, id=new_id)

    def numbered(self, new_id: str) -> "VolumeFile":
        """Return the value once another export has begun."""
        return replace(self.identified(new_id), exports=self.exports + 1)
