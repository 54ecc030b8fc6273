"""Settings: one frozen value, from defaults, a file, the environment and arguments, in that order.

Every value remembers where it came from. What is unknown or impossible refuses to start, naming
field, value, origin and what is allowed. The only place that reads the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, cast
from urllib.parse import unquote, urlsplit

from seline.domain.retention import RetentionPolicy
from seline.domain.schedule import FORMS, parse_schedule
from seline.errors import SettingsError

DEFAULT_CONFIG: Final = "config/seline.toml"
TOKEN_CHARACTERS_MIN: Final = 16
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
RAILWAY_DATA_DIR: Final = "/app/server/data"
_PLATFORMS: Final = ("RAILWAY_ENVIRONMENT", "FLY_APP_NAME", "RENDER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """`[storage]`: where documents lie and how large they may grow."""

    data_dir: str | None = None
    volume_limit_mb: int | None = None
    lock_wait_s: float = 300.0
    require_mount: Literal["auto"] | bool = "auto"
    reserve_percent: float = 1.0
    document_bytes_max: int = 32 << 20
    documents_max: int = 10_000
    depth_max: int = 200
    cache_bytes_max: int = 16 << 20
    settle_s: float = 2.0
    edit_wait_s: float = 30.0
    edit_limit_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """`[backups]`: which backups are kept."""

    keep_newest: int = 5
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    bytes_max: int | None = None
    pin_days: int = 30
    deleted_days: int = 30
    blank_guard_except: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`[server]`: where the admin API listens and who may come in."""

    host: str | None = None
    port: int | None = None
    admin_token: str | None = field(default=None, repr=False)
    trust_proxy: bool = False
    metrics_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`[jobs.<name>]`: when a job runs (UTC), for how long at most, and whether at all."""

    schedule: str
    timeout_s: float
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """`[jobs]`: what happens by the clock."""

    integrity: Job = field(default_factory=lambda: Job(schedule="every 1 h", timeout_s=3600.0))
    rotation: Job = field(default_factory=lambda: Job(schedule="every 1 h", timeout_s=600.0))
    usage: Job = field(default_factory=lambda: Job(schedule="every 5 min", timeout_s=60.0))
    export: Job = field(default_factory=lambda: Job(schedule="daily 03:00", timeout_s=3600.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """`[[exports.destinations]]`: where exports go, and how many are kept there."""

    name: str
    url: str
    keep: int | None = None

    @property
    def path(self) -> str:
        """The folder of a `file:///…` address."""
        return unquote(urlsplit(self.url).path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """`[exports]`: verified exports to places beyond this volume."""

    keep: int = 7
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """`[log]`: how much is said, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. `origins` says where each value came from."""

    storage: Storage = field(default_factory=Storage)
    backups: Backups = field(default_factory=Backups)
    server: Server = field(default_factory=Server)
    jobs: Jobs = field(default_factory=Jobs)
    exports: Exports = field(default_factory=Exports)
    log: Log = field(default_factory=Log)
    strict: bool = False
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    data_dir: str = "data"
    mount_required: bool = False
    mount_expected_under: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()

    @property
    def bind(self) -> tuple[str | None, int]:
        """The address to listen on; host None is every address, IPv4 and IPv6."""
        host, port = self.server.host, self.server.port
        if host is None and port is None:
            return DEFAULT_HOST, DEFAULT_PORT
        return host, DEFAULT_PORT if port is None else port

    @property
    def bind_is_public(self) -> bool:
        """Whether others than this machine can reach the address."""
        host = self.bind[0]
        return host not in {"127.0.0.1", "localhost", "::1"}

    @property
    def retention(self) -> RetentionPolicy:
        """The policy for backups."""
        kept = self.backups
        return RetentionPolicy(
            keep_newest=kept.keep_newest,
            keep_hourly=kept.keep_hourly,
            keep_daily=kept.keep_daily,
            keep_weekly=kept.keep_weekly,
            keep_monthly=kept.keep_monthly,
            bytes_max=kept.bytes_max,
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a setting is checked: `read` takes text or a value and raises ValueError."""

    allowed: str
    read: Callable[[object], object]


