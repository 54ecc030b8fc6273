"""The tables of `exports.destinations`: what each kind of address needs.

An error names the destination by its name. It never contains the value of an option.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple, cast, get_args
from urllib.parse import SplitResult, urlsplit

from seline.domain.destination import Mode
from seline.settings.texts import plain_text
from seline.settings.values import DestinationSettings


class Scheme(NamedTuple):
    """What a kind of address receives by default, and its options: which of them it requires."""

    mode: Mode
    options: Mapping[str, bool] = {}


_WEBDAV: Final = Scheme("mirror", dict.fromkeys(("user", "password", "allow_http"), False))
_CHAT: Final = Scheme("export", {"token": True, "api": False})
SCHEMES: Final[Mapping[str, Scheme]] = {
    "file": Scheme("export"),
    "s3": Scheme(
        "mirror",
        dict.fromkeys(
            (
                "endpoint",
                "region",
                "access_key_id",
                "secret_access_key",
                "path_style",
                "allow_http",
            ),
            False,
        ),
    ),
    "gs": Scheme("mirror", dict.fromkeys(("service_account", "endpoint", "allow_http"), False)),
    "az": Scheme(
        "mirror",
        dict.fromkeys(("account", "account_key", "sas_token", "endpoint", "allow_http"), False),
    ),
    "webdav": _WEBDAV,
    "webdavs": _WEBDAV,
    "sftp": Scheme("mirror", dict.fromkeys(("key_file", "password", "host_key"), False)),
    "telegram": _CHAT,
    "discord": _CHAT,
}
_COMMON: Final = frozenset({"name", "url", "keep", "same_disk", "mode", "timeout_s"})
KEEP_MAX: Final = 10_000
TIMEOUT_S_MAX: Final = 86_400


def read_destinations(value: object) -> tuple[DestinationSettings, ...]:
    """Parse a list of tables, or the same as JSON text. Raises ValueError.

    An unknown key is an error, so that no typo is ignored.
    """
    tables = _parsed(value) if isinstance(value, str) else value
    if not isinstance(tables, list):
        raise ValueError("it is no list of tables")  # noqa: TRY004  # one error for every wrong shape
    read = tuple(_read(number, table) for number, table in enumerate(cast("list[object]", tables)))
    if len({destination.name for destination in read}) < len(read):
        raise ValueError("two destinations have the same name")
    return read


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("it is no JSON list") from None  # the text may hold a secret


def _read(number: int, table: object) -> DestinationSettings:
    if not isinstance(table, dict):
        raise ValueError(f"table {number + 1} is no table")  # noqa: TRY004  # one error
    given = cast("dict[str, object]", table)
    if not {"name", "url"} <= given.keys():
        raise ValueError(f"a table has the keys {', '.join(sorted(given)) or 'none'}")
    name, url = plain_text(given["name"]), plain_text(given["url"])
    address = _address(name, url)
    scheme = SCHEMES[address.scheme]
    settings = DestinationSettings(
        name=name,
        url=url,
        keep=_whole(name, "keep", given.get("keep")),
        same_disk=_truth(name, given.get("same_disk", False)),
        mode=_mode(name, given.get("mode", scheme.mode)),
        timeout_s=_seconds(name, given.get("timeout_s")),
        options=_options(name, address.scheme, given),
    )
    if address.scheme == "file" and plain_text(settings.path).startswith("/~"):
        raise ValueError(f"~ is not replaced in an address, as in {url}")
    return settings


def _address(name: str, url: str) -> SplitResult:
    address = urlsplit(url)
    if address.password is not None:
        raise ValueError(f"{name}: a password does not belong into `url`")
    if address.scheme not in SCHEMES:
        begins = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{url} does not begin with {begins}")
    if address.scheme == "file":
        if address.netloc or not address.path.startswith("/"):
            raise ValueError(f"{url} does not begin with file:///")
    elif not address.hostname:
        raise ValueError(f"{url} names nothing after {address.scheme}://")
    return address


def _options(name: str, scheme: str, given: Mapping[str, object]) -> dict[str, str]:
    """Return the options of the scheme as text; a secret is among them."""
    known = SCHEMES[scheme].options
    unknown = sorted(given.keys() - _COMMON - known.keys())
    if unknown:
        raise ValueError(f"{name}: {scheme}:// has no option {', '.join(unknown)}")
    missing = sorted(option for option in known if known[option] and not given.get(option))
    if missing:
        raise ValueError(f"{name}: {scheme}:// needs {', '.join(missing)}")
    options: dict[str, str] = {}
    for option in known:
        value = given.get(option)
        if isinstance(value, bool):
            options[option] = str(value).lower()
        elif value is not None:
            is_json = option == "service_account"
            options[option] = _plain(name, option, _one_line(value) if is_json else value)
    return options


def _one_line(value: object) -> object:
    """Return a table, or JSON of several lines, as JSON of one line; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError):
            value = json.loads(value)
    return json.dumps(value) if isinstance(value, dict) else value


def _plain(name: str, option: str, value: object) -> str:
    try:
        return plain_text(str(value))
    except (ValueError, TypeError):
        raise ValueError(f"{name}: `{option}` is no plain text") from None  # it may be a secret


def _mode(name: str, value: object) -> Mode:
    if value not in get_args(Mode):
        raise ValueError(f"{name}: `mode` is one of {', '.join(get_args(Mode))}")
    return cast("Mode", value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: `same_disk` is true or false")  # noqa: TRY004  # one error
    return value


def _whole(name: str, key: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= KEEP_MAX:
        raise ValueError(f"{name}: `{key}` is a whole number from 1 to {KEEP_MAX:,}")
    return value


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 1 <= cast("float", value) <= TIMEOUT_S_MAX:
        raise ValueError(f"{name}: `timeout_s` is a number from 1 to {TIMEOUT_S_MAX:,}")
    return float(cast("float", value))
