"""Use a store through the admin API: find the store, call the API, wait for another process.

Nothing here prints: a notice for a person goes to the function that the caller hands in.
"""

from seline.client.api import Api
from seline.client.find_store import connect, is_new_store, is_readable_on_the_way

__all__ = ["Api", "connect", "is_new_store", "is_readable_on_the_way"]
