"""Settings: one frozen value from defaults, a file, the environment and arguments, in that order.

Each value's origin is recorded. An unknown setting or a wrong value raises SettingsError with the
field, the value, its origin and what is allowed. Only this package reads the environment.
"""

import os
import socket
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from seline.errors import SettingsError
from seline.settings.bucket import bucket_of_environment, with_variables
from seline.settings.rules import RULES, SECRETS, checked, truth
from seline.settings.sources import NO_FILE, from_environment, from_file, from_short_names
from seline.settings.texts import normalised, refuse_literal_folder
from seline.settings.values import (
    DEFAULT_JOBS,
    SECTIONS,
    Exports,
    Job,
    Settings,
    Storage,
    UnusableBucket,
)

__all__ = [
    "DEFAULT_JOBS",
    "SECRETS",
    "Job",
    "Settings",
    "Storage",
    "UnusableBucket",
    "load_settings",
    "setting_names",
    "shown",
    "truth",
]
RAILWAY_DATA_DIR: Final = "/app/server/data"
_SERVICE_NAMES: Final = ("RAILWAY_SERVICE_NAME", "FLY_APP_NAME", "RENDER_SERVICE_NAME")
_PLATFORM_MOUNT: Final = "RAILWAY_VOLUME_MOUNT_PATH"
_PLATFORMS: Final = ("RAILWAY_ENVIRONMENT", "FLY_APP_NAME", "RENDER")


