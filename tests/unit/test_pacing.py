"""Pauses of a thread that looks at many files."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from seline import pacing
from seline.blocking import open_seline
from seline.pacing import FILES, paced


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made, in seconds."""
    made: list[float] = []
    monkeypatch.setattr(pacing, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize(("count", "paused"), [(0, 0), (9, 0), (10, 1), (35, 3)])
def test_every_item_is_yielded_in_order_with_a_pause_after_every_ten(
    count: int, paused: int, pauses: list[float]
) -> None:
    assert list(paced(iter(range(count)), every=10)) == list(range(count))
    assert len(pauses) == paused


def test_a_listing_pauses(tmp_path: Path, pauses: list[float]) -> None:
    with open_seline(tmp_path / "data", lock_wait_s=0) as seline:
        for number in range(FILES):
            seline.data.save_json(f"{number}.json", {"n": number})
        pauses.clear()
        seline.data.documents()  # the documents, and what changed outside
        assert len(pauses) == 2
