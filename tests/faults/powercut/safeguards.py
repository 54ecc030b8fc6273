"""Find the safeguards in the store's code, and make builds that lack one.

A safeguard makes something durable, gives a file a second name, marks it, or checks bytes or
inodes. `patch_points` reads them from the source, so that a new one cannot be forgotten; `instead`
makes a build in which other code takes the place of some of them.
"""

import ast
import copy
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final, TypeAlias

import pytest

VOLUME: Final = "seline.storage.volume"
HERE: Final = Path(importlib.import_module(VOLUME).__file__ or "").parent
EXEMPT: Final = {
    "__init__": "it is empty",
    "earlier": "it reports, and names files to read again; what is read is judged",
    "capabilities": "it tries what a volume can do; nothing rests on what it writes",
}
MODULES: Final = {
    path.stem: ".".join((VOLUME, *path.relative_to(HERE).with_suffix("").parts))
    for path in HERE.rglob("*.py")
    if path.stem not in EXEMPT
} | {name: f"seline.domain.{name}" for name in ("checksum", "verdict", "recovery")}
DURABLE: Final = frozenset(
    {
        "sync", "fsync", "sync_filesystem", "touch_and_sync", "make_directory", "link",
        "sync_directories", "setxattr", "utime", "sync_data", "sync_published", "sync_written",
        "sync_files",
    }
)  # fmt: skip
"""Calls that make bytes, names or attributes durable, give a file a second name, or mark it."""
STEPS: Final = frozenset(
    {
        "commit", "recover", "recommit", "make_durable", "make_file_durable", "_record",
        "keep_displaced", "_sync_documents", "_forget_record", "_append_again", "_rewrite",
        "_sync_one",
    }
)  # fmt: skip
"""Calls that group such calls: whether and when each is made is a safeguard too."""
CHECKS: Final = frozenset(
    {
        "judge", "decode_record", "decode_checksum", "why_not_json", "same_bytes", "is_set_aside",
        "lacks_checksum", "look_at_backup", "look_in", "judge_in_pieces", "is_judged", "_is_staged",
        "_is_ours", "_is_whole", "_is_torn", "_recorded_backup",
    }
)  # fmt: skip
"""Calls that check bytes or inodes."""
COMPARED: Final = frozenset({"revision", "digest", "hexdigest", "name_hash", "st_ino", "data"})
"""Attributes that are compared to check bytes or inodes."""
Function: TypeAlias = ast.FunctionDef


@dataclass(frozen=True, slots=True, order=True)
class PatchPoint:
    """A safeguard's place: module, function, code, and its number among equal ones."""

    module: str
    function: str
    code: str
    number: int = 1

    def __str__(self) -> str:
        which = f" ({self.number})" if self.number > 1 else ""
        return f"{self.module}.{self.function}: {self.code}{which}"


def patch_points() -> set[PatchPoint]:
    """Return every safeguard in the store's code; each needs a row in the table of wrong builds."""
    found: set[PatchPoint] = set()
    for name in MODULES:
        for path, function in _functions(_tree(_module(name))):
            for code, number, _ in _cares(function):
                found.add(PatchPoint(name, path, code, number))
    return found


def instead(patch: pytest.MonkeyPatch, changes: Mapping[PatchPoint, str], **names: object) -> None:
    """Replace the code at some places by expressions in the scope of the same function.

    `names` are added to the module.
    """
    places = {(site.module, site.function) for site in changes}
    for name, path in places:
        module = _module(name)
        function = copy.deepcopy(dict(_functions(_tree(module)))[path])
        for site, code in changes.items():
            if (site.module, site.function) == (name, path):
                _replace(function, site, code)
        for known, what in names.items():
            patch.setattr(module, known, what, raising=False)
        for owner, attribute in _owners(module, path):
            patch.setattr(owner, attribute, _compiled(function, module))


def _replace(function: Function, site: PatchPoint, code: str) -> None:
    alike = [node for node in ast.walk(function) if isinstance(node, ast.expr)]
    alike = [node for node in alike if ast.unparse(node) == site.code]
    alike.sort(key=lambda node: (node.lineno, node.col_offset))
    assert len(alike) >= site.number, f"there is no {site}"
    new = ast.parse(code, mode="eval").body
    for node in ast.walk(new):
        ast.copy_location(node, alike[site.number - 1])
    _Replacing(alike[site.number - 1], new).visit(function)


def _cares(function: Function) -> Iterator[tuple[str, int, ast.expr]]:
    """Yield the safeguards of one function in the order of the text; equal ones are numbered."""
    seen: dict[str, int] = {}
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.expr) and _is_care(node)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        text = ast.unparse(node)
        seen[text] = seen.get(text, 0) + 1
        yield text, seen[text], node


def _is_care(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in DURABLE or name in STEPS or name in CHECKS
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.In() | ast.NotIn()]):
            return any(
                isinstance(inner, ast.Attribute) and inner.attr in COMPARED
                for inner in ast.walk(node)
            )
        case _:
            return False


class _Replacing(ast.NodeTransformer):
    """Replaces one node of a syntax tree."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        """Return the new node for the old one."""
        return self._new if node is self._old else super().visit(node)


def _compiled(function: Function, module: ModuleType) -> object:
    """Return the function, compiled in its module."""
    made: dict[str, object] = {}
    parsed = ast.fix_missing_locations(ast.Module([function], []))
    flags = importlib.import_module("__future__").annotations.compiler_flag
    code = compile(parsed, f"<{module.__name__} without a care>", "exec", flags)
    assert isinstance(code, CodeType)
    exec(code, module.__dict__, made)
    return made[function.name]


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield each function, and each method by the name of its class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _owners(module: ModuleType, path: str) -> Iterator[tuple[object, str]]:
    """Yield the owners of a function: its class, or every module that has it."""
    *classes, name = path.split(".")
    if classes:
        yield getattr(module, classes[0]), name
        return
    function = getattr(module, name)
    for known in list(sys.modules.values()):
        if known.__name__.startswith("seline") and getattr(known, name, None) is function:
            yield known, name


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _module(name: str) -> ModuleType:
    return importlib.import_module(MODULES[name])
