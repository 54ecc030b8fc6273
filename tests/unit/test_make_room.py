"""What health names to free space: what would free some, and nothing else."""

from seline.domain.usage import LEVELS, UsageLevel
from seline.operations.make_room import make_room, no_step_yet
from seline.operations.usage import Headroom
from tests.unit.test_usage import MB, a_usage

OTHERS = {"own_mount": False, "used_bytes": 300 * MB, "available_bytes": 200 * MB}


def test_a_disk_full_of_other_files_names_them_and_not_prune() -> None:
    usage = a_usage(**OTHERS, files_bytes=MB)

    assert make_room(usage, Headroom()).startswith(
        "Remove other files from the disk: Seline's are less than 1% of what is used. "
    )
    assert "prune" not in make_room(usage, Headroom())


def test_a_disk_that_is_half_full_needs_nothing_yet() -> None:
    of_others = a_usage(**OTHERS, files_bytes=15 * MB)
    of_seline = a_usage(**OTHERS, files_bytes=200 * MB)

    assert no_step_yet(of_others) == (
        "Nothing to do yet: a warning comes at 80%. Seline's files are 5% of what is used."
    )
    assert no_step_yet(of_seline) == "Nothing to do yet: a warning comes at 80%."
    assert f"{LEVELS[UsageLevel.WARNING]:.0%}" == "80%"


def test_what_prune_frees_comes_first() -> None:
    usage = a_usage(used_bytes=300 * MB, available_bytes=200 * MB, files_bytes=300 * MB)
    text = make_room(usage, Headroom(prunable_bytes=2000, deleted="old.json"))

    assert text.startswith("`seline prune` frees 2 KB. old.json is deleted: `seline delete old")
    assert text.endswith("Or enlarge the volume.")


def test_the_limit_is_named_where_it_decides() -> None:
    usage = a_usage(**OTHERS, files_bytes=9 * MB, limit_bytes=10 * MB)

    assert "`storage.volume_limit_mb`. Or remove other files from the disk." in make_room(
        usage, Headroom()
    )


def test_files_are_not_counted_as_bytes() -> None:
    usage = a_usage(**OTHERS, files_bytes=MB)

    assert "what is used" not in make_room(usage, Headroom(), of_files=True)
