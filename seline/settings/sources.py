"""The sources of settings: a file, the environment and its short names."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

from seline.errors import SettingsError
from seline.settings.rules import SECRETS, checked, nearest, unknown
from seline.settings.texts import normalised
from seline.settings.values import SECTIONS

_PREFIX: Final = "SELINE_"
DEFAULT_CONFIG: Final = "config/seline.toml"
NO_FILE: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors of a path that certainly leads to no file."""
Given: TypeAlias = tuple[str, object, str]
"""A setting's name, its value as given, and its origin."""

_SHORT_NAMES: Final[Mapping[str, str]] = {
    "SELINE_DATA_DIR": "storage.data_dir",
    "SELINE_ADMIN_TOKEN_FILE": "server.admin_token_file",
    "SELINE_ADMIN_TOKEN": "server.admin_token",
    "SELINE_EXPORTS_PASSPHRASE_FILE": "exports.passphrase_file",
    "SELINE_EXPORTS_PASSPHRASE": "exports.passphrase",
    "PORT": "server.port",
}
_KNOWN_NAMES: Final = frozenset(
    {*_SHORT_NAMES, "SELINE_CONFIG", "SELINE_URL", "SELINE_STRICT", "SELINE_TOKEN"}
)


def from_file(config: str | None, environ: Mapping[str, str]) -> Iterator[Given]:
    """Read the TOML file named by `--config` or SELINE_CONFIG, else the default one if it exists.

    Raises SettingsError.
    """
    named = config or environ.get("SELINE_CONFIG") or None
    if named is not None:
        named = str(checked("SELINE_CONFIG", named, "--config or SELINE_CONFIG"))
    path = Path(named or DEFAULT_CONFIG)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if named is None and isinstance(error, NO_FILE):
            return
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}.",
            hint="Let Seline's user read it, or name another file by --config or SELINE_CONFIG.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The settings file {path} is not TOML: {error}.",
            hint="Correct the line named; config/seline.toml in the project is an example.",
        ) from error
    for section, table in _tables("", tables):
        if section not in SECTIONS or not isinstance(table, dict):
            raise unknown(section, f"file {path}", SECTIONS)
        for key, value in table.items():
            yield f"{section}.{key}", value, f"file {path}"


def _tables(above: str, tables: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield each section's path and table: `[jobs.usage]` is a section, `[jobs]` is none."""
    for name, table in tables.items():
        path = f"{above}{name}"
        if isinstance(table, dict) and any(known.startswith(f"{path}.") for known in SECTIONS):
            yield from _tables(f"{path}.", cast("dict[str, object]", table))
        else:
            yield path, table


def from_environment(environ: Mapping[str, str], warnings: list[str]) -> Iterator[Given]:
    """Read SELINE_<SECTION>__<KEY>. Adds a warning for each other unknown SELINE_ variable."""
    for variable, text in sorted(environ.items()):
        if not variable.startswith(_PREFIX) or variable in _KNOWN_NAMES or not text:
            continue
        if "__" in variable:
            name = variable.removeprefix(_PREFIX).lower().replace("__", ".")
            yield _given(variable, name, text)
        else:
            warnings.append(_warning(variable))


def from_short_names(environ: Mapping[str, str]) -> Iterator[Given]:
    """Read the variables of the short names, such as SELINE_DATA_DIR."""
    for variable, name in _SHORT_NAMES.items():
        if environ.get(variable):
            yield _given(variable, name, environ[variable])


def _given(variable: str, name: str, text: str) -> Given:
    """Return the setting that a variable gives; `text` names a file if `name` ends in `_file`."""
    origin = f"environment {variable}"
    secret = name.removesuffix("_file")
    if secret == name or secret not in SECRETS:
        return name, text, origin
    try:
        content = Path(os.path.expanduser(text)).read_text(encoding="utf-8-sig")
        return secret, normalised(content), origin
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{variable} names a file that cannot be read: {text}.",
            hint="Check that the file exists and that Seline's user may read it.",
        ) from error


def _warning(variable: str) -> str:
    known = {name.removeprefix(_PREFIX): name for name in sorted(_KNOWN_NAMES)}
    near = nearest(variable.removeprefix(_PREFIX), known)
    advice = f"did you mean {known[near]}?" if near else "`seline config show` lists the settings"
    return f"{variable} is not a setting of Seline and is ignored; {advice}"
