"""What the figures of a disk mean for a bot, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Final

from seline.bench.measure import DiskReport, Figure
from seline.storage.volume.mounts import NETWORK_KINDS

NO_FLUSH_MS: Final = 0.02
"""No disk makes data durable faster."""
SLOW_FLUSH_MS: Final = 10.0
PAUSE_MS: Final = 100.0
SAVES_PER_SECOND: Final = 20
SAME_RATIO: Final = 1.05
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_COMPARED: Final = {
    "save": "one save",
    "saves_together": "16 saves that arrive together",
    "field_of_large": "one field of a 64 KiB document",
}


def meaning_of(report: DiskReport) -> list[str]:
    """Return what a bot's author should know, warnings first."""
    figures = {(figure.measure, figure.by): figure for figure in report.figures}
    warning = _warning(report.file_system, figures["flush", "disk"])
    return [*filter(None, [warning]), *_costs(figures), _beside_sqlite(figures)]


def ms_text(ms: float) -> str:
    """Return a time with its unit, such as `0.25 ms`."""
    return f"{ms:.3f} ms" if ms < 0.1 else f"{ms:.2f} ms" if ms < 10 else f"{ms:,.0f} ms"


def _warning(file_system: str, flush: Figure) -> str:
    took = ms_text(flush.median_ms)
    if file_system in _MEMORY:
        return f"Warning: {file_system} is memory. A restart loses everything in it."
    if file_system in NETWORK_KINDS:
        return f"Warning: {file_system} is a network file system. Locks and flushes may fail there."
    if flush.median_ms < NO_FLUSH_MS:
        return (
            f"Warning: a flush takes {took}, too fast for a disk. This place seems to ignore "
            "flushes: a power cut may lose what was saved."
        )
    if flush.median_ms > SLOW_FLUSH_MS:
        return (
            f"Warning: a flush takes {took}, and each save waits for it. Let saves run at the same "
            "time (asyncio.gather): they share their flushes."
        )
    if flush.p99_ms > PAUSE_MS:
        return (
            f"Warning: one flush in a hundred takes {ms_text(flush.p99_ms)} or more. Other "
            "programs use this disk, or its provider limits the writes."
        )
    return ""


def _costs(figures: Mapping[tuple[str, str], Figure]) -> Iterator[str]:
    flush, save = figures["flush", "disk"], figures["save", "seline"]
    yield (
        f"A save of 1 KiB takes {ms_text(save.median_ms)} here. One flush of this disk, the limit "
        f"of any durable change, takes {ms_text(flush.median_ms)}."
    )
    share = SAVES_PER_SECOND * save.median_ms / 1000
    if share < 1:
        yield f"A bot that saves {SAVES_PER_SECOND} times a second waits {share:.0%} of the time."
    yield (
        f"One after the other, {save.per_second:,.0f} saves fit into a second; if "
        f"16 arrive together, {figures['saves_together', 'seline'].per_second:,.0f}."
    )
    large = figures["field_of_large", "seline"]
    if large.median_ms > 1.5 * save.median_ms:
        yield (
            f"Changing one field of a 64 KiB document takes {ms_text(large.median_ms)}: several "
            "small documents cost less than a large one that changes often."
        )


def _beside_sqlite(figures: Mapping[tuple[str, str], Figure]) -> str:
    compared = (
        f"{what} {_ratio(figures[name, 'seline'].median_ms, figures[name, 'sqlite3'].median_ms)}"
        for name, what in _COMPARED.items()
    )
    return f"Seline compared with sqlite3: {', '.join(compared)}."


def _ratio(seline_ms: float, sqlite_ms: float) -> str:
    faster, slower = sqlite_ms / seline_ms, seline_ms / sqlite_ms
    if max(faster, slower) < SAME_RATIO:
        return "as fast"
    return f"{faster:.1f} times faster" if faster > 1 else f"{slower:.1f} times slower"
