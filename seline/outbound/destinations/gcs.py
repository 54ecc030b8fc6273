"""A bucket of Google Cloud Storage as destination: `gs://bucket/prefix`.

Requests are signed with the key of a service account, which is never sent: obstore signs a token
that is valid for an hour.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from seline.cures import Cure
from seline.errors import SettingsError
from seline.outbound.destinations.bucket import TIMEOUT_S, Bucket, Service
from seline.outbound.destinations.endpoint import check_address
from seline.outbound.extra import check_extra
from seline.settings.values import DestinationSettings

if TYPE_CHECKING:
    from obstore.store import GCSStore

_GOOGLE: Final = "https://storage.googleapis.com"
_OF_KEY: Final = ("client_email", "private_key", "private_key_id")
_KEYS_MAX_BYTES: Final = 64 << 10
_INSTEAD: Final = ("GOOGLE_BEARER_TOKEN", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")
"""The variables that obstore would use instead of a key that it is given, or refuse beside it."""
_NO_RIGHT: Final = Cure(
    "the service account has no right to do this",
    "Give the service account the role Storage Object User (roles/storage.objectUser) on this "
    "bucket.",
)
_WRONG_KEY: Final = (
    "Set `service_account` of this destination, or the variable that holds it, to a key that the "
    "service account still has. If it has it, set the clock of this machine."
)
_NO_BUCKET: Final = Cure(
    "there is no such bucket",
    "Correct the name of the bucket in the `url` of this destination. Create a bucket only if "
    "there never was one: a new one has no copy.",
)
_FOREIGN: Final = Cure(
    "the answer is not one of Google Cloud Storage",
    "Remove `endpoint`, or set it to the address of the service's XML API.",
)
_NO_HOST: Final = Cure(
    "the name of the service is not known",
    "Check the network, and the `endpoint` of this destination if it has one.",
)
SERVICE: Final = Service(
    missing="NoSuchKey",
    no_right=_NO_RIGHT,
    foreign=_FOREIGN,
    no_host=_NO_HOST,
    by_code={
        "AccessDenied": _NO_RIGHT,
        "NoSuchBucket": _NO_BUCKET,
        "InvalidBucketName": _NO_BUCKET,
    },
    by_status={
        401: Cure("the service does not accept the key of the service account", _WRONG_KEY),
        403: _NO_RIGHT,
        404: _FOREIGN,
    },
    by_words={
        "CryptoProvider": Cure("the private key of the service account is broken", _WRONG_KEY)
    },
)


class Gcs(Bucket):
    """A bucket of Google Cloud Storage."""

    service: ClassVar[Service] = SERVICE

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: Mapping[str, str],
        endpoint: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Use the bucket of `url` with the key of a service account, as `key_of` returns it."""
        super().__init__(name, url, address=endpoint.rstrip("/") or _GOOGLE, timeout_s=timeout_s)
        self._key = json.dumps(dict(key))

    def _open(self) -> "GCSStore":
        from obstore.store import GCSStore

        return GCSStore(
            self._bucket,
            prefix=self._prefix or None,
            service_account_key=self._key,
            base_url=self._address,
            skip_signature=False,
            client_options=self._options,
            retry_config=self._retries,
        )


def build(configured: DestinationSettings) -> Gcs:
    """Return the store of a `gs://` destination. Raises SettingsError."""
    check_extra("obstore", "s3")
    options = dict(configured.options)
    check_address(configured, options)
    if "service_account" not in options:
        raise SettingsError(
            f"The destination {configured.name} has no key of a service account.",
            hint="Set its `service_account`, or the variable GOOGLE_SERVICE_ACCOUNT_KEY, to the "
            "path of a key in JSON, or to its text.",
        )
    for variable in _INSTEAD:
        if os.environ.get(variable):
            raise SettingsError(
                f"The variable {variable} is set, and the library for buckets would not use the "
                f"`service_account` of the destination {configured.name}.",
                hint=f"Remove {variable} from the environment. GOOGLE_SERVICE_ACCOUNT_KEY may "
                "hold the path or the text of the key instead.",
            )
    key = key_of(configured.name, options.pop("service_account"))
    timeout_s = configured.timeout_s or TIMEOUT_S
    return Gcs(configured.name, configured.url, key=key, timeout_s=timeout_s, **options)


def key_of(name: str, given: str) -> dict[str, str]:
    """Return what signs requests, of the path or the text of a service account's key.

    Other fields, such as an address of the service, are left out. Raises SettingsError.
    """
    text = given if given.lstrip().startswith("{") else _content(name, given)
    try:
        read: object = json.loads(text)
    except ValueError:
        read = None
    if isinstance(read, dict):
        found = cast("dict[str, object]", read)
        key = {field: str(found[field]) for field in _OF_KEY if found.get(field)}
        if len(key) == len(_OF_KEY):
            return key
    raise SettingsError(
        f"The `service_account` of the destination {name} is no key of a service account.",
        hint="Create a key of the type JSON for the service account, and set `service_account` to "
        "its path.",
    )


def _content(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_KEYS_MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is no text"
        raise SettingsError(
            f"The key of the destination {name} cannot be read: {reason}.",
            hint="Set `service_account` to the path of the key, in a file that this user can read.",
        ) from None
