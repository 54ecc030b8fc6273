"""Which backup a document goes back to, and why the newer ones are skipped."""

from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec.structs import replace

from seline.domain.backup import Backup, Stamp, backup_name
from seline.domain.checksum import checksum_of
from seline.domain.document import BOT, Content, DocumentKey
from seline.domain.recovery import choose_backup, choose_guarded
from seline.domain.verdict import Judged, Verdict

KEY = DocumentKey(BOT, "user_profile.json")
OLD, NEW = Content.of(b'{"n": 1}\n'), Content.of(b'{"n": 2}\n')


def backup(number: int, content: Content = OLD, verdict: str = "unchecked") -> Backup:
    stamp = Stamp(datetime(2025, 1, 6, 14, number, tzinfo=UTC), 0)
    name = backup_name(KEY.name, stamp)
    return Backup(
        name=name,
        document=KEY.name,
        stamp=stamp,
        size_bytes=content.size_bytes,
        revision=content.revision,
        verdict=verdict,
    )


def sound(content: Content) -> Judged:
    return Judged(Verdict.SOUND, content, checksum_of(KEY, content, 1))


ALTERED = Judged(Verdict.ALTERED, NEW, checksum_of(KEY, OLD, 1), "its bytes changed")
WITHOUT_CHECKSUM = Judged(Verdict.EDITED, NEW)


def test_the_newest_sound_backup_is_chosen() -> None:
    candidates = [(backup(3), ALTERED), (backup(2), sound(NEW)), (backup(1), sound(OLD))]

    choice = choose_backup(candidates)

    assert choice.chosen == (backup(2), NEW)
    assert choice.reasons() == [{"backup": backup(3).name, "why": "its bytes changed"}]


def test_no_backup_is_read_after_the_chosen_one() -> None:
    def candidates() -> Iterator[tuple[Backup, Judged]]:
        yield backup(2), sound(NEW)
        raise AssertionError("an older backup was read")

    assert choose_backup(candidates()).chosen == (backup(2), NEW)


def test_a_backup_without_a_checksum_is_used_only_if_none_is_sound() -> None:
    unchecked = (backup(3), WITHOUT_CHECKSUM)

    assert choose_backup([unchecked, (backup(1), sound(OLD))]).chosen == (backup(1), OLD)
    assert choose_backup([unchecked, (backup(1), ALTERED)]).chosen == (backup(3), NEW)
    assert choose_backup([unchecked], sound_only=True).chosen is None


def test_the_current_content_is_skipped() -> None:
    candidates = [(backup(2), sound(NEW)), (backup(1), sound(OLD))]

    choice = choose_backup(candidates, unlike=NEW.revision)

    assert choice.chosen == (backup(1), OLD)
    assert choice.reasons() == [{"backup": backup(2).name, "why": "same as current"}]


def test_a_revision_is_found_again() -> None:
    candidates = [(backup(2), sound(NEW)), (backup(1), sound(OLD))]

    assert choose_backup(candidates, revision=OLD.revision).chosen == (backup(1), OLD)


def test_without_a_usable_backup_every_one_has_its_reason() -> None:
    unreadable = Judged(Verdict.UNREADABLE, reason="EIO, Input/output error")

    choice = choose_backup([(backup(2), unreadable), (backup(1), Judged(Verdict.TORN, OLD))])

    assert choice.chosen is None
    assert [why for _, why in choice.skipped] == ["EIO, Input/output error", "torn"]


def test_retention_guards_the_newest_backup_that_differs() -> None:
    newest, older = backup(2, NEW), backup(1, OLD)

    assert choose_guarded([newest, older], None) == newest
    assert choose_guarded([newest, older], NEW.revision) == older
    assert choose_guarded([newest], NEW.revision) == newest
    assert choose_guarded([replace(newest, verdict="torn"), older], None) == older
    assert choose_guarded([replace(newest, verdict="torn")], None) is None
