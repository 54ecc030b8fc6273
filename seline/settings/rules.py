"""The rule of each setting: how its value is parsed, and which values are allowed."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from seline.domain.alerts.sink_spec import FIELDS_OF, is_web_address, read_sinks
from seline.domain.schedule import FORMS, parse_schedule
from seline.domain.texts import LANGUAGES
from seline.errors import SettingsError
from seline.settings.destinations import KEEP_MAX, read_destinations
from seline.settings.texts import character, normalised, path_text, plain_text
from seline.settings.values import DEFAULT_JOBS

TOKEN_CHARACTERS_MIN: Final = 16
PASSPHRASE_CHARACTERS_MIN: Final = 16
_RECIPIENT: Final = re.compile(r"age1[02-9ac-hj-np-z]{58}", re.ASCII)
_OWNER: Final = re.compile(r"(?:telegram|discord):[1-9][0-9]{0,19}", re.ASCII)
_SIMILARITY_MIN: Final = 0.7
SECRETS: Final = frozenset(
    {
        "server.admin_token",
        "alerts.heartbeat_url",
        "alerts.sinks",
        "exports.destinations",
        "exports.passphrase",
    }
)
_NOT_QUOTED: Final = SECRETS | {"SELINE_TOKEN", "exports.encrypt_to"}
"""What an error does not show. An identity may stand by mistake where its recipient belongs."""


@dataclass(frozen=True, slots=True)
class SettingRule:
    """How a setting is parsed.

    `allowed` describes the allowed values. `read` takes text or a TOML value and returns the
    setting's value; it raises ValueError or TypeError. `explains`: the error's text has the reason
    and no part of the value.
    """

    allowed: str
    read: Callable[[object], object]
    explains: bool = False


def checked(name: str, value: object, origin: str) -> object:
    """Return the parsed value of a setting or a variable. Raises SettingsError."""
    rule = RULES.get(name) or VARIABLES.get(name)
    if rule is None:
        raise unknown(name, origin, RULES)
    try:
        return rule.read(value)
    except (ValueError, TypeError) as error:
        shown_value = "the value given" if name in _NOT_QUOTED else repr(str(value))
        why = f"{error}; " if rule.explains else ""
        raise SettingsError(
            f"{name} = {shown_value} ({origin}) is not allowed: {why}it must be {rule.allowed}.",
            hint=f"Set {name} to {rule.allowed}, or leave it out for its default.",
            field=name,
            origin=origin,
        ) from error


def unknown(name: str, origin: str, known: Mapping[str, object]) -> SettingsError:
    """Return the error for an unknown setting or section; it suggests the nearest known name."""
    near = nearest(name, known)
    suggestion = f" Did you mean {near}?" if near else ""
    return SettingsError(
        f"There is no setting {name} ({origin}).{suggestion}",
        hint="`seline config show` lists every setting.",
        field=name,
        origin=origin,
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a typo of, None if none is similar enough."""
    similarity = {candidate: _similarity(name, candidate) for candidate in known}
    best = max(similarity, key=lambda candidate: similarity[candidate], default=None)
    return best if best is not None and similarity[best] >= _SIMILARITY_MIN else None


def _similarity(name: str, known: str) -> float:
    """Compare two names without a common section, which would make all its keys similar."""
    shared = f"{known.rpartition('.')[0]}."
    if name.startswith(shared):
        name, known = name.removeprefix(shared), known.removeprefix(shared)
    return difflib.SequenceMatcher(None, name, known).ratio()