def load_settings(
    *,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Settings:
    """Read the settings (SPEC §9): file ← environment ← short names ← arguments.

    `arguments` go by their sectioned names (`storage.data_dir`); None counts as not given.
    Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    warnings: list[str] = []
    for source in (
        _from_file(config, environ),
        _from_environment(environ, warnings),
        _from_short_names(environ),
        _from_arguments(arguments or {}),
    ):
        for name, value, origin in source:
            values[name] = _checked(name, value, origin)
            origins[name] = origin
    return _resolved(values, origins, tuple(warnings), environ)


def setting_names() -> list[str]:
    """Return every setting by its sectioned name."""
    return sorted(_KINDS)


def default_of(name: str) -> object:
    """Return a setting's default."""
    section, _, key = name.rpartition(".")
    return getattr(_SECTIONS[section](), key)


def shown(settings: Settings, name: str) -> object:
    """Return a setting's value as it may be shown: secrets are masked."""
    value = attrgetter(name)(settings)
    return "********" if name in SECRETS and value else value


SECRETS: Final = frozenset({"server.admin_token"})
_SECTIONS: Final[Mapping[str, Callable[[], Any]]] = {
    "storage": Storage,
    "backups": Backups,
    "server": Server,
    "jobs.integrity": lambda: Jobs().integrity,
    "jobs.rotation": lambda: Jobs().rotation,
    "jobs.usage": lambda: Jobs().usage,
    "jobs.export": lambda: Jobs().export,
    "exports": Exports,
    "log": Log,
}
_SHORT_NAMES: Final[Mapping[str, str]] = {
    "SELINE_DATA_DIR": "storage.data_dir",
    "SELINE_ADMIN_TOKEN": "server.admin_token",
    "PORT": "server.port",
}
_KNOWN_NAMES: Final = frozenset(
    {*_SHORT_NAMES, "SELINE_ADMIN_TOKEN_FILE", "SELINE_CONFIG", "SELINE_URL", "SELINE_STRICT",
     "SELINE_TOKEN"}
)  # fmt: skip


# the sources


def _from_file(config: str | None, environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    named = config or environ.get("SELINE_CONFIG") or None
    path = Path(named or DEFAULT_CONFIG)
    if named is None and not path.is_file():
        return
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}.",
            hint="Check the path given by --config or SELINE_CONFIG.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The settings file {path} is not TOML: {error}.",
            hint="Mend the line named; config/seline.toml in the project shows the form.",
        ) from error
    for section, table in _tables("", tables):
        if section not in _SECTIONS or not isinstance(table, dict):
            raise _unknown(section, f"file {path}", _SECTIONS)
        for key, value in table.items():
            yield f"{section}.{key}", value, f"file {path}"


def _tables(above: str, tables: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Name each table by its whole path; `[jobs]` is no section, `[jobs.usage]` is."""
    for name, table in tables.items():
        path = f"{above}{name}"
        if isinstance(table, dict) and any(known.startswith(f"{path}.") for known in _SECTIONS):
            yield from _tables(f"{path}.", cast("dict[str, object]", table))
        else:
            yield path, table


def _from_environment(
    environ: Mapping[str, str], warnings: list[str]
) -> Iterator[tuple[str, object, str]]:
    for variable, text in sorted(environ.items()):
        if not variable.startswith("SELINE_") or variable in _KNOWN_NAMES or not text:
            continue
        if "__" not in variable:
            warnings.append(_warning(variable))
            continue
        name = variable.removeprefix("SELINE_").lower().replace("__", ".")
        if name.endswith("_file") and name.removesuffix("_file") in SECRETS:
            yield name.removesuffix("_file"), _secret(variable, text), f"environment {variable}"
        else:
            yield name, _Text(text), f"environment {variable}"


def _from_short_names(environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    secret_file = environ.get("SELINE_ADMIN_TOKEN_FILE")
    if secret_file:
        variable = "SELINE_ADMIN_TOKEN_FILE"
        yield "server.admin_token", _secret(variable, secret_file), f"environment {variable}"
    for variable, name in _SHORT_NAMES.items():
        if environ.get(variable):
            yield name, _Text(environ[variable]), f"environment {variable}"


def _from_arguments(arguments: Mapping[str, object]) -> Iterator[tuple[str, object, str]]:
    for name, value in arguments.items():
        if value is not None:
            yield name, value, "argument"


class _Text(str):
    """A value given as text, to be read as its setting's kind."""

    __slots__ = ()


def _secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{variable} names a file that cannot be read: {path}.",
            hint="Check that the file exists and that Seline's user may read it.",
        ) from error


# the checks


