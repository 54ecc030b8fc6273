"""A bot that uses the documented names passes the type checkers."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOT = Path(__file__).with_name("typed_bot.py")


@pytest.mark.prove
@pytest.mark.parametrize(
    "checker", [("mypy", "--strict"), ("pyright",)], ids=lambda words: words[0]
)
def test_a_bot_passes_the_type_checker(checker: tuple[str, ...]) -> None:
    if importlib.util.find_spec(checker[0]) is None:
        pytest.skip(f"{checker[0]} is not installed in this environment")
    command = [sys.executable, "-m", *checker, str(BOT)]

    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout
