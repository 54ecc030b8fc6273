"""Find the first part of a value that JSON cannot represent, with its path and the fix.

Called only after a value failed the fast check, so it need not be fast. It does not recurse: a
value that contains itself is reported as nested too deeply.
"""

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, cast

from seline.domain.exact_float import ExactFloat

Path: TypeAlias = tuple[str | int, ...]

_STEPS_SHOWN_MAX: Final = 5

FIXES: Final[Mapping[str, str]] = {
    "Use .value.": "enum.Enum",
    "Use .tolist().": "numpy.ndarray",
    "Use .item().": "numpy.generic",
    'Use .model_dump(mode="json").': "pydantic.main.BaseModel",
    "Use msgspec.to_builtins(value).": "msgspec.Struct",
    "Use .isoformat().": "datetime.date datetime.time",
    "Use .total_seconds().": "datetime.timedelta",
    "Use str(value), or float(value) where rounding is fine.": "decimal.Decimal fractions.Fraction",
    "Use str(value).": "uuid.UUID pathlib.PurePath builtins.str",
    "Use .decode() for text, base64.b64encode(value).decode() for the rest.": (
        "builtins.bytes builtins.bytearray"
    ),
    "Use base64.b64encode(value).decode().": "builtins.memoryview",
    "Use a sorted list: sorted(value).": "builtins.set builtins.frozenset",
    "Use [value.real, value.imag].": "builtins.complex",
    "It was never awaited: put `await` before the call.": "builtins.coroutine",
    "Use list(value).": (
        "builtins.generator builtins.range builtins.dict_keys builtins.dict_values "
        "collections.deque builtins.list"
    ),
    "Use dict(value).": "builtins.mappingproxy builtins.dict",
    "Use value._asdict(), or list(value).": "builtins.tuple",
    "Use int(value).": "builtins.int",
    "Use float(value).": "builtins.float",
}
"""By fix: the names of types and base types; the first match is used."""

FIXES_BY_ATTRIBUTE: Final[Mapping[str, str]] = {
    "__dataclass_fields__": "Use dataclasses.asdict(value).",
    "__attrs_attrs__": "Use attrs.asdict(value).",
    "__call__": "Call it and save the result, or leave it out.",
}
ANY_OTHER: Final = "Convert it to text, a number, a list or a dict."


class Flaw(NamedTuple):
    """One part of a value that JSON cannot represent; `where` is a path like `$.visits[3].at`."""

    where: str
    what: str
    fix: str


def find_flaw(value: object, depth_max: int) -> Flaw | None:
    """Return the first flaw of a value in the order of encoding, None if there is none."""
    waiting: list[tuple[Path, object]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        flaw = _flaw_of_container(item, path, depth_max) or _flaw_of_scalar(item, path)
        if flaw is not None:
            return flaw
        waiting += reversed([((*path, step), inner) for step, inner in _members(item)])
    return None


def path_text(path: Path) -> str:
    """Return a path as text, like `$.visits[3].at`; keys that are not identifiers are quoted."""
    return "$" + "".join(map(_step_text, path))


def _step_text(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step, ensure_ascii=False)}]"


def _members(item: object) -> Iterator[tuple[str | int, object]]:
    kind = type(item)
    if kind is dict:
        yield from cast("dict[str, object]", item).items()
    elif kind is list or kind is tuple:
        yield from enumerate(cast("list[object]", item))


def _flaw_of_container(item: object, path: Path, depth_max: int) -> Flaw | None:
    kind = type(item)
    if kind is not dict and kind is not list and kind is not tuple:
        return None
    if len(path) >= depth_max:
        start = path_text(path[:_STEPS_SHOWN_MAX])
        what = f"nested deeper than {depth_max} levels, or it contains itself"
        return Flaw(f"{start}…", what, "Flatten the value, or leave the reference to itself out.")
    if kind is dict:
        flaws = (_flaw_of_key(key, path) for key in cast("dict[object, object]", item))
        return next(filter(None, flaws), None)
    return None


def _flaw_of_key(key: object, path: Path) -> Flaw | None:
    if type(key) is not str:
        shown = reprlib.repr(key)
        what = f"the key {shown} is of type {type(key).__name__}"
        return Flaw(path_text(path), what, f"JSON keys are text: use str({shown}).")
    if not _is_writable(key):
        return Flaw(path_text(path), f"the key {key!a} holds a lone surrogate", _SURROGATE)
    return None


def _flaw_of_scalar(item: object, path: Path) -> Flaw | None:
    kind = type(item)
    if kind in _ALWAYS_FINE:
        return None
    if kind not in CHECKS:
        what = f"a value of type {kind.__name__} is not JSON"
        return Flaw(path_text(path), what, _fix_for(item))
    is_fine, what, fix = CHECKS[kind]
    return None if is_fine(item) else Flaw(path_text(path), what, fix)


def _fix_for(value: object) -> str:
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__}
    for fix, known in FIXES.items():
        if not names.isdisjoint(known.split()):
            return fix
    return next(
        (fix for name, fix in FIXES_BY_ATTRIBUTE.items() if hasattr(value, name)), ANY_OTHER
    )


def _is_writable(value: str | int) -> bool:
    """Whether a text has no lone surrogate, and an integer (by default) at most 4300 digits."""
    try:
        str(value).encode()
    except ValueError:
        return False
    return True


_SURROGATE: Final = 'Use text.encode("utf-8", "replace").decode().'
_ALWAYS_FINE: Final = frozenset({dict, list, tuple, bool, type(None), ExactFloat})
CHECKS: Final[Mapping[type, tuple[Callable[[Any], bool], str, str]]] = {
    str: (_is_writable, "a text with a lone surrogate", _SURROGATE),
    float: (isfinite, "not a finite number", "Use None, or leave the field out."),
    int: (_is_writable, "an integer with more than 4300 digits", "Use hex(value)."),
}
