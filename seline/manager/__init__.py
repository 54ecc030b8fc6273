"""The policy: when to judge, back up, commit, rotate, recover. Written once, for every store."""

from seline.manager.data import DataManager
from seline.manager.options import ManagerOptions

__all__ = ["DataManager", "ManagerOptions"]
