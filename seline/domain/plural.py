"""Counts with their noun, for messages."""


def counted(count: int, noun: str) -> str:
    """Return `1 document`, `2 documents`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