def _checked(name: str, value: object, origin: str) -> object:
    kind = _KINDS.get(name)
    if kind is None:
        raise _unknown(name, origin, _KINDS)
    try:
        return kind.read(value)
    except (ValueError, TypeError) as error:
        shown_value = "the value given" if name in SECRETS else repr(str(value))
        raise SettingsError(
            f"{name} = {shown_value} ({origin}) is not allowed: it must be {kind.allowed}.",
            hint=f"Set {name} to {kind.allowed}, or leave it out for its default.",
            field=name,
            origin=origin,
        ) from error


def _unknown(name: str, origin: str, known: Mapping[str, object]) -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]}?" if near else ""
    return SettingsError(
        f"There is no setting {name} ({origin}).{meant}",
        hint="`seline config show` lists every setting.",
        field=name,
        origin=origin,
    )


def _warning(variable: str) -> str:
    near = difflib.get_close_matches(variable, _KNOWN_NAMES, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{variable} is not a setting of Seline and is ignored{meant}"


def _number(
    low: float, high: float, *, whole: bool, optional: bool = False, unit: str = ""
) -> _Kind:
    def read(value: object) -> object:
        if isinstance(value, bool):
            raise TypeError(value)
        number = (int if whole else float)(cast("Any", value))
        if whole and isinstance(value, float) and value != number:
            raise ValueError(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    kind = "a whole number" if whole else "a number"
    what = f"{kind} from {low:,} to {high:,}{f' ({unit})' if unit else ''}"
    return _Kind(f"{what}, or left out" if optional else what, read)


def _one_of(*words: str) -> _Kind:
    def read(value: object) -> object:
        if str(value).lower() not in words:
            raise ValueError(value)
        return str(value).lower()

    return _Kind(" or ".join(repr(word) for word in words), read)


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError(value)
    return known[str(value).lower()]


def _auto_or_truth(value: object) -> object:
    return "auto" if str(value).lower() == "auto" else _truth(value)


def _plain_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return str(value)


def _token(value: object) -> str:
    text = _plain_text(value)
    if len(text) < TOKEN_CHARACTERS_MIN or not text.isascii() or " " in text:
        raise ValueError(value)
    return text


def _schedule(value: object) -> str:
    return parse_schedule(_plain_text(value)).text


def _destinations(value: object) -> tuple[Destination, ...]:
    """Read destinations; what is not understood is refused, never left unheeded."""
    tables = json.loads(value) if isinstance(value, str) else value
    if not isinstance(tables, list):
        raise TypeError(value)
    found = tuple(_destination(table) for table in cast("list[object]", tables))
    if len({one.name for one in found}) < len(found):
        raise ValueError(value)
    return found


def _destination(table: object) -> Destination:
    if not isinstance(table, dict):
        raise TypeError(table)
    given = cast("dict[str, object]", table)
    one = Destination(**given)  # type: ignore[arg-type]  # an unknown key is a TypeError
    address = urlsplit(_plain_text(one.url))
    if address.scheme != "file" or address.netloc or not address.path.startswith("/"):
        raise ValueError(table)
    if one.keep is not None and (isinstance(one.keep, bool) or not 1 <= int(one.keep) <= 10_000):
        raise ValueError(table)
    return replace(one, name=_plain_text(one.name))


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        raise TypeError(value)
    items = cast("list[object]", value)
    if not all(isinstance(item, str) for item in items):
        raise TypeError(value)
    return tuple(str(item).strip() for item in items if str(item).strip())


_BYTES_MAX: Final = 1 << 50
_DAYS_MAX: Final = 36_500
_KEEP: Final = _number(0, 100_000, whole=True)
_TRUTH: Final = _Kind("true or false", _truth)
_KINDS: Final[Mapping[str, _Kind]] = {
    "storage.data_dir": _Kind("a path", _plain_text),
    "storage.volume_limit_mb": _number(1, 1 << 30, whole=True, optional=True, unit="MB"),
    "storage.lock_wait_s": _number(0, 86_400, whole=False, unit="seconds"),
    "storage.require_mount": _Kind("'auto', true or false", _auto_or_truth),
    "storage.reserve_percent": _number(0, 20, whole=False, unit="percent"),
    "storage.document_bytes_max": _number(1024, 1 << 30, whole=True, unit="bytes"),
    "storage.documents_max": _number(1, 1_000_000, whole=True),
    "storage.depth_max": _number(1, 200, whole=True, unit="levels"),
    "storage.cache_bytes_max": _number(0, _BYTES_MAX, whole=True, unit="bytes"),
    "storage.settle_s": _number(0, 3600, whole=False, unit="seconds"),
    "storage.edit_wait_s": _number(0, 3600, whole=False, unit="seconds"),
    "storage.edit_limit_s": _number(1, 86_400, whole=False, unit="seconds"),
    "backups.keep_newest": _number(1, 100_000, whole=True),
    "backups.keep_hourly": _KEEP,
    "backups.keep_daily": _KEEP,
    "backups.keep_weekly": _KEEP,
    "backups.keep_monthly": _KEEP,
    "backups.bytes_max": _number(1, _BYTES_MAX, whole=True, optional=True, unit="bytes"),
    "backups.pin_days": _number(1, _DAYS_MAX, whole=True, unit="days"),
    "backups.deleted_days": _number(1, _DAYS_MAX, whole=True, unit="days"),
    "backups.blank_guard_except": _Kind("a list of document names", _names),
    "server.host": _Kind("an address or host name", _plain_text),
    "server.port": _number(0, 65_535, whole=True),
    "server.admin_token": _Kind(
        f"at least {TOKEN_CHARACTERS_MIN} ASCII characters without spaces", _token
    ),
    "server.trust_proxy": _TRUTH,
    "server.metrics_open": _TRUTH,
    **{
        f"jobs.{job.name}.{key}": kind
        for job in fields(Jobs)
        for key, kind in (
            ("schedule", _Kind(FORMS, _schedule)),
            ("timeout_s", _number(1, 86_400, whole=False, unit="seconds")),
            ("enabled", _TRUTH),
        )
    },
    "exports.destinations": _Kind(
        "a list of tables with `name`, `url` (file:///…) and optionally `keep`", _destinations
    ),
    "exports.keep": _number(1, 10_000, whole=True),
    "log.level": _one_of("debug", "info", "warning", "error"),
    "log.format": _one_of("auto", "json", "console"),
}


# what follows from them


def _resolved(
    values: Mapping[str, object],
    origins: dict[str, str],
    warnings: tuple[str, ...],
    environ: Mapping[str, str],
) -> Settings:
    sections: dict[str, Any] = {}
    for section, make in _SECTIONS.items():
        given = {
            name.rpartition(".")[2]: value
            for name, value in values.items()
            if name.rpartition(".")[0] == section
        }
        sections[section] = replace(make(), **given)
    jobs = {job.name: sections.pop(f"jobs.{job.name}") for job in fields(Jobs)}
    data_dir, data_dir_origin = _data_dir(sections["storage"], origins, environ)
    origins["storage.data_dir"] = data_dir_origin
    _check_destinations(sections["exports"], data_dir, origins)
    for name in _KINDS:
        origins.setdefault(name, "default")
    require = sections["storage"].require_mount
    return Settings(
        **sections,
        jobs=Jobs(**jobs),
        strict=_truth(environ.get("SELINE_STRICT") or "false"),
        url=environ.get("SELINE_URL") or None,
        token=environ.get("SELINE_TOKEN") or None,
        data_dir=data_dir,
        mount_required=any(environ.get(name) for name in _PLATFORMS)
        if require == "auto"
        else require,
        mount_expected_under=environ.get("RAILWAY_VOLUME_MOUNT_PATH") or None,
        origins=MappingProxyType(origins),
        warnings=warnings,
    )


def _check_destinations(exports: Exports, data_dir: str, origins: Mapping[str, str]) -> None:
    """Refuse an export into the volume that it shall outlive."""
    volume = os.path.realpath(data_dir)
    for one in exports.destinations:
        if os.path.commonpath([volume, os.path.realpath(one.path)]) == volume:
            raise SettingsError(
                f"The destination {one.name} ({one.url}) lies inside the data directory.",
                hint="Name a folder on another disk: what is lost with the volume is no backup.",
                field="exports.destinations",
                origin=origins["exports.destinations"],
            )


def _data_dir(
    storage: Storage, origins: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str, str]:
    if storage.data_dir is not None:
        return storage.data_dir, origins["storage.data_dir"]
    if environ.get("RAILWAY_VOLUME_MOUNT_PATH"):
        return environ["RAILWAY_VOLUME_MOUNT_PATH"], "environment RAILWAY_VOLUME_MOUNT_PATH"
    if Path(RAILWAY_DATA_DIR).is_dir():
        return RAILWAY_DATA_DIR, f"{RAILWAY_DATA_DIR} exists"
    return "./data", "default"


def sections() -> dict[str, list[str]]:
    """Return the settings' keys by section, in the order of the code."""
    return {section: [item.name for item in fields(make())] for section, make in _SECTIONS.items()}
