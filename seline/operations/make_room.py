"""What frees space on the volume now: the next steps of health, as commands that work."""

from typing import Final

from seline.domain.usage import Usage
from seline.operations.usage import Headroom

SMALL_RATIO: Final = 0.10
"""Below this share of what is used, removing Seline's own files frees little."""
_PURGE: Final = (
    "`seline delete NAME --purge` erases a document with its backups; without `--purge` nothing is "
    "freed."
)


def make_room(usage: Usage, room: Headroom, *, of_files: bool = False) -> str:
    """Return what frees space now; with `of_files`, what frees inodes."""
    share = "" if of_files else _small_share(usage)
    steps = (
        f"`seline prune` frees {-(-room.prunable_bytes // 1024)} KB."
        if room.prunable_bytes
        else "",
        f"{room.deleted} is deleted: `seline delete {room.deleted} --purge` erases its backups."
        if room.deleted
        else "",
        _remove_others(usage, share) if share else "",
        _PURGE,
        "Or raise `storage.volume_limit_mb`." if _is_limited(usage) else "",
        "" if share else _enlarge(usage),
    )
    return " ".join(step for step in steps if step)


def no_step_yet(usage: Usage) -> str:
    """Return the next step of a volume that is half full."""
    share = _small_share(usage)
    of_seline = f"Seline's files are {share} of what is used." if share else ""
    return f"Nothing to do yet: a warning comes at 80%. {of_seline}".rstrip()


def _remove_others(usage: Usage, share: str) -> str:
    if usage.own_mount:
        return (
            "Remove other files from the volume, or enlarge it: "
            f"Seline's are {share} of what is used."
        )
    return f"Remove other files from the disk: Seline's are {share} of what is used."


def _enlarge(usage: Usage) -> str:
    return "Or enlarge the volume." if usage.own_mount else "Or remove other files from the disk."


def _small_share(usage: Usage) -> str:
    """Return Seline's share of what is used where others have nearly all of it, else nothing."""
    share = usage.files_bytes / usage.used_bytes if usage.used_bytes else 1.0
    if share >= SMALL_RATIO or _is_limited(usage):
        return ""
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _is_limited(usage: Usage) -> bool:
    """Whether `storage.volume_limit_mb` decides how full the volume is."""
    limit_bytes = usage.limit_bytes
    return limit_bytes is not None and usage.counted_bytes / limit_bytes >= usage.usage_ratio
