"""Parsing an export and planning its import; an error has the path of what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain.document import Json
from seline.domain.readable_export import NAMES_SHOWN_MAX, is_replace, parse_export, plan_import
from seline.errors import ImportRefused

FILES: dict[str, Json] = {"user_profile.json": {"userName": "Alex"}, "tags.json": ["a"]}
EXPORT: dict[str, Json] = {"exported_at": "2025-01-06T14:30:22", "files": dict(FILES)}

names = st.sampled_from([f"{letter}.json" for letter in "abcdef"])
revisions = st.sampled_from(["1", "2", "3"])


def refused(value: Json) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        parse_export(value)
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        EXPORT,
        {"success": True, "data": EXPORT},
        {"data": EXPORT},
        {"files": FILES},
        {**EXPORT, "unrecoverable": ["broken.json"]},
    ],
    ids=["bare", "wrapped", "data", "files only", "with unrecoverable"],
)
def test_an_export_is_read_with_or_without_its_wrapper(value: Json) -> None:
    assert parse_export(value) == FILES


def test_metadata_json_is_left_out() -> None:
    assert parse_export({"files": {**FILES, "metadata.json": {"total_writes": 3}}}) == FILES


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, "$"),
        ([], "$"),
        ("text", "$"),
        ({}, "$.files"),
        ({"user_profile.json": {}}, "$.files"),
        ({"files": []}, "$.files"),
        ({"files": None}, "$.files"),
        ({"data": []}, "$.data"),
        ({"data": {}}, "$.data.files"),
        ({"data": {"files": 3}}, "$.data.files"),
        ({"success": False, "data": EXPORT}, "$.success"),
        ({**EXPORT, "extra": 1}, "$.extra"),
        ({"data": EXPORT, "more data": 1}, '$["more data"]'),
        ({"success": True, "data": {**EXPORT, "extra": 1}}, "$.data.extra"),
    ],
)
def test_an_invalid_export_is_refused_with_its_path(value: Json, path: str) -> None:
    error = refused(value)

    assert error.details["path"] == path
    assert error.message.startswith(f"{path}: ")
    assert "Nothing was changed" in error.message


def test_all_invalid_names_are_reported_at_once_with_reasons() -> None:
    wrong = ["../evil.json", "notes.txt", "a b.json"]

    error = refused({"files": {**FILES, **dict.fromkeys(wrong, 1)}})

    assert error.details["names"] == wrong
    assert all(repr(name) in error.message for name in wrong)
    assert "no folder" in error.message


def test_a_thousand_invalid_names_are_reported_briefly() -> None:
    error = refused({"data": {"files": {f"{number}": {} for number in range(1000)}}})

    assert len(error.details["names"]) == 1000
    assert error.details["path"] == "$.data.files"
    assert f"And {1000 - NAMES_SHOWN_MAX} more" in error.message
    assert len(error.message) < 2000


def test_parsing_does_not_change_its_argument() -> None:
    files: dict[str, Json] = {"metadata.json": {}, "a.json": 1}

    parse_export({"files": files})

    assert files == {"metadata.json": {}, "a.json": 1}


def test_every_mode_is_parsed_from_its_name() -> None:
    assert is_replace("replace")
    assert not is_replace("merge")


def test_an_unknown_mode_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ImportRefused) as caught:
        is_replace("overwrite")

    assert "merge" in caught.value.hint
    assert "replace" in caught.value.hint


def test_a_plan_sorts_each_document_into_one_list() -> None:
    current = {"same.json": "1", "old.json": "1", "stays.json": "1", "broken.json": None}
    incoming = {"z.json": "9", "same.json": "1", "old.json": "2", "broken.json": "1", "a.json": "9"}

    plan = plan_import(current, incoming, dry_run=True)

    assert plan.created == ("a.json", "z.json")
    assert plan.changed == ("broken.json", "old.json")
    assert plan.unchanged == ("same.json",)
    assert plan.deleted == ()
    assert plan.dry_run
    replaced = plan_import(current, incoming, replace=True)
    assert replaced.deleted == ("stays.json",)
    assert not replaced.dry_run


@given(
    st.dictionaries(names, revisions | st.none()), st.dictionaries(names, revisions), st.booleans()
)
def test_applying_a_plan_gives_the_result_of_its_mode(
    current: dict[str, str | None], incoming: dict[str, str], replace: bool
) -> None:
    plan = plan_import(current, incoming, replace=replace)

    after = {name: revision for name, revision in current.items() if name not in plan.deleted}
    after |= {name: incoming[name] for name in (*plan.created, *plan.changed)}
    expected = incoming if replace else {**current, **incoming}
    assert after == expected
    assert sorted((*plan.created, *plan.changed, *plan.unchanged)) == sorted(incoming)
