"""What health and alerts report of each destination: its problems, last copy and last proof."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from seline.domain.plural import shortened
from seline.domain.report import Status
from seline.errors import DocumentUnrecoverable
from seline.operations.destinations import DestinationRecord
from seline.operations.exports import SAME_DISK
from seline.ports.destinations import Target

PROVEN_LATE_AFTER: Final = timedelta(days=30)
EXPORT_LATE_AFTER: Final = timedelta(days=8)
"""Longer than the rarest schedule, a week."""


class Problem(NamedTuple):
    """What is wrong at a destination, and what to do. `by_job`: a job's failure reports it."""

    detail: str
    fix: str
    by_job: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationCheck:
    """What is known of one destination: its problems, and in words its last copy and proof.

    `fix` is the next step where it has no copy yet, and is no problem.
    """

    name: str
    last: str
    problems: tuple[Problem, ...]
    fix: str = ""

    @property
    def status(self) -> Status:
        if self.problems:
            return Status.WARNING
        return Status.INFO if self.fix else Status.OK

    @property
    def detail(self) -> str:
        """Everything in one line."""
        return "; ".join([f"{self.name}: {self.last}", *(found.detail for found in self.problems)])

    @property
    def fixes(self) -> list[str]:
        """The next steps, each once."""
        return list(dict.fromkeys([*(found.fix for found in self.problems), self.fix]))


def check_destination(target: Target, record: DestinationRecord, now: datetime) -> DestinationCheck:
    """Return what is known of a destination."""
    name = target.destination.name
    last = _last_copies(target, record)
    if not last:
        job = "mirror" if target.takes_mirror else "export"
        problems = tuple(_failures(record))
        fix = "" if problems else f"Run `seline jobs run {job}`."
        return DestinationCheck(name=name, last="none was written yet", problems=problems, fix=fix)
    last += [_proof(record)] if target.takes_mirror else []
    problems = tuple(_problems(target, record, now))
    return DestinationCheck(name=name, last=", ".join(last), problems=problems)


def _last_copies(target: Target, record: DestinationRecord) -> list[str]:
    """Return what is known of the newest copy of each kind that a destination takes."""
    last: list[str] = []
    if target.takes_mirror and record.mirrored_at:
        last.append(f"the newest copy is of {record.mirrored_at:%Y-%m-%d %H:%M} UTC")
    if target.takes_exports and record.whole_at:
        last.append(f"the last whole export was seen on {record.whole_at:%Y-%m-%d %H:%M} UTC")
    return last


def _proof(record: DestinationRecord) -> str:
    if record.proven_at is None:
        return "not proven restorable yet"
    return f"last proven restorable {record.proven_at:%Y-%m-%d %H:%M} UTC by {record.proven_by}"


def _problems(target: Target, record: DestinationRecord, now: datetime) -> Iterator[Problem]:
    yield from _failures(record)
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
    if target.takes_mirror:
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


def _unproven(name: str, record: DestinationRecord, now: datetime) -> Iterator[Problem]:
    """Yield why the copies are not known to be restorable."""
    proven_at, checked_at = record.proven_at, record.checked_at
    if record.drill_failure:
        detail, fix = f"the drill failed: {record.drill_failure}", record.drill_cure
        yield Problem(detail=detail, fix=fix, by_job=True)
        return
    since = proven_at or record.mirrored_since
    is_old = since is not None and now - since > PROVEN_LATE_AFTER
    is_without_key = checked_at is not None and (proven_at is None or checked_at > proven_at)
    if is_without_key and (is_old or proven_at is None):
        fix = f"Run `seline drill {name} --identity key.txt` on the machine that has the key."
        yield Problem(detail="the key is not here, so only a person can prove it", fix=fix)
    elif is_old:
        detail = f"no copy was proven for {PROVEN_LATE_AFTER.days} days"
        yield Problem(detail=detail, fix="Run `seline jobs run drill`.")
