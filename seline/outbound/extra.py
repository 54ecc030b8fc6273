"""Import a library that only some installations have."""

import importlib
import importlib.util
from typing import Any

from seline.errors import SettingsError


def extra(module: str, name: str) -> Any:
    """Return a module of the extra `name`. Raises SettingsError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, name) from error


def check_extra(module: str, name: str) -> None:
    """Raise SettingsError unless a module of the extra `name` is installed. Imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise _missing(module, name)


def _missing(module: str, name: str) -> SettingsError:
    return SettingsError(
        f"{module.partition('.')[0]} is not installed, which the settings need.",
        hint=f"Run `pip install 'seline[{name}]'`, then start again.",
    )
