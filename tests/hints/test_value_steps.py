"""The next steps for a value or a text that is not JSON: what they say makes it savable."""

import asyncio
import base64
import dataclasses
import datetime as dt
import decimal
import enum
import gzip
import json
import pathlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import attrs
import msgspec
import pytest

from seline.blocking import DataManager, open_seline
from seline.cures import step_for_file
from seline.domain.json_codec import HINTS, OTHER_HINT, decode, encode
from seline.domain.json_flaws import ANY_OTHER, CHECKS, FIXES, FIXES_BY_ATTRIBUTE
from seline.errors import NotSerializable
from tests.command_line import Line
from tests.hints.following import Step, next_of, shell

NAME: Final = "user_profile.json"
Follow = Callable[[str], Step]

# values


class _Color(enum.Enum):
    RED = "red"


class _Number(int):
    pass


class _Struct(msgspec.Struct):
    n: int


@dataclasses.dataclass
class _Class:
    n: int


class _Point(NamedTuple):
    x: int
    y: int


class _Model:
    """Stands for a class of a library that the tests do not install."""

    def model_dump(self, *, mode: str) -> dict[str, str]:
        return {"mode": mode}

    def tolist(self) -> list[int]:
        return [1]

    def item(self) -> int:
        return 1


def _like(module: str, name: str) -> object:
    base = type(name, (_Model,), {"__module__": module})
    base.__qualname__ = name
    return type("Mine", (base,), {})()


async def _coroutine() -> int:
    return 1


@attrs.define
class _Attrs:
    n: int


VALUES: Final[dict[str, Callable[[], object]]] = {
    "Use .value.": lambda: _Color.RED,
    "Use .tolist().": lambda: _like("numpy", "ndarray"),
    "Use .item().": lambda: _like("numpy", "generic"),
    'Use .model_dump(mode="json").': lambda: _like("pydantic.main", "BaseModel"),
    "Use msgspec.to_builtins(value).": lambda: _Struct(1),
    "Use .isoformat().": lambda: dt.date(2025, 1, 6),
    "Use .total_seconds().": lambda: dt.timedelta(seconds=1),
    "Use str(value), or float(value) where rounding is fine.": lambda: decimal.Decimal("1.5"),
    "Use str(value).": lambda: pathlib.PurePath("a"),
    "Use .decode() for text, base64.b64encode(value).decode() for the rest.": lambda: b"a",
    "Use base64.b64encode(value).decode().": lambda: memoryview(b"a"),
    "Use a sorted list: sorted(value).": lambda: {2, 1},
    "Use [value.real, value.imag].": lambda: 1j,
    "It was never awaited: put `await` before the call.": _coroutine,
    "Use list(value).": lambda: range(2),
    "Use dict(value).": lambda: types.MappingProxyType({"n": 1}),
    "Use value._asdict(), or list(value).": lambda: _Point(1, 2),
    "Use int(value).": lambda: _Number(1),
    "Use float(value).": lambda: type("Real", (float,), {})(1.5),
    "Use dataclasses.asdict(value).": lambda: _Class(1),
    "Use attrs.asdict(value).": lambda: _Attrs(1),
    "Call it and save the result, or leave it out.": lambda: lambda: 1,
    "Convert it to text, a number, a list or a dict.": object,
    'Use text.encode("utf-8", "replace").decode().': lambda: "\ud800",
    "Use None, or leave the field out.": lambda: float("inf"),
    "Use hex(value).": lambda: 10**5000,
}
"""A value for each fix."""
CODE: Final = re.compile(
    r"\b[a-z]\w*(?:\.\w+)*\([^()]*\)(?:\.\w+\(\))?|\B\.\w+(?:\([^()]*\))?|\[.*\]|None"
)
NAMES: Final = {"attrs": attrs, "base64": base64, "dataclasses": dataclasses, "msgspec": msgspec}


@pytest.mark.one_in(3)
@pytest.mark.follows("flaw:*")
@pytest.mark.parametrize(
    "fix",
    [*FIXES, *FIXES_BY_ATTRIBUTE.values(), *dict.fromkeys(row[2] for row in CHECKS.values()),
     ANY_OTHER],
)  # fmt: skip
def test_a_value_can_be_saved_after_its_fix(
    fix: str, tmp_path: pathlib.Path, follow: Follow
) -> None:
    value = VALUES[fix]()
    with open_seline(tmp_path) as seline:
        hint = refusal(seline.data, value)
        assert hint == fix
        for converted in conversions(follow(hint), value):
            seline.data.save_json(NAME, {"field": converted})


def refusal(data: DataManager, value: object) -> str:
    with pytest.raises(NotSerializable) as refused:
        data.save_json(NAME, {"field": value})
    return refused.value.hint


def conversions(step: Step, value: Any) -> list[Any]:
    """Return the value as each expression of the text converts it."""
    by_hand: dict[str, Callable[[], Any]] = {
        "put `await` before": lambda: asyncio.run(value),
        "Call it and save the result": lambda: value(),
        "Convert it to text": lambda: str(value),
    }
    for phrase, convert in by_hand.items():
        if phrase in step.text:
            return [convert()]
    code = CODE.findall(step.text)
    assert code, step.text
    names = {**NAMES, "value": value, "text": value}
    return [eval(f"value{part}" if part[0] == "." else part, names) for part in code]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def _loop() -> dict[str, object]:
    value: dict[str, object] = {}
    value["itself"] = value
    return value


