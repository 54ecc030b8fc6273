"""Choose the backup whose content replaces a document's content.

V4  The newest sound backup, or the newest one with a given content; one without a checksum only if
    no backup is sound.
V8  Retention keeps the backup that `choose_backup` would return.
"""

from collections.abc import Iterable, Sequence

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import Content, Json, Revision
from seline.domain.verdict import COUNTED, Judged, Verdict, lacks_checksum


class Choice(msgspec.Struct, frozen=True):
    """The backup to go back to, None if none is usable, and why each newer one was skipped."""

    chosen: tuple[Backup, Content] | None
    skipped: tuple[tuple[Backup, str], ...]

    def reasons(self) -> list[Json]:
        """Return the skipped backups as an error's details: [{"backup": name, "why": reason}]."""
        return [{"backup": backup.name, "why": why} for backup, why in self.skipped]


def choose_backup(
    candidates: Iterable[tuple[Backup, Judged]],
    *,
    unlike: Revision | None = None,
    revision: Revision | None = None,
    sound_only: bool = False,
) -> Choice:
    """Return the newest sound backup, else the newest one that has no checksum and parses.

    `candidates` come newest first; none is read after the one that is chosen. `unlike` is the
    current content's revision: a backup with the same content is skipped. `revision` accepts only
    that content. `sound_only` accepts no backup without a checksum.
    """
    unchecked: tuple[Backup, Content] | None = None
    skipped: list[tuple[Backup, str]] = []
    for backup, judged in candidates:
        content = judged.content
        if content is None:
            skipped.append((backup, judged.why))
        elif content.revision == unlike:
            skipped.append((backup, judged.reason or "same as current"))
        elif revision is not None and content.revision != revision:
            skipped.append((backup, "another content"))
        elif judged.verdict is Verdict.SOUND:
            return Choice((backup, content), tuple(skipped))
        elif lacks_checksum(judged) and not sound_only:
            unchecked = unchecked or (backup, content)
        else:
            skipped.append((backup, judged.why))
    return Choice(unchecked, tuple(skipped))


def choose_guarded(newest_first: Sequence[Backup], unlike: Revision | None) -> Backup | None:
    """Return the backup that retention must keep, from what is known without reading.

    It is the newest one of Seline's that counts and differs from the current content `unlike`, else
    the newest one of Seline's that counts.
    """
    counted = [backup for backup in newest_first if backup.ours and backup.verdict in COUNTED]
    differing = (b for b in counted if unlike is None or b.revision != unlike)
    return next(differing, counted[0] if counted else None)
