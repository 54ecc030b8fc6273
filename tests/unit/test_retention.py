"""Which backups are kept and why, always including the newest sound one (V8)."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from seline.domain.backup import Backup
from seline.domain.retention import (
    NOT_OURS,
    RetentionPlan,
    RetentionPolicy,
    plan_deleted,
    plan_retention,
    plan_shedding,
)
from seline.settings.values import Backups
from tests.unit.values import a_backup, backups_of_one

COUNTED = ("sound", "unchecked")

counts = st.integers(0, 4)
policies = st.builds(
    RetentionPolicy,
    keep_newest=counts,
    keep_hourly=counts,
    keep_daily=counts,
    keep_weekly=counts,
    keep_monthly=counts,
    bytes_max=st.none() | st.integers(0, 4000),
)
revisions = st.sampled_from((None, "a", "b", "c"))


def plan(
    backups: list[Backup], current_revision: str | None = None, **limits: Any
) -> RetentionPlan:
    policy = RetentionPolicy(**limits)
    return plan_retention(backups, policy, current_revision=current_revision)


def kept(result: RetentionPlan) -> list[str]:
    return names(*result.keep)


def shed(backups: dict[str, list[Backup]], keep_newest: int = 5) -> list[str]:
    return names(*(backup for _, backup in plan_shedding(backups, keep_newest=keep_newest)))


def names(*backups: Backup) -> list[str]:
    return [backup.name for backup in backups]


def newest_sound(backups: list[Backup], current_revision: str | None = None) -> Backup | None:
    sound = [backup for backup in backups if backup.verdict in COUNTED]
    others = [b for b in sound if b.revision is None or b.revision != current_revision]
    return max(others or sound, key=lambda backup: backup.stamp, default=None)


# rules that hold for every policy


@given(backups_of_one(), policies, revisions)
def test_the_newest_sound_backup_is_always_kept(
    backups: list[Backup], policy: RetentionPolicy, current_revision: str | None
) -> None:
    result = plan_retention(backups, policy, current_revision=current_revision)

    newest = newest_sound(backups, current_revision)
    assert newest is None or newest.name in kept(result)


@given(backups_of_one(), policies, revisions)
def test_every_backup_is_kept_or_dropped_with_a_reason(
    backups: list[Backup], policy: RetentionPolicy, current_revision: str | None
) -> None:
    result = plan_retention(backups, policy, current_revision=current_revision)

    both = [*result.keep, *result.drop]
    assert sorted(names(*both)) == sorted(names(*backups))
    assert all(backup.because for backup in both)
    for side in (result.keep, result.drop):
        stamps = [backup.stamp for backup in side]
        assert stamps == sorted(stamps, reverse=True)


@given(backups_of_one(), policies, st.data())
def test_the_plan_does_not_depend_on_the_listing_order(
    backups: list[Backup], policy: RetentionPolicy, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(backups))

    assert plan_retention(shuffled, policy) == plan_retention(backups, policy)


@given(backups_of_one(), policies, revisions)
def test_a_pinned_backup_does_not_change_the_plan_of_other_contents(
    backups: list[Backup], policy: RetentionPolicy, current_revision: str | None
) -> None:
    own = [
        replace(backup, revision=None if backup.pinned else backup.revision) for backup in backups
    ]
    pinned = {backup.name for backup in own if backup.pinned}

    result = plan_retention(own, policy, current_revision=current_revision)

    assert pinned <= set(kept(result))
    if newest := newest_sound([b for b in own if b.name not in pinned], current_revision):
        alone = plan_retention(
            [b for b in own if b.name not in pinned], policy, current_revision=current_revision
        )
        assert set(kept(alone)) - {newest.name} <= set(kept(result))


@given(
    backups_of_one(),
    policies,
    st.sampled_from(["newest", "hourly", "daily", "weekly", "monthly"]),
    st.integers(1, 5),
)
def test_a_wider_policy_never_keeps_less(
    backups: list[Backup], policy: RetentionPolicy, word: str, more: int
) -> None:
    """All contents differ, because a newer copy would replace an older backup."""
    own = [replace(backup, revision=None) for backup in backups]
    narrow = dataclasses.replace(policy, bytes_max=None)
    wide = dataclasses.replace(narrow, **{f"keep_{word}": getattr(narrow, f"keep_{word}") + more})

    assert set(kept(plan_retention(own, narrow))) <= set(kept(plan_retention(own, wide)))


@given(backups_of_one(), policies, st.integers(0, 4000), st.integers(0, 4000))
def test_a_larger_byte_limit_never_keeps_less(
    backups: list[Backup], policy: RetentionPolicy, bytes_max: int, more: int
) -> None:
    narrow, wide = (
        dataclasses.replace(policy, bytes_max=limit) for limit in (bytes_max, bytes_max + more)
    )

    assert set(kept(plan_retention(backups, narrow))) <= set(kept(plan_retention(backups, wide)))


@given(backups_of_one(), policies, st.integers(0, 4000))
def test_the_byte_limit_holds_except_for_the_newest_sound_backup(
    backups: list[Backup], policy: RetentionPolicy, bytes_max: int
) -> None:
    newest = newest_sound(backups)
    result = plan_retention(backups, dataclasses.replace(policy, bytes_max=bytes_max))

    unpinned = [backup for backup in result.keep if not backup.pinned]
    total_bytes = sum(backup.size_bytes for backup in unpinned)
    assert newest is None or total_bytes <= max(
        bytes_max, newest.size_bytes if newest.name in names(*unpinned) else 0
    )


@given(backups_of_one(), policies, revisions)
def test_applying_a_plan_leaves_nothing_more_to_drop(
    backups: list[Backup], policy: RetentionPolicy, current_revision: str | None
) -> None:
    result = plan_retention(backups, policy, current_revision=current_revision)

    again = plan_retention(result.keep, policy, current_revision=current_revision)

    assert kept(again) == kept(result)


# the default policy


def test_the_five_newest_are_kept_and_older_ones_dropped() -> None:
    seven = [a_backup(hours_ago) for hours_ago in range(7)]

    result = plan(seven)

    assert kept(result) == names(*seven[:5])
    assert {entry.because for entry in result.keep} == {"newest 5"}
    assert {entry.because for entry in result.drop} == {"older than the policy keeps"}


def test_counters_within_one_second_are_compared_as_numbers() -> None:
    tenth, second = a_backup(counter=10), a_backup(counter=2)

    assert kept(plan([second, tenth], keep_newest=1)) == [tenth.name]


def test_a_broken_newest_backup_displaces_no_sound_one() -> None:
    broken = a_backup(0, verdict="torn")
    sound = [a_backup(hours_ago) for hours_ago in range(1, 7)]

    result = plan([broken, *sound])

    assert kept(result) == names(*sound[:5])
    assert result.drop[0].because == "torn, and there are enough sound ones"


@pytest.mark.parametrize("verdict", ["torn", "altered", "edited", "unreadable"])
def test_broken_backups_are_kept_while_there_are_few_sound_ones(verdict: str) -> None:
    broken, sound = a_backup(0, verdict=verdict), a_backup(1)

    result = plan([broken, sound])

    assert kept(result) == names(broken, sound)
    assert result.keep[0].because == f"{verdict}, but there are few sound ones"


def test_without_a_sound_backup_nothing_is_dropped() -> None:
    broken = [a_backup(hours_ago, verdict="torn") for hours_ago in range(9)]

    assert not plan(broken, keep_newest=1, bytes_max=0).drop


def test_keep_newest_zero_still_keeps_the_newest_sound_backup() -> None:
    result = plan([a_backup(0, verdict="torn"), a_backup(1), a_backup(2)], keep_newest=0)

    assert kept(result) == [a_backup(1).name]
    assert result.keep[0].because == "newest sound"


# periods


def test_daily_keeps_the_newest_of_each_day_that_has_a_backup() -> None:
    today, earlier, yesterday, week_ago = (a_backup(hours) for hours in (0, 3, 24, 24 * 7))

    result = plan([today, earlier, yesterday, week_ago], keep_newest=0, keep_daily=3)

    assert kept(result) == names(today, yesterday, week_ago)
    assert {entry.because for entry in result.keep} == {"daily"}


@pytest.mark.parametrize(
    ("word", "hours"),
    [("hourly", (0, 1, 2)), ("daily", (0, 24, 48)), ("weekly", (0, 168, 336)),
     ("monthly", (0, 24 * 10, 24 * 40))],
)  # fmt: skip
def test_each_period_keeps_its_number_of_backups(word: str, hours: tuple[int, ...]) -> None:
    backups = [a_backup(hours_ago) for hours_ago in hours]

    limits: dict[str, Any] = {f"keep_{word}": 2}

    result = plan(backups, keep_newest=0, **limits)

    assert kept(result) == names(*backups[:2])


def test_a_week_is_an_iso_week_across_new_year() -> None:
    """Monday 30 December 2024 and Sunday 5 January 2025 are one week."""
    sunday, monday = a_backup(24), a_backup(24 * 7)

    assert kept(plan([sunday, monday], keep_newest=0, keep_weekly=5)) == [sunday.name]


def test_a_backup_kept_by_two_rules_has_both_reasons() -> None:
    assert plan([a_backup()], keep_daily=1).keep[0].because == "newest 5, daily"


# pins


def test_pinned_backups_are_kept_uncounted_with_their_reason() -> None:
    pinned = a_backup(100, pinned=True, because="before a blank save")
    others = [a_backup(hours_ago) for hours_ago in range(6)]

    result = plan([*others, pinned])

    assert kept(result) == names(*others[:5], pinned)
    assert result.keep[-1].because == "pinned: before a blank save"


def test_a_pinned_backup_without_a_reason_is_kept() -> None:
    assert plan([a_backup(pinned=True)]).keep[0].because == "pinned"


# copies


def test_a_copy_of_the_document_or_of_a_newer_backup_is_dropped() -> None:
    current, newer, copy, other = (
        a_backup(hours, revision=revision)
        for hours, revision in ((0, "now"), (1, "a"), (2, "a"), (3, "b"))
    )

    result = plan([current, newer, copy, other], "now", keep_newest=2)

    assert kept(result) == names(newer, other)
    assert [entry.because for entry in result.drop] == [
        "same content as its document",
        f"same content as {newer.name}",
    ]


def test_the_only_sound_backup_is_kept_though_it_equals_its_document() -> None:
    """After a restore from the only backup, that backup protects from a flipped bit."""
    assert kept(plan([a_backup(revision="now")], "now")) == [a_backup().name]


def test_a_copy_is_kept_if_the_newer_backup_is_dropped() -> None:
    last, dropped, copy = (
        a_backup(hours, revision=revision) for hours, revision in ((0, "b"), (1, "a"), (24, "a"))
    )

    result = plan([last, dropped, copy], keep_newest=1, keep_daily=2)

    assert kept(result) == names(last, copy)


def test_a_verified_backup_is_no_copy_of_an_unchecked_one() -> None:
    unchecked = a_backup(0, revision="a", verdict="unchecked")
    sound = a_backup(1, revision="a", verdict="sound")

    assert kept(plan([unchecked, sound])) == names(unchecked, sound)


def test_broken_backups_are_not_compared_as_copies() -> None:
    broken = a_backup(0, revision="a", verdict="altered")

    assert kept(plan([broken, a_backup(1, revision="a")])) == names(broken, a_backup(1))


# bytes


def test_over_the_byte_limit_broken_backups_are_dropped_first() -> None:
    broken = a_backup(0, verdict="torn")
    sound = [a_backup(hours_ago) for hours_ago in (1, 2, 3)]

    assert kept(plan([broken, *sound], bytes_max=300)) == names(*sound)
    result = plan([broken, *sound], bytes_max=299)
    assert kept(result) == names(*sound[:2])
    assert {entry.because for entry in result.drop} == {"over 299 bytes"}


def test_a_newest_backup_over_the_byte_limit_is_kept_alone() -> None:
    large, small = a_backup(0, size_bytes=5000), a_backup(1, size_bytes=1)

    assert kept(plan([large, small], bytes_max=1000)) == [large.name]


@pytest.mark.parametrize("limit", ["keep_newest", "keep_daily", "bytes_max"])
def test_a_negative_limit_is_refused_by_name(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        RetentionPolicy(**{limit: -1})


# shedding


@given(backups_of_one("a.json"), backups_of_one("b.json"))
def test_shedding_keeps_the_newest_sound_backup_and_frees_the_rest(
    first: list[Backup], second: list[Backup]
) -> None:
    dropped = shed({"a.json": first, "b.json": second}, keep_newest=1000)

    sheddable: list[Backup] = []
    for backups in (first, second):
        newest = newest_sound(backups)
        sheddable += [b for b in backups if newest is not None and b is not newest]
    sheddable.sort(key=lambda b: (b.pinned, not b.pinned and b.verdict in COUNTED, b.stamp, b.name))
    assert dropped == names(*sheddable)


def test_shedding_drops_by_age_across_documents_and_pinned_ones_last() -> None:
    old, newest = a_backup(9, document="a.json"), a_backup(1, document="a.json")
    pinned = a_backup(99, document="b.json", pinned=True)
    younger, last = a_backup(5, document="b.json"), a_backup(4, document="b.json")
    backups = {"a.json": [newest, old], "b.json": [last, pinned, younger]}

    assert shed(backups) == names(old, younger, pinned)


def test_what_only_the_daily_rule_keeps_is_shed_before_the_newest_of_any_document() -> None:
    days = [a_backup(24 * age, document="busy.json") for age in range(7)]
    rare = [a_backup(24 * 30 + age, document="rare.json") for age in range(3)]

    dropped = shed({"busy.json": days, "rare.json": rare})

    assert dropped == names(*days[:4:-1], *rare[:0:-1], *days[4:0:-1])


def test_a_busy_document_keeps_five_of_today_and_one_of_each_of_seven_days() -> None:
    """A hundred saves an hour for ten days: the defaults keep the last content of seven days."""
    many = [a_backup(age / 100) for age in range(100 * 240)]

    result = plan_retention(many, Backups())

    per_day = Counter(backup.taken_at.date() for backup in result.keep)
    assert [count for _, count in sorted(per_day.items())] == [1, 1, 1, 1, 1, 1, 5]


@given(st.sets(st.integers(0, 300 * 3600), min_size=1, max_size=60))
def test_the_defaults_never_keep_more_than_five_backups_of_one_day(ages_s: set[int]) -> None:
    result = plan_retention([a_backup(age_s / 3600) for age_s in ages_s], Backups())

    assert max(Counter(backup.taken_at.date() for backup in result.keep).values()) <= 5


def test_backups_of_a_document_without_a_sound_one_are_not_shed() -> None:
    broken = [a_backup(1, verdict="torn"), a_backup(2, verdict="altered")]

    assert shed({"user_profile.json": broken}) == []


# files that Seline did not write


def test_no_plan_drops_or_counts_a_file_that_seline_did_not_write() -> None:
    ours = [a_backup(hours) for hours in range(7)]
    foreign = [replace(a_backup(-hours), ours=False) for hours in range(1, 11)]
    by_policy = plan([*ours, *foreign], keep_newest=5, bytes_max=1 << 20)
    assert names(*by_policy.drop) == names(*ours[5:])
    assert {b.because for b in by_policy.keep if not b.ours} == {NOT_OURS}
    assert shed({"a.json": [*ours, *foreign]}) == names(*reversed(ours[1:]))
    assert names(*plan_deleted([*ours, *foreign]).drop) == names(*ours)
    assert not shed({"a.json": foreign})
    assert not plan(foreign, keep_newest=1).drop
