"""Judge a file's bytes against its checksum; the sets below are what each verdict allows."""

from enum import StrEnum
from typing import Final

import msgspec

from seline.cures import Cure
from seline.domain.checksum import Checksum, name_hash
from seline.domain.document import Content, DocumentKey
from seline.domain.json_codec import normalised, why_not_json
from seline.errors import DocumentUnreadable, DocumentUnrecoverable


class Verdict(StrEnum):
    """The state of a document's or backup's file."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    SOUND = "sound"
    UNSETTLED = "unsettled"
    TORN = "torn"
    EDITED = "edited"
    ALTERED = "altered"


USABLE: Final = frozenset({Verdict.SOUND, Verdict.EDITED})
"""The content may be served, and restored from a backup."""
AS_SAVED: Final = frozenset({Verdict.SOUND, Verdict.MISSING})
"""The file is as Seline left it, so verify changes nothing."""
DAMAGED: Final = frozenset(Verdict) - USABLE - AS_SAVED
"""A read of the document cannot be answered from its file."""
UNCHECKED: Final = "unchecked"
"""The verdict word of a backup that was not read, or that parses and has no checksum."""
FOREIGN: Final = "foreign"
"""The verdict word of a backup that was written for another document."""
COUNTED: Final = frozenset({UNCHECKED, str(Verdict.SOUND)})
"""The verdict words with which retention counts a backup."""


class Judged(msgspec.Struct, frozen=True):
    """A verdict with its reason.

    `content` holds the bytes if they could be read, sound or not; `recorded` is the checksum, None
    if the file has none; `settled` is False while the file may still be being written. `is_edit`:
    another program wrote bytes that are not JSON, as its mtime or the missing checksum shows.
    `is_open`: another program has the edited file open, and may write more.
    `cure` is what makes an unreadable file readable, or mends a hand edit. `original` holds the
    bytes of a file that Seline did not write, if `content` is the same text in another encoding.
    """

    verdict: Verdict
    content: Content | None = None
    recorded: Checksum | None = None
    reason: str = ""
    settled: bool = True
    is_edit: bool = False
    is_open: bool = False
    cure: Cure | None = None
    original: Content | None = None

    @property
    def why(self) -> str:
        """The flaw, or the verdict's word if there is none."""
        return self.flaw or str(self.verdict)

    @property
    def flaw(self) -> str:
        """Why a backup does not count, with what makes an unreadable one readable."""
        if self.verdict is Verdict.UNREADABLE and self.cure is not None:
            return f"{self.reason}; {self.cure.hint.removesuffix('.')}"
        return self.reason


def unreadable(key: DocumentKey, judged: Judged) -> DocumentUnreadable:
    """Return the error for a file that cannot be read."""
    cure = judged.cure
    return DocumentUnreadable(
        f"{key.name} cannot be read: {judged.reason}.",
        hint=cure and cure.hint,
        document=key.name,
        reason=judged.reason,
        disk_failed=cure is not None and cure.disk_failed,
    )


def unrecoverable_step(name: str, judged: Judged) -> str:
    """Return the next step for a document without sound content; a hand edit can be corrected."""
    step = DocumentUnrecoverable.hint.replace("NAME", name)
    return step if judged.cure is None else f"{judged.cure.hint} Otherwise: {step}"


def of_another(key: DocumentKey, judged: Judged) -> bool:
    """Whether the file was written for another document."""
    return judged.recorded is not None and judged.recorded.name_hash != name_hash(key)


def usable_as_backup(key: DocumentKey, judged: Judged) -> bool:
    """Whether this backup may be restored: sound, without a checksum, or edited by hand."""
    return judged.verdict in USABLE and not of_another(key, judged)


def lacks_checksum(judged: Judged) -> bool:
    """Whether the file parses and has no checksum: usable only where nothing sound is."""
    return judged.verdict is Verdict.EDITED and judged.recorded is None


def backup_word(key: DocumentKey, judged: Judged) -> str:
    """Return the verdict word that listings show for a backup that was read."""
    if lacks_checksum(judged):
        return UNCHECKED
    return FOREIGN if of_another(key, judged) else str(judged.verdict)


def judge(
    key: DocumentKey,
    content: Content,
    recorded: Checksum | None,
    *,
    mtime_ns: int,
    settled: bool,
    checksums: bool = True,
) -> Judged:
    """Return the verdict on bytes that were read whole from one regular file.

    `recorded` is the file's checksum, `mtime_ns` its mtime; `settled` is whether the file has
    not changed for `settle_s`; pass `checksums=False` if the volume keeps no attributes.

    A file that shrank and has the recorded mtime may be being truncated by an editor: ext4 and
    tmpfs show the new size before the new mtime. So it is unsettled until it is at rest.
    """
    ours = recorded is not None and recorded.name_hash == name_hash(key)
    if ours and recorded is not None and recorded.revision == content.revision:
        return Judged(Verdict.SOUND, content, recorded)
    as_left = recorded is not None and recorded.mtime_ns == mtime_ns
    shrank = recorded is not None and content.size_bytes < recorded.size_bytes
    at_rest = settled or (as_left and not shrank)
    plain = content.data if as_left else normalised(content.data)
    why = why_not_json(plain)
    if why is None and plain is not content.data:
        why = f"{_why_edited(recorded, ours=ours)}, and has a byte order mark"
        original = content if recorded is None else None
        plain_content = Content.of(plain)
        return Judged(Verdict.EDITED, plain_content, recorded, why, settled, original=original)
    if why is not None:
        verdict = Verdict.TORN if at_rest else Verdict.UNSETTLED
        return Judged(verdict, content, recorded, why, settled, is_edit=not as_left)
    if not checksums:
        return Judged(Verdict.SOUND, content, recorded, "syntax only: no checksums here")
    if recorded is not None and ours and as_left:
        why = "its bytes changed, and no one saved them"
        verdict = Verdict.ALTERED if at_rest else Verdict.UNSETTLED
        return Judged(verdict, content, recorded, why, settled)
    return Judged(Verdict.EDITED, content, recorded, _why_edited(recorded, ours=ours), settled)


def _why_edited(recorded: Checksum | None, *, ours: bool) -> str:
    if recorded is None:
        return "it was not written by Seline"
    return "it was edited by hand" if ours else "it was written for another document"