def _number(
    low: float, high: float, *, whole: bool, optional: bool = False, unit: str = ""
) -> SettingRule:
    def read(value: object) -> object:
        if isinstance(value, bool):
            raise TypeError(value)
        number = (int if whole else float)(cast("Any", value))
        if whole and isinstance(value, float) and value != number:
            raise ValueError(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    number_type = "a whole number" if whole else "a number"
    allowed = f"{number_type} from {low:,} to {high:,}{f' ({unit})' if unit else ''}"
    return SettingRule(f"{allowed}, or left out" if optional else allowed, read)


def _journal_bytes(value: object) -> object:
    """Return the size of a journal file, whole blocks; 0 for none."""
    number = cast("int", _number(0, 1 << 30, whole=True).read(value))
    if 0 < number < 1 << 16:
        raise ValueError(value)
    return number - number % 4096


def _one_of(*words: str) -> SettingRule:
    def read(value: object) -> object:
        if str(value).lower() not in words:
            raise ValueError(value)
        return str(value).lower()

    return SettingRule(" or ".join(repr(word) for word in words), read)


def truth(value: object) -> bool:
    """Parse true or false, of a setting or a query parameter. Raises ValueError."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError(value)
    return known[str(value).lower()]


def _auto_or_truth(value: object) -> object:
    return "auto" if str(value).lower() == "auto" else truth(value)


def _header_text(value: object) -> str:
    """Return a text that an HTTP header can carry: visible ASCII characters."""
    text = plain_text(value)
    wrong = next((letter for letter in text if not "!" <= letter <= "~"), None)
    if wrong is not None:
        raise ValueError(f"it contains {character(wrong)}")
    return text


def _token(value: object) -> str:
    text = _header_text(value)
    if len(text) < TOKEN_CHARACTERS_MIN:
        raise ValueError(f"it has {len(text)} characters")
    return text


def _schedule(value: object) -> str:
    return parse_schedule(plain_text(value)).text


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        raise TypeError("it is no list")
    items = cast("list[object]", value)
    texts = [normalised(item) if isinstance(item, str) else item for item in items]
    return tuple(plain_text(text) for text in texts if text != "")


def _host_names(value: object) -> tuple[str, ...]:
    names = tuple(name.lower() for name in _names(value))
    for name in names:
        if any(mark in name for mark in "/:*@ "):
            raise ValueError(f"{name} is no host name")
    return names


def _owners(value: object) -> tuple[str, ...]:
    owners = tuple(owner.lower() for owner in _names(value))
    for number, owner in enumerate(owners, start=1):
        if not _OWNER.fullmatch(owner):
            raise ValueError(f"entry {number} is no `telegram:ID` or `discord:ID`")
    return owners


def _recipients(value: object) -> tuple[str, ...]:
    recipients = _names(value)
    for number, recipient in enumerate(recipients, start=1):
        if recipient.upper().startswith("AGE-SECRET-KEY-"):
            raise ValueError(f"entry {number} is an identity, the secret part of a key")
        if not _RECIPIENT.fullmatch(recipient):
            raise ValueError(f"entry {number} is no recipient")
    return recipients


def _passphrase(value: object) -> str:
    text = plain_text(value)
    if text.upper().startswith("AGE-SECRET-KEY-"):
        raise ValueError("it is an identity")
    if len(text) < PASSPHRASE_CHARACTERS_MIN:
        raise ValueError(f"it has {len(text)} characters")
    return text


def _address(value: object) -> str:
    if not is_web_address(plain_text(value)):
        raise ValueError("it is no web address")
    return str(value)


_BYTES_MAX: Final = 1 << 50
_DAYS_MAX: Final = 36_500
_KEEP_EXPORTS: Final = _number(1, KEEP_MAX, whole=True)
_KEEP: Final = _number(0, 100_000, whole=True)
_TRUTH: Final = SettingRule("true or false", truth)
RULES: Final[Mapping[str, SettingRule]] = {
    "storage.data_dir": SettingRule("a path", path_text, explains=True),
    "storage.volume_limit_mb": _number(1, 1 << 30, whole=True, optional=True, unit="MB"),
    "storage.lock_wait_s": _number(0, 86_400, whole=False, unit="seconds"),
    "storage.require_mount": SettingRule("'auto', true or false", _auto_or_truth),
    "storage.reserve_percent": _number(0, 20, whole=False, unit="percent"),
    "storage.document_bytes_max": _number(1024, 1 << 30, whole=True, unit="bytes"),
    "storage.documents_max": _number(1, 1_000_000, whole=True),
    "storage.depth_max": _number(1, 200, whole=True, unit="levels"),
    "storage.cache_bytes_max": _number(0, _BYTES_MAX, whole=True, unit="bytes"),
    "storage.settle_s": _number(0, 3600, whole=False, unit="seconds"),
    "storage.edit_wait_s": _number(0, 3600, whole=False, unit="seconds"),
    "storage.edit_limit_s": _number(1, 86_400, whole=False, unit="seconds"),
    "storage.journal_bytes": SettingRule(
        "0, or a whole number from 65,536 to 1,073,741,824 (bytes)", _journal_bytes
    ),
    "storage.publish_within_ms": _number(0, 10_000, whole=True, unit="milliseconds"),
    "backups.keep_newest": _number(1, 100_000, whole=True),
    "backups.keep_hourly": _KEEP,
    "backups.keep_daily": _KEEP,
    "backups.keep_weekly": _KEEP,
    "backups.keep_monthly": _KEEP,
    "backups.bytes_max": _number(1, _BYTES_MAX, whole=True, optional=True, unit="bytes"),
    "backups.pin_days": _number(1, _DAYS_MAX, whole=True, unit="days"),
    "backups.deleted_days": _number(1, _DAYS_MAX, whole=True, unit="days"),
    "backups.blank_guard_except": SettingRule("a list of document names", _names, explains=True),
    "server.host": SettingRule("an address or host name", plain_text, explains=True),
    "server.port": _number(0, 65_535, whole=True),
    "server.admin_token": SettingRule(
        f"at least {TOKEN_CHARACTERS_MIN} ASCII characters without spaces", _token, explains=True
    ),
    "server.allowed_hosts": SettingRule(
        "a list of host names without a port, such as bot.example.org", _host_names, explains=True
    ),
    "server.trust_proxy": _TRUTH,
    "server.client_header": _one_of("x-forwarded-for", "x-real-ip"),
    "server.metrics_open": _TRUTH,
    "server.page": _TRUTH,
    **{
        f"jobs.{name}.{key}": rule
        for name in DEFAULT_JOBS
        for key, rule in (
            ("schedule", SettingRule(FORMS, _schedule)),
            ("timeout_s", _number(1, 86_400, whole=False, unit="seconds")),
            ("enabled", _TRUTH),
        )
    },
    "exports.destinations": SettingRule(
        "a list of tables, each with `name`, `url` and what its kind of address needs",
        read_destinations,
        explains=True,
    ),
    "exports.keep": _KEEP_EXPORTS,
    "exports.restore_from": SettingRule(
        "'auto', 'off' or the name of a destination", plain_text, explains=True
    ),
    "exports.encrypt_to": SettingRule(
        "a list of age recipients, such as age1… from `seline key new`", _recipients, explains=True
    ),
    "exports.passphrase": SettingRule(
        f"a text of at least {PASSPHRASE_CHARACTERS_MIN} characters", _passphrase, explains=True
    ),
    **{f"exports.keep_{period}": _KEEP for period in ("daily", "weekly", "monthly")},
    "alerts.language": _one_of(*LANGUAGES),
    "alerts.renotify_h": _number(0.1, 24 * 365, whole=False, unit="hours"),
    "alerts.heartbeat_url": SettingRule(
        "an address that begins with https:// or http://", _address, explains=True
    ),
    "alerts.sinks": SettingRule(
        f"a list of tables, each with `kind` ({', '.join(FIELDS_OF)}) and what the kind needs",
        read_sinks,
        explains=True,
    ),
    "chat.owners": SettingRule(
        "a list of the numbers of accounts, such as telegram:123456789", _owners, explains=True
    ),
    "log.level": _one_of("debug", "info", "warning", "error"),
    "log.format": _one_of("auto", "json", "console"),
}
VARIABLES: Final[Mapping[str, SettingRule]] = {
    "SELINE_STRICT": _TRUTH,
    "SELINE_URL": SettingRule("the address of a server", plain_text, explains=True),
    "SELINE_TOKEN": SettingRule("a token, without spaces", _header_text, explains=True),
    "SELINE_CONFIG": SettingRule("the path of a settings file", path_text, explains=True),
}
"""The variables that are no settings."""
