"""What an operator does with a store: check it, look at it, export it.

HTTP handlers, the command line and the jobs call these and nothing else.
"""

from seline.operations.operations import Operations

__all__ = ["Operations"]
