"""The value of `volume.json`: which volume this is, and whether a restore onto it is unfinished."""

from msgspec.structs import replace

from seline.domain.copy import Copy
from seline.domain.manifest import is_volume_id
from seline.domain.stored import Stored


class PendingRestore(Stored, frozen=True):
    """Why the last start of an empty volume could not take a copy, and the next step."""

    message: str
    hint: str


class VolumeFile(Stored, frozen=True, kw_only=True):
    """The volume's id, and the number of the last export that it has begun.

    The id is made before the first document is written, and travels with a restored copy.
    `restoring` names the copy that is being restored onto the volume, empty if none is. Each
    restore gives the volume a new `life`, so that two volumes with one id differ. `pending`
    counts only while the volume is empty.
    """

    id: str = ""
    exports: int = 0
    restoring: str = ""
    life: str = ""
    pending: PendingRestore | None = None

    @property
    def is_identified(self) -> bool:
        """Whether the volume has an id."""
        return is_volume_id(self.id)

    def identified(self, new_id: str, copy: Copy | None = None) -> "VolumeFile":
        """Return this value, with an id if it has none: that of a copy put back, else a new one."""
        if self.is_identified:
            return self
        if copy is not None:
            return replace(self.marked(copy, new_id), restoring="")
        return replace(self, id=new_id, pending=None)

    def marked(self, copy: Copy, new_id: str) -> "VolumeFile":
        """Return the value while a copy is restored: the volume becomes the copy's."""
        exports = max(self.exports, copy.sequence)
        volume = copy.volume or new_id
        return VolumeFile(id=volume, exports=exports, restoring=copy.name, life=new_id)

    def numbered(self, new_id: str, at_least: int = 0) -> "VolumeFile":
        """Return the value once another export has begun; its number is higher than `at_least`."""
        return replace(self.identified(new_id), exports=max(self.exports, at_least) + 1)