@pytest.mark.parametrize(
    ("value", "phrases", "mended"),
    [
        pytest.param(
            nested(300), ["Flatten the value"], [1],
            marks=pytest.mark.follows("domain/json_flaws:_flaw_of_container"),
        ),
        pytest.param(
            _loop(), ["leave the reference to itself out"], {},
            marks=pytest.mark.follows("domain/json_flaws:_flaw_of_container"),
        ),
        pytest.param(
            {1: 1}, ["use str(1)"], {str(1): 1},
            marks=pytest.mark.follows("domain/json_flaws:_flaw_of_key"),
        ),
        pytest.param(
            {"\ud800": 1}, ['text.encode("utf-8", "replace").decode()'], {"?": 1},
            marks=pytest.mark.follows("domain/json_flaws:_flaw_of_key#2"),
        ),
    ],
    ids=["deep", "contains itself", "number as key", "surrogate in key"],
)  # fmt: skip
def test_a_value_of_another_shape_can_be_saved(
    value: object, phrases: list[str], mended: object, tmp_path: pathlib.Path, follow: Follow
) -> None:
    with open_seline(tmp_path) as seline:
        follow(refusal(seline.data, value)).asks(*phrases)
        seline.data.save_json(NAME, {"field": mended})


@pytest.mark.follows("domain/json_codec:")
def test_a_value_is_saved_from_a_place_that_is_less_deep(follow: Follow) -> None:
    value = nested(150)

    def at_depth(calls: int) -> bytes:
        return at_depth(calls - 1) if calls else encode(value)

    with pytest.raises(NotSerializable) as refused:
        for calls in range(0, sys.getrecursionlimit(), 10):
            at_depth(calls)

    follow(refused.value.hint).asks("Save from a place that is itself less deep in calls")
    assert decode(encode(value)) == value


@pytest.mark.follows("domain/json_codec:#2")
def test_a_copy_is_saved_of_a_value_that_another_thread_changes(follow: Follow) -> None:
    value: dict[str, int] = {"a": 1}

    def other_thread(frame: types.FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename.endswith("json_codec.py"):
            value[f"n{len(value)}"] = 1
        return other_thread

    before = sys.gettrace()
    sys.settrace(other_thread)
    try:
        with pytest.raises(NotSerializable) as refused:
            encode(value)
        follow(refused.value.hint).asks("Save a copy that no other thread changes")
        assert encode(dict(value))
    finally:
        sys.settrace(before)


# texts

TEXTS: Final[dict[str, tuple[bytes, Callable[[bytes], bytes]]]] = {
    "empty file": (b"", lambda _: b"{}"),
    "only white space": (b" \n", lambda _: b"{}"),
    "only NUL bytes": (b"\0\0", lambda _: b'{"from": "a backup"}'),
    "cut off": (b'{"a": [1', lambda text: text + b"]}"),
    "starts with a byte order mark": (b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}', lambda text: text[6:]),
    "broken UTF-": ('{"a": 1}'.encode("utf-16")[:-1], lambda _: b'{"from": "a backup"}'),
    "UTF-32LE": ('{"a": "é"}'.encode("utf-32-le"), lambda text: text),
    "UTF-32BE": ('{"a": "é"}'.encode("utf-32-be"), lambda text: text),
    "UTF-16LE": ('{"a": "é"}'.encode("utf-16-le"), lambda text: text),
    "UTF-16BE": ('{"a": "é"}'.encode("utf-16-be"), lambda text: text),
    "not UTF-8 and not Windows-1252": (
        '{"a": "、"}'.encode("shift_jis"),
        lambda text: text.decode("shift_jis").encode(),
    ),
    "an archive": (gzip.compress(b'{"a": 1}'), gzip.decompress),
    "not UTF-8": ('{"a": "l’été, 5 €"}'.encode("cp1252"), lambda text: text),
    "duplicate key": (b'{"a": 1, "a": 2}', lambda text: text.replace(b'"a": 1, ', b"")),
    "NaN": (b'{"a": NaN}', lambda text: text.replace(b"NaN", b"null")),
    "Infinity": (b'{"a": Infinity}', lambda text: text.replace(b"Infinity", b"1")),
    "-Infinity": (b'{"a": -Infinity}', lambda text: text.replace(b"-Infinity", b"null")),
    "a comma before the closing bracket": (b'{"a": 1,}', lambda text: text.replace(b",", b"")),
    "something follows after the end": (b'{"a": 1} x', lambda text: text.removesuffix(b" x")),
    OTHER_HINT: (b'{"a" 1}', lambda text: text.replace(b" 1", b": 1")),
}
"""For each reason a text, and how an editor mends it; a text with a command is mended by that."""


@pytest.mark.one_in(3)
@pytest.mark.follows("json:*")
@pytest.mark.parametrize("reason", [*HINTS, OTHER_HINT])
def test_a_text_can_be_saved_after_its_fix(reason: str, line: Line, follow: Follow) -> None:
    text, mend = TEXTS[reason]
    given = line.folder / "given it.json"
    given.write_bytes(text)
    refused = line("save", NAME, given.name)
    assert refused.code == 5
    step = follow(HINTS.get(reason, reason))
    assert next_of(refused) == step_for_file(step.text, given.name)

    for command in re.findall("`([^`]+)`", next_of(refused)):
        if command.startswith(("iconv", "file")):
            shell(line.folder, command)
            assert text in [path.read_bytes() for path in line.folder.glob("given*")]
    given.write_bytes(mend(given.read_bytes()))

    assert line("save", NAME, given.name).code == 0
    saved = json.dumps(line("load", NAME).value(), ensure_ascii=False)
    assert not any("\x80" <= letter < "\xa0" for letter in saved), "control characters"


def test_each_row_of_the_tables_has_its_value() -> None:
    fixes = (*FIXES, *FIXES_BY_ATTRIBUTE.values(), ANY_OTHER, *(row[2] for row in CHECKS.values()))

    assert set(VALUES) == set(fixes)
    assert set(TEXTS) == {*HINTS, OTHER_HINT}
