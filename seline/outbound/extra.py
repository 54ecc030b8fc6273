"""Import a library that only some installations have."""

import importlib
from typing import Any

from seline.errors import SettingsError


def extra(module: str, name: str) -> Any:
    """Return a module of the extra `name`. Raises SettingsError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"{module.partition('.')[0]} is not installed, which the settings need.",
            hint=f"Run `pip install 'seline[{name}]'`, then start again.",
        ) from error
