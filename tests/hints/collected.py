"""Collect every next step of the product, from its tables and from where it is given.

A next step is a class's `hint`, the `fix` of an alert, the value of a keyword or variable `hint`
or `fix`, the second argument of `report`, the third value of a health check, the hint of a cure,
and a printed text with `Next: ` or `To undo: `. Its key is `error:CODE`, `alert:TYPE`,
`TABLE:ROW`, or `FILE:FUNCTION`, with `#2` for the second one there.
"""

import ast
import errno
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from seline import cures, errors
from seline.cli import errors as exits
from seline.domain import json_codec, json_flaws
from seline.domain.alerts.lifecycle import AlertType
from seline.domain.alerts.message import texts
from seline.errors import SelineError
from tests.docs.blocks import ROOT

SOURCES: Final = (ROOT / "seline", ROOT / "workers" / "seline_workers")
NAMES: Final = frozenset({"hint", "fix"})
PRINTED: Final = re.compile(r"\bNext: [^{%\s]|\bTo (undo|see|read)\b.*:")
PASSED_ON: Final = re.compile(
    r"(.*\.)?(hint|fix)|_?[A-Z_]+|HINTS\[.*\]|''|str\(problem\.get\('hint'\).*|compose\(.*"
)
IN_TABLES: Final = frozenset({ROOT / "seline" / "errors.py", ROOT / "seline" / "cures.py"})


@functools.cache
def collected() -> dict[str, str]:
    """Return every next step by its key; `{}` in a text stands for a detail."""
    steps = dict(_in_tables())
    for folder in SOURCES:
        for path in sorted(set(folder.rglob("*.py")) - IN_TABLES):
            steps |= _in_file(path)
    return steps


def matches(key: str, text: str) -> bool:
    """Return whether a printed text is the next step with this key, with its details."""
    parts = re.split(r"\{\w*\}|\bNAME\b", collected()[key])
    return re.fullmatch(".+".join(map(re.escape, parts)), text, re.DOTALL) is not None


def _in_tables() -> Iterator[tuple[str, str]]:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, SelineError) and "hint" in vars(kind):
            yield f"error:{kind.code}", kind.hint
    for alert in AlertType:
        words = texts("en").alerts[alert]
        yield f"alert:{alert}", words.fix
        for name, fix in (("edit", words.fix_edit), ("backup", words.fix_backup)):
            if fix:
                yield f"alert:{alert}:{name}", fix
    for reason, hint in json_codec.HINTS.items():
        yield f"json:{reason}", hint
    yield "json:other", json_codec.OTHER_HINT
    checks = (fix for _, _, fix in json_flaws.CHECKS.values())
    for fix in (*json_flaws.FIXES, *json_flaws.FIXES_BY_ATTRIBUTE.values(), *checks):
        yield f"flaw:{fix}", fix
    yield "flaw:other", json_flaws.ANY_OTHER
    for number, (_, hint) in exits.OF_OS.items():
        yield f"os:{errno.errorcode[number]}", hint
    yield "os:other", exits.OF_ANY_OS[1]
    numbers = {cure.hint: errno.errorcode[number] for number, cure in [*cures.OF_OS.items()][::-1]}
    yield from ((f"cure:{number}", hint) for hint, number in numbers.items())
    yield "cure:not_regular", cures.NOT_REGULAR.hint
    yield "cure:special", cures.SPECIAL.hint
    yield "cure:dangling", cures.DANGLING.hint
    yield "cure:other", cures.ANY_OTHER.hint


def _in_file(path: Path) -> dict[str, str]:
    """Return the next steps that one file gives, by its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    place = str(path.relative_to(ROOT)).removeprefix("seline/").removesuffix(".py")
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    steps: dict[str, str] = {}
    for function, text in _in_node(tree, "", constants):
        same = sum(key.partition("#")[0] == f"{place}:{function}" for key in steps)
        if text not in (given for key, given in steps.items() if key.startswith(f"{place}:")):
            steps[f"{place}:{function}" + (f"#{same + 1}" if same else "")] = text
    return steps


def _in_node(
    node: ast.AST, function: str, constants: Mapping[str, ast.expr]
) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        inner = child.name if is_function else function
        for value in _given(child):
            yield from ((inner, text) for text in _texts(value, constants))
        if isinstance(child, ast.Constant | ast.JoinedStr):
            yield from ((inner, text) for text in _texts(child, {}) if PRINTED.search(text))
        else:
            yield from _in_node(child, inner, constants)


def _given(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the values of a node that are next steps."""
    match node:
        case ast.Call(func=ast.Attribute(attr="report"), args=[_, hint]):
            yield hint
        case ast.Call(func=ast.Name(id="Cure"), args=[_, hint]):
            yield hint
        case ast.Call(func=ast.Name(id="Flaw"), args=[_, _, fix]):
            yield fix
        case ast.Call(keywords=keywords):
            yield from (keyword.value for keyword in keywords if keyword.arg in NAMES)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in NAMES:
            yield value
        case ast.Return(value=ast.Tuple(elts=[_, _, fix])):
            yield fix
        case _:
            pass


def _texts(value: ast.expr, constants: Mapping[str, ast.expr]) -> list[str]:
    """Return the texts that an expression may have; other calls and variables have none here.

    An f-string without words of its own has none: it joins texts that are collected elsewhere.
    """
    match value:
        case ast.Constant(value=str(text)) if text:
            return [text]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, constants), *_texts(orelse, constants)]
        case ast.JoinedStr(values=parts):
            known = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts]
            return ["".join(known)] if re.search(r"\w", "".join(known)) else []
        case ast.Name(id=name) if name in constants:
            return _texts(constants[name], {})
        case _:
            return []


def unknown() -> list[str]:
    """Return the keywords `hint` and `fix` whose value is neither a text nor passed on."""
    found: list[str] = []
    every = {path for folder in SOURCES for path in folder.rglob("*.py")}
    for path in sorted(every - IN_TABLES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in NAMES:
                code = ast.unparse(node.value)
                if not _texts(node.value, {}) and not PASSED_ON.fullmatch(code):
                    found.append(f"{path.relative_to(ROOT)}:{node.value.lineno}: {code}")
    return found
