"""An alert sink as the settings describe it, and the fields that each kind accepts.

An error names the sink by its place in the list. It never contains a value: that may be a secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

from seline.domain.alerts.lifecycle import Severity

NAME_CHARACTERS_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """One `[[alerts.sinks]]` table. `name` is unique; the kind decides which others are set."""

    kind: str
    name: str
    min_severity: Severity = Severity.INFO
    url: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    chat_id: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, from {self.min_severity})"


_REQUIRED, _OPTIONAL = True, False
FIELDS_OF: Final[Mapping[str, Mapping[str, bool]]] = {
    "log": {},
    "webhook": {"url": _REQUIRED, "token": _OPTIONAL},
    "telegram": {"token": _REQUIRED, "chat_id": _REQUIRED, "url": _OPTIONAL},
    "discord": {"url": _REQUIRED},
    "ntfy": {"url": _REQUIRED, "token": _OPTIONAL},
}
"""By kind: the fields besides `kind`, `name` and `min_severity`, and whether each is required."""
_FIELDS_OF_ALL: Final = frozenset({"kind", "name", "min_severity"})


def read_sinks(value: object) -> tuple[SinkSpec, ...]:
    """Read a list of tables, or the same as JSON text. Raises ValueError."""
    if isinstance(value, str):
        value = _from_json(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError("it is no list of tables")  # noqa: TRY004  # one error for every wrong shape
    sinks = tuple(
        _read(number, item) for number, item in enumerate(cast("list[object]", value), start=1)
    )
    names = [sink.name for sink in sinks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two sinks are called {repeated[0]}: give each a `name` of its own")
    return sinks


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https address."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and text.isprintable() and " " not in text


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("it is no JSON list") from None  # the text may hold a secret


def _read(number: int, item: object) -> SinkSpec:
    where = f"sink {number}"
    if isinstance(item, SinkSpec):
        return item
    if not isinstance(item, dict):
        raise ValueError(f"{where} is no table")  # noqa: TRY004  # one error for every wrong shape
    given = cast("dict[object, object]", item)
    table = {str(key): entry for key, entry in given.items() if entry is not None}
    kind = _text(where, "kind", table.get("kind"))
    if kind not in FIELDS_OF:
        raise ValueError(f"{where}: there is no kind {kind!r}; there are {_listed(FIELDS_OF)}")
    _check_fields(where, kind, table)
    name = _text(where, "name", table.get("name", kind))
    if not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"{where}: `name` is up to {NAME_CHARACTERS_MAX} plain characters")
    return SinkSpec(
        kind=kind,
        name=name,
        min_severity=_severity(where, table.get("min_severity", Severity.INFO.value)),
        url=_url(where, kind, table.get("url")),
        token=_secret(where, "token", table.get("token")),
        chat_id=_secret(where, "chat_id", table.get("chat_id")),
    )


def _check_fields(where: str, kind: str, table: Mapping[str, object]) -> None:
    fields = FIELDS_OF[kind]
    missing = sorted(name for name in fields if fields[name] is _REQUIRED and name not in table)
    if missing:
        raise ValueError(f"{where}: a {kind} sink needs {_listed(missing)}")
    unknown = sorted(table.keys() - _FIELDS_OF_ALL - fields.keys())
    if unknown:
        raise ValueError(f"{where}: a {kind} sink does not know {_listed(unknown)}")


def _severity(where: str, value: object) -> Severity:
    try:
        return Severity(str(value).lower())
    except ValueError:
        raise ValueError(f"{where}: `min_severity` is one of {_listed(Severity)}") from None


def _url(where: str, kind: str, value: object) -> str | None:
    if value is None:
        return None
    url = _text(where, "url", value)
    if kind == "ntfy" and is_web_address(url) and not urlsplit(url).path.strip("/"):
        raise ValueError(f"{where}: `url` of ntfy ends in the topic: https://ntfy.sh/your-topic")
    if not is_web_address(url):
        raise ValueError(f"{where}: `url` is an address that begins with https:// or http://")
    return url


def _secret(where: str, field: str, value: object) -> str | None:
    if value is None:
        return None
    text = _text(where, field, value)
    if not text.isascii() or not text.isprintable() or set(text) & set(" /?#"):
        raise ValueError(f"{where}: `{field}` holds characters that none has")
    return text


def _text(where: str, field: str, value: object) -> str:
    """Return a field as text; a chat id may be a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{where}: `{field}` is text")
    return str(value).strip()


def _listed(words: object) -> str:
    return ", ".join(map(str, cast("list[str]", words)))
