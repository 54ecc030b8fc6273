"""The steps for a path of the wrong kind: following them as printed loses nothing."""

import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from seline.cures import cure_of, free_path, not_regular

NAME: Final = "a\nb.json"


def folder(place: Path) -> None:
    (place / NAME).mkdir()
    (place / NAME / "mine").write_text("in the folder")


def link(place: Path) -> None:
    (place / "real.json").write_text("behind the link")
    (place / NAME).symlink_to("real.json")


def link_to_folder(place: Path) -> None:
    (place / "real").mkdir()
    (place / "real" / "mine").write_text("behind the link")
    os.mkfifo(place / "real" / "pipe")
    (place / NAME).symlink_to("real")


def pipe(place: Path) -> None:
    os.mkfifo(place / NAME)


def dangling(place: Path) -> None:
    (place / NAME).symlink_to("nowhere")


def texts(place: Path) -> set[str]:
    return {path.read_text() for path in place.rglob("*") if path.is_file()}


def follow(place: Path, hint: str) -> None:
    [command] = re.findall(r"`(.*)`", hint, re.DOTALL)
    subprocess.run(["sh", "-ec", command], cwd=place, check=True, timeout=10)


@pytest.mark.follows("cure:special", "cure:dangling")
@pytest.mark.parametrize("make", [folder, link, link_to_folder, pipe, dangling])
def test_a_step_for_a_wrong_kind_overwrites_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Beside files with the names that a fixed suffix would take."""
    for suffix in ("moved", "copy"):
        (tmp_path / f"{NAME}.{suffix}").write_text(f"mine.{suffix}")
    make(tmp_path)
    before = texts(tmp_path)

    follow(tmp_path, not_regular(str(tmp_path / NAME)).hint)

    assert before <= texts(tmp_path)
    assert not (tmp_path / NAME).is_symlink()
    assert (tmp_path / NAME).exists() == (make in (link, link_to_folder))


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_a_free_name_is_never_too_long_for_a_file(tmp_path: Path, name: str) -> None:
    for _ in range(3):
        Path(free_path(f"{tmp_path / name}.moved")).write_text("taken")

    assert len(list(tmp_path.glob("*.moved*"))) == 3


def test_what_another_user_owns_is_used_as_that_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of that user may hold it, and lose its access by `chown`."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    os.chown(tmp_path, 4321, -1)

    hint = cure_of(errno.EACCES, str(tmp_path)).hint

    assert hint.startswith("Run it as user 4321")
    assert "Only if no process of user 4321 uses it" in hint.partition("chown")[0]
