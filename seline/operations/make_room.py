"""What frees space on the volume now: the next steps of health, as commands that work."""

from typing import Final

from seline.domain.usage import LEVELS, Usage, UsageLevel
from seline.operations.usage import Headroom

SMALL_RATIO: Final = 0.10
"""Below this share of what is used, removing Seline's own files frees little."""
_PURGE: Final = (
    "`seline delete NAME --purge` erases a document with its backups; without `--purge` nothing is "
    "freed."
)


def make_room(usage: Usage, room: Headroom, *, of_files: bool = False) -> str:
    """Return what frees space now; with `of_files`, what frees inodes."""
    others = "" if of_files else _others(usage)
    on_its_disk = "enlarge the volume" if usage.own_mount else "remove other files from the disk"
    steps = (
        f"`seline prune` frees {-(-room.prunable_bytes // 1024)} KB."
        if room.prunable_bytes
        else "",
        f"{room.deleted} is deleted: `seline delete {room.deleted} --purge` erases its backups."
        if room.deleted
        else "",
        others,
        _PURGE,
        "Or raise `storage.volume_limit_mb`." if _is_limited(usage) else "",
        "" if others else f"Or {on_its_disk}.",
    )
    return " ".join(step for step in steps if step)


def no_step_yet(usage: Usage) -> str:
    """Return the next step of a volume that is half full."""
    others = _others(usage)
    later = f" {others.replace('Remove', 'Then remove', 1)}" if others else ""
    return f"Nothing to do yet: a warning comes at {LEVELS[UsageLevel.WARNING]:.0%}.{later}"


def _others(usage: Usage) -> str:
    """Return the step that counts where nearly all that is used belongs to others, else nothing."""
    share = usage.files_bytes / usage.used_bytes if usage.used_bytes else 1.0
    if share >= SMALL_RATIO or _is_limited(usage):
        return ""
    of_seline = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    place = "volume, or enlarge it" if usage.own_mount else "disk"
    return f"Remove other files from the {place}: Seline's are {of_seline} of what is used."


def _is_limited(usage: Usage) -> bool:
    """Whether `storage.volume_limit_mb` decides how full the volume is."""
    limit_bytes = usage.limit_bytes
    return limit_bytes is not None and usage.counted_bytes / limit_bytes >= usage.usage_ratio
