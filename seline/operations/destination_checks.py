"""What health and alerts report of each destination: its problems, last copy and last proof."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from seline.domain.plural import in_one_line, shortened
from seline.domain.report import Status
from seline.errors import DocumentUnrecoverable
from seline.operations.changed_names import Waiting
from seline.operations.destinations import DestinationRecord
from seline.operations.drill import SERVICE
from seline.operations.exports import SAME_DISK
from seline.ports.destinations import Target
from seline.settings.values import UnusableBucket

PROVEN_LATE_AFTER: Final = timedelta(days=30)
EXPORT_LATE_AFTER: Final = timedelta(days=8)
"""Longer than the rarest schedule, a week."""
NONE_KNOWN: Final = "no copy is known before the first run"
"""The destination may have some: what an earlier process knew is lost, or of another volume."""
CHANGES_LATE_AFTER: Final = timedelta(minutes=15)


class Problem(NamedTuple):
    """What is wrong at a destination, and what to do. `by_job`: a job's failure reports it."""

    detail: str
    fix: str
    by_job: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationCheck:
    """What is known of one destination: its problems, and in words its last copy and proof.

    `has_copy`: it has a whole one. `fix` is the next step where none was tried yet.
    """

    name: str
    last: str
    problems: tuple[Problem, ...]
    has_copy: bool = True
    fix: str = ""

    @property
    def status(self) -> Status:
        if self.problems:
            return Status.WARNING
        return Status.OK if self.has_copy else Status.INFO

    @property
    def detail(self) -> str:
        """Everything in one line, whole sentences last."""
        details = sorted((found.detail for found in self.problems), key=lambda it: it.endswith("."))
        return in_one_line([f"{self.name}: {self.last}", *details])

    @property
    def fixes(self) -> list[str]:
        """The next steps, each once."""
        return list(dict.fromkeys([*(found.fix for found in self.problems), self.fix]))


def check_destination(
    target: Target,
    record: DestinationRecord,
    waiting: Waiting,
    now: datetime,
    *,
    gave: datetime | None = None,
) -> DestinationCheck:
    """Return what is known of a destination; `waiting`: what its mirror has not copied yet.

    `gave`: the instant of its copy that this start has restored, None if it restored none of it.
    """
    name, last = target.destination.name, _last_copies(target, record)
    if gave is not None and not last:
        last = [f"this start restored its copy of {gave:%Y-%m-%d %H:%M} UTC, and wrote none yet"]
    has_copy = bool(last)
    if target.takes_mirror and waiting.of_all and record.mirrored_at is None:
        last.append(f"the first copy has {_progress(waiting)}")
    elif waiting.since and not _are_changes_late(record, waiting, now):
        last.append(_not_copied(waiting.since, waiting, now))
    if has_copy:
        last.append(_proof(record))
    problems = tuple(_problems(target, record, waiting, now))
    job = "mirror" if target.takes_mirror else "export"
    fix = "" if last or problems else f"Run `seline jobs run {job}`."
    text = ", ".join(last or ["no copy is known" if problems else NONE_KNOWN])
    return DestinationCheck(name=name, last=text, problems=problems, has_copy=has_copy, fix=fix)


def check_unusable(bucket: UnusableBucket) -> DestinationCheck:
    """Return the check of a bucket that lacks something, so that it is no destination."""
    problem = Problem(detail=bucket.message, fix=bucket.hint)
    return DestinationCheck(
        name=bucket.name, last="it receives no copies", problems=(problem,), has_copy=False
    )


def _last_copies(target: Target, record: DestinationRecord) -> list[str]:
    """Return what is known of the newest copy of each kind that a destination takes."""
    last: list[str] = []
    if target.takes_mirror and record.mirrored_at:
        last.append(f"the newest copy is of {record.mirrored_at:%Y-%m-%d %H:%M} UTC")
    if target.takes_exports and record.whole_at:
        last.append(f"the newest export was read back on {record.whole_at:%Y-%m-%d %H:%M} UTC")
    return last


def _not_copied(since: datetime, waiting: Waiting, now: datetime) -> str:
    day = "" if since.date() == now.date() else f"{since:%Y-%m-%d} "
    done = f" ({_progress(waiting)})" if waiting.of_all else ""
    return f"changes since {day}{since:%H:%M:%S} UTC are not copied yet{done}"


