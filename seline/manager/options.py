"""What the manager's policy can be told; units as named."""

from __future__ import annotations

from dataclasses import dataclass, field

from seline.domain.retention import RetentionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerOptions:
    """The policy's settings, with their defaults (SPEC §9)."""

    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    pin_days: int = 30
    deleted_days: int = 30
    blank_guard_except: frozenset[str] = frozenset()
    document_bytes_max: int = 32 << 20
    depth_max: int = 200
    settle_s: float = 2.0
    edit_wait_s: float = 30.0
    edit_limit_s: float = 300.0
