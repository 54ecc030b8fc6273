"""The product's code and text keep the measures that make them easy to read."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PRODUCT = [path for folder in ("seline", "workers") for path in (ROOT / folder).rglob("*.py")]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
GENERATED = ROOT / "docs" / "reliability.md"
BODY_LINES_MAX = 40
INDIRECT_PER_1000_WORDS_MAX = 1.0
INDIRECT = re.compile(
    r"\b(told|tells?|hears?|heard|said|says|whoever|whatever|wherever|nobody|somebody|anybody|anew|"
    r"meanwhile|begun|lies? there|let(?:s|ting)? go|of its own|of their own|came out|comes out|"
    r"stands?|stood|what there is|at hand|goes on|went on|takes? over|by hand's|all the same|"
    r"as it were|in the way)\b",
    re.IGNORECASE,
)
"""Expressions that a reader has to translate: write the usual verb, or the field's noun."""
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Documented = (ast.Module, ast.ClassDef, *_Function)


class Definition(NamedTuple):
    """A module, class, function or alias of a type in the product's code."""

    file: str
    name: str
    docstring: str | None
    type_name: str | None
    """Of a class or an alias."""
    body_lines: int
    """Of a function, without its docstring."""


@cache
def definitions() -> list[Definition]:
    """Return every definition; the nodes of all files would slow each garbage collection."""
    return [
        Definition(
            file=str(path.relative_to(ROOT)),
            name=getattr(node, "name", ""),
            docstring=ast.get_docstring(node) if isinstance(node, _Documented) else None,
            type_name=name_of_type(node),
            body_lines=body_lines(node) if isinstance(node, _Function) else 0,
        )
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (*_Documented, ast.AnnAssign))
    ]


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield every docstring of the product's code, with the name of its file."""
    for each in definitions():
        if each.docstring is not None:
            yield each.file, each.docstring


def pages() -> Iterator[tuple[str, str]]:
    """Yield the prose of every page that a person wrote."""
    for path in PAGES:
        if path != GENERATED:
            yield str(path.relative_to(ROOT)), _BLOCK.sub("", path.read_text(encoding="utf-8"))


def check_prose(texts: Iterator[tuple[str, str]]) -> None:
    """Fail where too many expressions of the list are in the texts, and name each."""
    words, found = 0, []
    for name, text in texts:
        words += len(re.findall(r"[A-Za-z']+", text))
        found += [
            f"{name}: {line.strip()}" for line in text.splitlines() for _ in INDIRECT.findall(line)
        ]
    assert len(found) * 1000 <= words * INDIRECT_PER_1000_WORDS_MAX, "\n".join(found)


def test_docstrings_are_in_plain_english() -> None:
    """Use at most one indirect expression in 1,000 words."""
    check_prose(docstrings())


def test_pages_are_in_plain_english() -> None:
    """Use at most one indirect expression in 1,000 words."""
    check_prose(pages())


def test_no_name_of_a_type_is_used_for_two_things() -> None:
    """Let a name lead to one class or alias; `seline.blocking` repeats the awaited names."""
    homes: dict[str, list[str]] = defaultdict(list)
    for each in definitions():
        if each.type_name is not None and each.file != "seline/blocking.py":
            homes[each.type_name].append(each.file)

    assert not {name: files for name, files in homes.items() if len(files) > 1}


def name_of_type(node: ast.AST) -> str | None:
    """Return the name of a class, or of an alias of a type that is not the same name elsewhere."""
    if isinstance(node, ast.ClassDef):
        return node.name.lstrip("_")
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
        alias = ast.unparse(node.target)
        repeats = ast.unparse(node.value or node.target).strip("'").endswith(f".{alias}")
        return None if repeats else alias.lstrip("_")
    return None


def test_no_group_has_a_possessive_repeat() -> None:
    """Python before 3.11.5 matches one wrongly if it has branches; an atomic group is right."""
    repeats = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PRODUCT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if repeats.search(line)
    ]
    assert found == []


def test_no_function_body_is_longer_than_a_screen() -> None:
    """Count the lines of a body without its docstring."""
    long = [
        f"{each.file}: {each.name} has {each.body_lines} lines"
        for each in definitions()
        if each.body_lines > BODY_LINES_MAX
    ]

    assert not long


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function's body."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
