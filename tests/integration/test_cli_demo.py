"""`seline demo`: a bit flip is found and recovered, in scratch space and in a real document."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seline.bit_flip import choose_flip, flip_in_place
from seline.domain.json_codec import decode_strict, encode, why_not_json
from tests.command_line import Line, line_at

NAME = "user_profile.json"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


def test_the_demo_shows_flip_and_recovery_in_under_ten_seconds(line: Line) -> None:
    started = time.monotonic()
    shown = line("demo")

    assert time.monotonic() - started < 10
    assert shown.code == 0
    assert re.search(
        r"Save\..*Flip\..*Detection and recovery\..*Nothing is hidden", shown.out, re.DOTALL
    )
    assert "was altered" in shown.out
    assert "nothing is lost" in shown.out
    scratch = re.search(r"\S*seline-demo-\w+", shown.out)
    assert scratch is not None
    assert not Path(scratch[0]).exists()
    assert not line.data.exists()


def test_a_flip_changes_one_bit_and_keeps_the_files_time(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    line("save", NAME, stdin='{"userName": "Alex", "location": "Lyon"}')
    path = line.data / NAME
    before, time_before = path.read_bytes(), path.stat().st_mtime_ns

    tried = line("demo", "--flip", NAME, "--dry-run")
    assert (tried.code, path.read_bytes()) == (0, before)
    flipped = line("demo", "--flip", NAME)

    after = path.read_bytes()
    differing = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(differing) == 1
    assert (differing[0][0] ^ differing[0][1]).bit_count() == 1
    assert path.stat().st_mtime_ns == time_before
    assert all(verb in flipped.out for verb in (f"seline load {NAME}", "seline verify"))

    assert line("load", NAME).value() == {"userName": "Alex"}
    copied = re.search(r"seline save \S+ (\S+)", flipped.out)
    assert copied is not None
    assert line("save", NAME, copied[1]).code == 0
    assert line("load", NAME).value()["location"] == "Lyon"
    Path(copied[1]).unlink()


def test_a_flip_without_a_backup_names_the_steps_to_save_the_copy(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')

    flipped = line("demo", "--flip", NAME)

    assert "exits 3 if nothing sound is left" in flipped.out
    assert line("load", NAME).code == 3
    copied = re.search(r"seline save \S+ (\S+)", flipped.out)
    assert copied is not None
    assert f"seline reset {NAME}" in flipped.out
    assert line("reset", NAME, "--yes").code == 0
    assert line("save", NAME, copied[1]).code == 0
    assert line("load", NAME).value() == {"userName": "Alex"}
    Path(copied[1]).unlink()


def test_only_an_existing_local_document_can_be_flipped(line: Line) -> None:
    line.data.mkdir()

    assert line("demo", "--flip", "nope.json").code == 4
    assert line("demo", "--flip", "../x.json").code == 5
    assert line("demo", "--flip", NAME, "--url", "http://127.0.0.1:1").code == 2
    assert line("demo", "--dry-run").code == 2


@given(st.dictionaries(st.text(max_size=5), st.text("aeiou123", min_size=1), min_size=1))
@settings(max_examples=50)
def test_a_flip_inside_a_text_stays_json_with_another_value(value: dict[str, str]) -> None:
    data = encode(value)

    assert decode_strict(choose_flip(data)) != value


@pytest.mark.parametrize("text", ["{}", "[]", "null", '""', "7", "[17]", '{"k": null}', '"é"'])
def test_the_smallest_documents_can_be_flipped(text: str, tmp_path: Path) -> None:
    data = encode(json.loads(text))
    path = tmp_path / "small.json"
    path.write_bytes(data)
    flipped = choose_flip(data)

    flip_in_place(str(path), data, flipped)

    assert path.read_bytes() == flipped != data
    assert (why_not_json(flipped) is None) == any(sign in "17é" for sign in text)


def test_a_flip_follows_no_link(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_bytes(b'"abc"\n')
    (tmp_path / "link.json").symlink_to(real)

    with pytest.raises(OSError, match="symbolic links"):
        flip_in_place(str(tmp_path / "link.json"), b'"abc"\n', choose_flip(b'"abc"\n'))

    assert real.read_bytes() == b'"abc"\n'
