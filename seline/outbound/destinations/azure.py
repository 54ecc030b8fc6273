"""A container of Azure Blob Storage as destination: `az://container/prefix`."""

import base64
from typing import TYPE_CHECKING, ClassVar, Final

from seline.cures import Cure
from seline.errors import SettingsError
from seline.outbound.destinations.bucket import TIMEOUT_S, Bucket, Service
from seline.outbound.destinations.endpoint import check_address
from seline.outbound.extra import check_extra
from seline.settings.values import DestinationSettings

if TYPE_CHECKING:
    from obstore.store import AzureCredential, AzureStore

_KEY, _TOKEN = "account_key", "sas_token"
_GONE_IN_BATCH: Final = "Bulk delete request failed"
"""Removals are sent as a batch, whose parts have a status and no code."""
_NO_RIGHT: Final = Cure(
    "the key or token has no right to do this",
    "Use a `sas_token` of this container with the rights to read, add, create, write, delete and "
    "list (`racwdl`).",
)
_REFUSED: Final = Cure(
    "the storage account refuses the key or token",
    "Correct `account_key` or `sas_token` of this destination, or the variable that holds it; a "
    "token may have expired. If it is right, set the clock of this machine, and let the network "
    "rules of the account allow this machine.",
)
_NO_KEYS: Final = Cure(
    "the storage account takes no keys",
    "Allow access by storage account keys in the configuration of the account.",
)
_NO_CONTAINER: Final = Cure(
    "there is no such container",
    "Correct the name of the container in the `url` of this destination. Create a container only "
    "if there never was one: a new one has no copy.",
)
_FOREIGN: Final = Cure(
    "the answer is not one of Azure Blob Storage",
    "Correct `account`, and remove `endpoint` or set it to the address of the Blob service.",
)
_NO_HOST: Final = Cure(
    "the name of the service is not known",
    "Check the network, and `account` and `endpoint` of this destination.",
)
SERVICE: Final = Service(
    missing="BlobNotFound",
    no_right=_NO_RIGHT,
    foreign=_FOREIGN,
    no_host=_NO_HOST,
    by_code={
        "AuthenticationFailed": _REFUSED,
        "AuthorizationFailure": _REFUSED,
        "AuthorizationPermissionMismatch": _NO_RIGHT,
        "AuthorizationResourceTypeMismatch": _NO_RIGHT,
        "UnauthorizedBlobOverwrite": _NO_RIGHT,
        "KeyBasedAuthenticationNotPermitted": _NO_KEYS,
        "ContainerNotFound": _NO_CONTAINER,
        "ContainerBeingDeleted": _NO_CONTAINER,
        "InvalidResourceName": _NO_CONTAINER,
    },
    taken=("BlobAlreadyExists", "ConditionNotMet"),
    by_status={401: _REFUSED, 403: _NO_RIGHT, 404: _FOREIGN},
)


class Azure(Bucket):
    """A container of Azure Blob Storage."""

    service: ClassVar[Service] = SERVICE

    def __init__(
        self,
        name: str,
        url: str,
        *,
        account: str,
        account_key: str = "",
        sas_token: str = "",
        endpoint: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Use the container of `url` with a key or a token; `endpoint` is that of the account."""
        address = endpoint.rstrip("/") or f"https://{account}.blob.core.windows.net"
        super().__init__(name, url, address=address, timeout_s=timeout_s)
        self._account = account
        self._credential: AzureCredential = (
            {"access_key": account_key, "expires_at": None}
            if account_key
            else {"sas_token": sas_token.removeprefix("?"), "expires_at": None}
        )

    def _open(self) -> "AzureStore":
        from obstore.store import AzureStore

        return AzureStore(
            self._bucket,
            prefix=self._prefix or None,
            account_name=self._account,
            endpoint=self._address,
            use_emulator=False,
            use_fabric_endpoint=False,
            credential_provider=lambda: self._credential,
            skip_signature=False,
            client_options=self._options,
            retry_config=self._retries,
        )

    def _code_of(self, text: str) -> str:
        if _GONE_IN_BATCH in text and "(code: 404)" in text:
            return self.service.missing
        return super()._code_of(text)


def build(configured: DestinationSettings) -> Azure:
    """Return the store of an `az://` destination. Raises SettingsError."""
    check_extra("obstore", "s3")
    options = dict(configured.options)
    check_address(configured, options)
    if "account" not in options:
        raise SettingsError(
            f"The destination {configured.name} has no storage account.",
            hint="Set its `account`, or the variable AZURE_STORAGE_ACCOUNT, to the name of the "
            "storage account.",
        )
    if (_KEY in options) == (_TOKEN in options):
        has = "both a key and a token" if _KEY in options else "no key and no token"
        raise SettingsError(
            f"The destination {configured.name} has {has}.",
            hint="Set either `account_key` (or the variable AZURE_STORAGE_KEY) or `sas_token` (or "
            "AZURE_STORAGE_SAS_TOKEN).",
        )
    _check_credential(configured.name, options)
    timeout_s = configured.timeout_s or TIMEOUT_S
    return Azure(configured.name, configured.url, timeout_s=timeout_s, **options)


def _check_credential(name: str, options: dict[str, str]) -> None:
    if _TOKEN in options and "sig=" not in options[_TOKEN]:
        raise SettingsError(
            f"The `sas_token` of the destination {name} has no signature.",
            hint="Set `sas_token` to the whole token, as `sv=…&sig=…`.",
        )
    try:
        base64.b64decode(options.get(_KEY, ""), validate=True)
    except ValueError:
        raise SettingsError(
            f"The `account_key` of the destination {name} is no key of a storage account.",
            hint="Set `account_key` to the whole key, as the account's access keys show it.",
        ) from None
