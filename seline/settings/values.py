"""The settings as one frozen value: its sections, their defaults, and values derived from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from seline.domain.alerts.sink_spec import SinkSpec
from seline.domain.destination import Mode
from seline.domain.retention import RetentionPolicy
from seline.domain.texts import Language

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
PLATFORM_PORT: Final = "environment PORT"
"""The origin of a port that the hosting platform set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """`[storage]`: the data directory, its limits and its timeouts."""

    data_dir: str | None = None
    volume_limit_mb: int | None = None
    lock_wait_s: float = 300.0
    require_mount: Literal["auto"] | bool = "auto"
    reserve_percent: float = 1.0
    document_bytes_max: int = 32 << 20
    documents_max: int = 10_000
    depth_max: int = 200
    cache_bytes_max: int = 16 << 20
    settle_s: float = 2.0
    edit_wait_s: float = 30.0
    edit_limit_s: float = 300.0
    journal_bytes: int = 8 << 20
    publish_within_ms: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups(RetentionPolicy):
    """`[backups]`: which backups are kept."""

    keep_daily: int = 7
    pin_days: int = 30
    deleted_days: int = 30
    blank_guard_except: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`[server]`: the address and the access of the admin API, and whether it has a page."""

    host: str | None = None
    port: int | None = None
    admin_token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    trust_proxy: bool = False
    client_header: str = "x-forwarded-for"
    metrics_open: bool = False
    page: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`[jobs.<name>]`: a job's schedule (UTC), its timeout, and whether it is enabled."""

    schedule: str
    timeout_s: float
    enabled: bool = True


DEFAULT_JOBS: Final[Mapping[str, Job]] = {
    "integrity": Job(schedule="every 1 h", timeout_s=3600.0),
    "rotation": Job(schedule="every 1 h", timeout_s=600.0),
    "usage": Job(schedule="every 5 min", timeout_s=60.0),
    "export": Job(schedule="daily 03:00", timeout_s=3600.0),
    "mirror": Job(schedule="every 30 s", timeout_s=60.0),
    "drill": Job(schedule="weekly sun 04:00", timeout_s=3600.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """`[[exports.destinations]]`: one destination, what it receives, and how many exports it keeps.

    `same_disk`: it is meant to be on the disk of the data directory. `timeout_s` is the limit of
    one call. `options` are those of its kind of address; secrets are among them.
    """

    name: str
    url: str
    keep: int | None = None
    same_disk: bool = False
    mode: Mode = "export"
    timeout_s: float | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"

    @property
    def path(self) -> str:
        """The folder that a `file:///…` address names."""
        return unquote(urlsplit(self.url).path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """`[exports]`: copies at destinations outside the volume.

    `keep` is for exports and for the mirror, the periods for the mirror alone. `restore_from` is
    where an empty volume gets its copy: `auto`, `off`, or a destination's name. `encrypt_to` are
    age recipients; with them or a passphrase everything is encrypted.
    """

    keep: int = 7
    keep_daily: int = 7
    keep_weekly: int = 4
    keep_monthly: int = 6
    destinations: tuple[DestinationSettings, ...] = ()
    restore_from: str = "auto"
    encrypt_to: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    """`[alerts]`: where alerts are sent, in which language, and how often they are repeated."""

    language: Language = "en"
    renotify_h: float = 24.0
    heartbeat_url: str | None = field(default=None, repr=False)
    sinks: tuple[SinkSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAccess:
    """`[chat]`: who may use the chat, as `telegram:ID` or `discord:ID`."""

    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """`[log]`: the level and the format of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableBucket:
    """A bucket that variables name, and that lacks something: why, and the next step."""

    name: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `origins` has the source of each value; `notes` are for the log at the start.

    `service` names this process in alerts: the platform's service name, else the host.
    """

    storage: Storage = field(default_factory=Storage)
    backups: Backups = field(default_factory=Backups)
    server: Server = field(default_factory=Server)
    jobs: Mapping[str, Job] = field(default_factory=lambda: DEFAULT_JOBS)
    exports: Exports = field(default_factory=Exports)
    alerts: Alerting = field(default_factory=Alerting)
    chat: ChatAccess = field(default_factory=ChatAccess)
    log: Log = field(default_factory=Log)
    strict: bool = False
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    service: str = "seline"
    data_dir: str = "data"
    mount_required: bool = False
    mount_expected_under: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unusable_bucket: UnusableBucket | None = None

    @property
    def bind(self) -> tuple[str | None, int]:
        """The host and port to listen on. Host None means every address, IPv4 and IPv6.

        That is the default only if the hosting platform set PORT; else it is loopback.
        """
        host, port = self.server.host, self.server.port
        if host is None and self.origins.get("server.port") != PLATFORM_PORT:
            host = DEFAULT_HOST
        return host, DEFAULT_PORT if port is None else port

    @property
    def bind_is_public(self) -> bool:
        """Whether other machines can reach the address."""
        host = self.bind[0]
        return host not in {"127.0.0.1", "localhost", "::1"}


SECTIONS: Final[Mapping[str, Any]] = {
    "storage": Storage(),
    "backups": Backups(),
    "server": Server(),
    **{f"jobs.{name}": job for name, job in DEFAULT_JOBS.items()},
    "exports": Exports(),
    "alerts": Alerting(),
    "chat": ChatAccess(),
    "log": Log(),
}
"""The sections with their defaults."""
