"""Every next step of the product is followed by a test, or has a reason why none can follow it."""

import ast
from fnmatch import fnmatchcase
from functools import cache
from typing import Final

from tests.docs.blocks import ROOT
from tests.hints.collected import collected, unknown

EXEMPT: Final = {
    "alert:days_until_full": "the forecast needs days; each way frees space, as for `usage`",
    "alert:job_overdue": "it needs two periods of a job; its commands are those of `job_failed`",
    "alert:test": "it asks for nothing",
    "cure:EDQUOT": "the file systems of the tests have no quota",
    "cure:EINVAL": "the tests run on a file system that can do all",
    "cure:ENOMEM": "a test cannot take the memory of its process",
    "cure:ENOTDIR": "each place where it arises has its own text",
    "cure:ESTALE": "it needs a network file system",
    "cli/__init__:main": "the tests run on Linux",
    "error:document_unreadable": "never shown: each cause has its own cure",
    "error:volume_failed": "it needs a disk that hangs; its export is that of `disk_error`",
    "error:volume_read_only": "never shown: its cure is that of EROFS",
    "error:not_serializable": "never shown: each value has its own fix",
    "error:settings_error": "never shown: each setting has its own step",
    "manager/awaited_store:reading": "only the provider mends a disk that hangs",
    "operations/checks:_unanswered": "only the provider mends a disk that hangs",
    "error:unsupported_format": "the newer Seline does not exist yet",
}
"""Next steps that no test follows, with the reason."""


@cache
def followed() -> frozenset[str]:
    """Return the keys, or patterns of keys, in the marks of all tests."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(
        str(ast.literal_eval(key))
        for text in texts
        if "pytest.mark.follows" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.follows"
        for key in node.args
    )


def test_every_next_step_is_followed_by_a_test() -> None:
    patterns = followed()
    left = {
        key: text
        for key, text in collected().items()
        if key not in EXEMPT and not any(fnmatchcase(key, pattern) for pattern in patterns)
    }

    assert not left, "\n".join(f"{key}: {text}" for key, text in left.items())


def test_no_mark_and_no_exemption_names_what_does_not_exist() -> None:
    names = {pattern for pattern in followed() if "*" not in pattern} | set(EXEMPT)

    assert names <= set(collected())
    assert not set(EXEMPT) & followed()


def test_every_next_step_can_be_collected() -> None:
    """Write a next step where it is given, or in a table that `collected.py` knows."""
    assert unknown() == []