def _progress(waiting: Waiting) -> str:
    return f"{waiting.copied:,} of {waiting.of_all:,} documents so far"


def _are_changes_late(record: DestinationRecord, waiting: Waiting, now: datetime) -> bool:
    """Whether changes wait for too long, and no failure is known that explains it."""
    since = _waiting_since(record, waiting)
    return since is not None and now - since > CHANGES_LATE_AFTER and not record.mirror_failure


def _waiting_since(record: DestinationRecord, waiting: Waiting) -> datetime | None:
    """Return since when changes wait; before the first copy, since when that is made."""
    return waiting.since if record.mirrored_at else record.mirror_began_at


def _proof(record: DestinationRecord) -> str:
    if record.proven_at is None:
        return "not proven restorable yet"
    proven = f"last proven restorable {record.proven_at:%Y-%m-%d %H:%M} UTC by {record.proven_by}"
    if record.not_restored and record.proven_by == SERVICE:
        return f"{proven} (compared without a restore: {record.not_restored})"
    return proven


def _problems(
    target: Target, record: DestinationRecord, waiting: Waiting, now: datetime
) -> Iterator[Problem]:
    yield from _failures(record)
    since = _waiting_since(record, waiting)
    if target.takes_mirror and since and _are_changes_late(record, waiting, now):
        detail = _not_copied(since, waiting, now)
        fix = "Run `seline jobs run mirror`; if they still wait, see that the destination answers."
        yield Problem(detail=detail, fix=fix)
    seen_at = record.whole_at or record.mirrored_since
    is_late = target.takes_exports and seen_at is not None and now - seen_at > EXPORT_LATE_AFTER
    if is_late and not record.failure:
        days = EXPORT_LATE_AFTER.days
        detail = f"no whole export was seen for {days} days"
        yield Problem(detail=detail, fix="Look at `seline jobs`.")
    if record.on_data_disk and not target.same_disk:
        name = target.destination.name
        fix = f"Use another disk, or set `same_disk = true` for {name} in `exports.destinations`."
        yield Problem(detail=SAME_DISK, fix=fix)
    yield from _unproven(target.destination.name, record, now)


def _failures(record: DestinationRecord) -> Iterator[Problem]:
    """Yield why the last run of each kind failed, or what it lacks."""
    kinds = (
        (
            "mirror",
            record.mirror_failed_at,
            record.mirror_failure,
            record.mirror_cure,
            record.mirror_lacking,
        ),
        ("export", record.failed_at, record.failure, record.cure, record.lacking),
    )
    for kind, failed_at, failure, fix, lacking in kinds:
        if failure:
            on = f" on {failed_at:%Y-%m-%d %H:%M} UTC" if failed_at else ""
            yield Problem(detail=f"the {kind} failed{on}: {failure}", fix=fix, by_job=True)
        elif lacking:
            detail = f"the last {kind} lacks {shortened(lacking)}"
            yield Problem(detail=detail, fix=DocumentUnrecoverable.hint)
    if record.mirror_older and not record.mirror_failure:
        detail = f"the last mirror has an older content of {shortened(record.mirror_older)}"
        yield Problem(detail=detail, fix=DocumentUnrecoverable.hint)


def _unproven(name: str, record: DestinationRecord, now: datetime) -> Iterator[Problem]:
    """Yield why the copies are not known to be restorable."""
    proven_at, checked_at = record.proven_at, record.checked_at
    if record.drill_failure:
        detail, fix = f"the drill failed: {record.drill_failure}", record.drill_cure
        yield Problem(detail=detail, fix=fix, by_job=True)
        return
    since = proven_at or record.mirrored_since or record.whole_since
    is_old = since is not None and now - since > PROVEN_LATE_AFTER
    is_without_key = checked_at is not None and (proven_at is None or checked_at > proven_at)
    if is_without_key and (is_old or proven_at is None):
        fix = f"Run `seline drill {name} --identity key.txt` on the machine that has the key."
        yield Problem(detail="the key is not here, so only a person can prove it", fix=fix)
    elif is_old:
        detail = f"no copy was proven for {PROVEN_LATE_AFTER.days} days"
        yield Problem(detail=detail, fix="Run `seline jobs run drill`.")
