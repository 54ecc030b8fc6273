"""The settings of the manager; units as named. `settings/values` has their defaults."""

from dataclasses import dataclass

from seline.domain.retention import RetentionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerOptions:
    """How one store is managed."""

    retention: RetentionPolicy
    pin_days: int
    deleted_days: int
    blank_guard_except: frozenset[str]
    document_bytes_max: int
    depth_max: int
    settle_s: float
    edit_wait_s: float
    edit_limit_s: float
