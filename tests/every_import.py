"""Import everything that a command imports.

A command that runs as another user may not be able to read the files of Python. The chat is part of
a bot, no command imports it, and its libraries take seconds.
"""

import _strptime
import difflib
import importlib
import pkgutil
import tarfile
import tempfile
import traceback
import uuid

import seline
import seline_workers

__all__ = ["_strptime", "difflib", "tarfile", "tempfile", "traceback", "uuid"]

for package in (seline, seline_workers):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__") and not module.name.startswith("seline.chat"):
            importlib.import_module(module.name)
