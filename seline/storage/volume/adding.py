"""Find the names under which backups from elsewhere are added: no file there is replaced.

A backup that is there with the same content, sound, is not added again. Where another content has
the name, the new one gets the next free counter of that second, so both are kept.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from seline.domain.backup import Backup, backup_name, is_given_name, parse_backup_name
from seline.domain.verdict import Verdict, usable_as_backup
from seline.errors import InvalidDocumentName
from seline.ports.store import AddedBackup
from seline.storage.volume.current import CurrentDocuments


def place_backups(documents: CurrentDocuments, added: Sequence[AddedBackup]) -> list[Backup | None]:
    """Return the backup that each becomes, None if it is there. Raises InvalidDocumentName."""
    placed: dict[str, Backup] = {}
    return [_place(documents, new, placed) for new in added]


def _place(
    documents: CurrentDocuments, new: AddedBackup, placed: dict[str, Backup]
) -> Backup | None:
    backup = _backup_of(new)
    known = {known.name for known in documents.backup_index(new.key.space).of(new.key.name)}
    while backup.name in known or backup.name in placed:
        earlier = placed.get(backup.name)
        is_same = earlier is not None and earlier.revision == new.content.revision
        if is_same or (earlier is None and _has(documents, new, backup.name)):
            return None
        stamp = backup.stamp._replace(counter=backup.stamp.counter + 1)
        backup = replace(backup, name=backup_name(new.key.name, stamp), stamp=stamp, ours=True)
    placed[backup.name] = backup
    return backup


def _has(documents: CurrentDocuments, new: AddedBackup, name: str) -> bool:
    """Whether a backup of this name holds the content to be added, sound."""
    judged = documents.inspector.look_at_backup(new.key, name).judged
    content = judged.content
    if content is None or not usable_as_backup(new.key, judged):
        return False
    return content.revision == new.content.revision


def _backup_of(new: AddedBackup) -> Backup:
    parsed = parse_backup_name(new.name)
    if parsed is None or parsed[0] != new.key.name:
        raise InvalidDocumentName(f"{new.name!r} is not the name of a backup of {new.key.name}.")
    backup = Backup(
        name=new.name,
        document=new.key.name,
        stamp=parsed[1],
        size_bytes=new.content.size_bytes,
        revision=new.content.revision,
        verdict=Verdict.SOUND,
    )
    return replace(backup, ours=is_given_name(backup))