def load_settings(
    *,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Settings:
    """Load the settings. Later sources win: file, environment, short names, `arguments`.

    The keys of `arguments` are setting names like `storage.data_dir`; None means not given.
    Raises SettingsError.
    """
    written = os.environ if environ is None else environ
    environ = {name: normalised(text) for name, text in written.items()}
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    warnings: list[str] = []
    for source in (
        from_file(config, environ),
        from_environment(environ, warnings),
        from_short_names(environ),
        (
            (name, value, "argument")
            for name, value in (arguments or {}).items()
            if value is not None
        ),
    ):
        for name, value, origin in source:
            values[name] = checked(name, value, origin)
            origins[name] = origin
    settings = _resolved(values, origins, warnings, environ)
    variable = settings.origins["storage.data_dir"].removeprefix("environment ")
    refuse_literal_folder(written.get(variable, settings.data_dir), settings.data_dir)
    return settings


def setting_names() -> list[str]:
    """Return the names of all settings, such as `storage.data_dir`."""
    return sorted(RULES)


def shown(settings: Settings, name: str) -> object:
    """Return a setting's value without secrets; sinks and destinations are shown by name."""
    section, *job, key = name.split(".")
    value = getattr(settings.jobs[job[0]] if job else getattr(settings, section), key)
    if name in ("alerts.sinks", "exports.destinations"):
        return tuple(map(str, value))
    return "********" if name in SECRETS and value else value


def _resolved(
    values: Mapping[str, object],
    origins: dict[str, str],
    warnings: list[str],
    environ: Mapping[str, str],
) -> Settings:
    given: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        given[section][key] = value
    sections = {name: replace(default, **given[name]) for name, default in SECTIONS.items()}
    jobs = {job: sections.pop(f"jobs.{job}") for job in DEFAULT_JOBS}
    data_dir, data_dir_origin = _data_dir(sections["storage"], origins, environ)
    origins["storage.data_dir"] = data_dir_origin
    notes: list[str] = []
    sections["exports"], unusable = _with_buckets(
        sections["exports"], origins, warnings, notes, environ
    )
    _check_destinations(sections["exports"], data_dir, origins)
    _check_restore_from(sections["exports"], unusable, origins)
    for name in RULES:
        origins.setdefault(name, "default")
    require = sections["storage"].require_mount
    return Settings(
        **sections,
        jobs=jobs,
        strict=_variable(environ, "SELINE_STRICT") or False,
        url=_variable(environ, "SELINE_URL"),
        token=_variable(environ, "SELINE_TOKEN"),
        service=_service(environ),
        data_dir=data_dir,
        mount_required=any(environ.get(name) for name in _PLATFORMS)
        if require == "auto"
        else require,
        mount_expected_under=environ.get(_PLATFORM_MOUNT) or None,
        origins=MappingProxyType(origins),
        warnings=tuple(warnings),
        notes=tuple(notes),
        unusable_bucket=unusable,
    )


def _variable(environ: Mapping[str, str], name: str) -> Any:
    """Return the checked value of a variable that is no setting, None if it is not set."""
    return checked(name, environ[name], f"environment {name}") if environ.get(name) else None


def _service(environ: Mapping[str, str]) -> str:
    given = (environ[name] for name in _SERVICE_NAMES if environ.get(name))
    return next(given, None) or f"seline@{socket.gethostname()}"


def _with_buckets(
    exports: Exports,
    origins: dict[str, str],
    warnings: list[str],
    notes: list[str],
    environ: Mapping[str, str],
) -> tuple[Exports, UnusableBucket | None]:
    """Return the exports with what variables say of buckets; one is used if none is named.

    The second value is a bucket that lacks something. An empty list in a file names none and
    forbids none: the example file has one.
    """
    name = "exports.destinations"
    is_open = not exports.destinations and origins.get(name, "file").startswith("file")
    found = bucket_of_environment(environ, warnings) if is_open else None
    unusable = found if isinstance(found, UnusableBucket) else None
    if isinstance(found, tuple):
        table, variable = found
        origins[name] = f"environment {variable}"
        notes.append(
            f"{variable} names a bucket, which receives copies as the destination {table['name']}: "
            f"{table['url']}"
        )
        read: Any = checked(name, [table], origins[name])
        exports = replace(exports, destinations=read)
    completed = tuple(with_variables(given, environ) for given in exports.destinations)
    return replace(exports, destinations=completed), unusable


def _check_destinations(exports: Exports, data_dir: str, origins: Mapping[str, str]) -> None:
    """Raise SettingsError if a destination is inside the data directory that it backs up.

    Only the paths are compared: a destination may be a mount that does not answer. The export
    itself follows links.
    """
    volumes = {os.path.abspath(data_dir), os.path.realpath(data_dir)}
    for destination in exports.destinations:
        if not destination.url.startswith("file:"):
            continue
        path = os.path.abspath(destination.path)
        if any(os.path.commonpath([volume, path]) == volume for volume in volumes):
            raise SettingsError(
                f"The destination {destination.name} ({destination.url}) is inside the data "
                "directory.",
                hint="Name a folder on another disk: an export on the same volume is lost with it.",
                field="exports.destinations",
                origin=origins["exports.destinations"],
            )


def _check_restore_from(
    exports: Exports, unusable: UnusableBucket | None, origins: Mapping[str, str]
) -> None:
    """Raise SettingsError for a name that no destination has: an empty volume would begin empty."""
    names = [known.name for known in (*exports.destinations, unusable) if known is not None]
    if exports.restore_from not in ("auto", "off", *names):
        raise SettingsError(
            f"`exports.restore_from` is {exports.restore_from!r}, and no destination is named so.",
            hint=f"Set `exports.restore_from` to {', '.join([*names, 'auto'])} or off.",
            field="exports.restore_from",
            origin=origins["exports.restore_from"],
        )


def _data_dir(
    storage: Storage, origins: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str, str]:
    if storage.data_dir is not None:
        return storage.data_dir, origins["storage.data_dir"]
    if environ.get(_PLATFORM_MOUNT):
        origin = f"environment {_PLATFORM_MOUNT}"
        return str(checked("storage.data_dir", environ[_PLATFORM_MOUNT], origin)), origin
    try:
        is_there = stat.S_ISDIR(os.stat(RAILWAY_DATA_DIR).st_mode)
    except NO_FILE:
        is_there = False
    except OSError as error:
        raise SettingsError(
            f"{RAILWAY_DATA_DIR} cannot be looked at: {error.strerror}.",
            hint="Let Seline's user read it, or name the data directory by SELINE_DATA_DIR.",
        ) from error
    return (RAILWAY_DATA_DIR, f"{RAILWAY_DATA_DIR} exists") if is_there else ("./data", "default")
