"""The kinds of destinations, by the scheme of their address.

A builder makes a store from its settings without a connection, and imports no optional library. It
raises SettingsError for what it cannot honour.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from seline.errors import SettingsError
from seline.outbound.destinations import azure, gcs, s3, sftp
from seline.outbound.destinations.folder import LIMIT_S, Folder
from seline.ports.destinations import ObjectStore, Target
from seline.settings import Settings
from seline.settings.values import DestinationSettings, Exports

Builder: TypeAlias = Callable[[DestinationSettings], ObjectStore]


def _folder(configured: DestinationSettings) -> ObjectStore:
    return Folder(configured.name, configured.path, timeout_s=configured.timeout_s or LIMIT_S)


def _webdav(configured: DestinationSettings) -> ObjectStore:
    from seline.outbound.destinations import webdav  # with aiohttp, which a bot may not need

    return webdav.build(configured)


def _telegram(configured: DestinationSettings) -> ObjectStore:
    from seline.outbound.destinations import telegram  # with aiohttp, as above

    return telegram.build(configured)


def _discord(configured: DestinationSettings) -> ObjectStore:
    from seline.outbound.destinations import discord  # with aiohttp, as above

    return discord.build(configured)


BUILDERS: Final[Mapping[str, Builder]] = {
    "file": _folder,
    "s3": s3.build,
    "gs": gcs.build,
    "az": azure.build,
    "webdav": _webdav,
    "webdavs": _webdav,
    "sftp": sftp.build,
    "telegram": _telegram,
    "discord": _discord,
}
_CHATS: Final = frozenset({"telegram", "discord"})


def build_targets(settings: Settings) -> list[Target]:
    """Return the configured destinations. Raises SettingsError."""
    for configured in settings.exports.destinations:
        _check_encrypted(configured, settings.exports)
    return [
        Target(
            build_destination(configured),
            configured.keep or settings.exports.keep,
            configured.same_disk,
            configured.mode,
            may_be_unmounted=configured.url.startswith("file:"),
        )
        for configured in settings.exports.destinations
    ]


def build_destination(configured: DestinationSettings) -> ObjectStore:
    """Return one configured destination. Raises SettingsError."""
    return BUILDERS[urlsplit(configured.url).scheme](configured)


def _check_encrypted(configured: DestinationSettings, exports: Exports) -> None:
    """Refuse a chat unless everything that is sent there is encrypted. Raises SettingsError."""
    is_chat = urlsplit(configured.url).scheme in _CHATS
    if is_chat and not exports.encrypt_to and not exports.passphrase:
        raise SettingsError(
            f"The destination {configured.name} is a chat, and what is sent there must be "
            "encrypted.",
            hint="Set `exports.encrypt_to` to a recipient that `seline key new` makes, or set "
            "`exports.passphrase`.",
        )
