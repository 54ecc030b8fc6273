"""What an operator does with a store: check it, look at it, export it.

HTTP handlers, the command line and the jobs call these, and `DataManager` for what concerns one
document: save, delete, reset, restore.
"""

from seline.operations.operations import Operations

__all__ = ["Operations"]
