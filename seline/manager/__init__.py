"""The policy: when to judge, back up, commit, rotate and recover, for every store."""

from seline.manager.data import DataManager
from seline.manager.managed_store import ManagedStore

__all__ = ["DataManager", "ManagedStore"]
