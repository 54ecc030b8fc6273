"""The memory store: the port `DocumentStore` without a disk, for tests and trying out."""

from seline.storage.memory.store import MemoryStore

__all__ = ["MemoryStore"]
