"""A bucket as destination: `s3://bucket/prefix` at Amazon, Railway, R2, B2, MinIO and others.

An object is whole or absent, and durable when `put` returns. Requests are made by obstore on its
own threads. A call ends within its time limit, with its retries. Error texts name a cause, never
what the service wrote: that can hold the access key and the signature.

obstore also reads variables such as AWS_ENDPOINT_URL_S3 and AWS_SESSION_TOKEN. They would replace
an endpoint and credentials given to its usual arguments, so those used here take precedence.
"""

import asyncio
import atexit
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache, cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import urlsplit

from seline.cures import Cure
from seline.domain.alerts.sink_spec import is_web_address
from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import failures
from seline.outbound.extra import check_extra
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed, ObjectForbidden, ObjectMissing
from seline.settings import truth
from seline.settings.values import DestinationSettings

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Credential, S3Store

TIMEOUT_S: Final = 60.0
SINGLE_BYTES_MAX: Final = 32 << 20
"""A larger object is sent in parts, which a cancelled call leaves in the bucket, not listed."""
_PART_BYTES: Final = 16 << 20
_PARTS_AT_ONCE: Final = 2
_RETRIES: Final = 5
THREADS_END_S: Final = 0.1
_TRUTHS: Final = ("path_style", "allow_http")
_EXISTS: Final = "PreconditionFailed"
_NO_CONDITIONS: Final = "NotImplemented"
"""The code of a service, such as B2, that has no conditional uploads."""
_NOT_THERE: Final = "seline-no-such-object"
T = TypeVar("T")


_WRONG_KEYS: Final = (
    "Correct `access_key_id` and `secret_access_key` of this destination, or the variables that "
    "hold them, such as ACCESS_KEY_ID and SECRET_ACCESS_KEY."
)
_NO_RIGHT: Final = Cure(
    "the access key has no right to do this",
    "Give the key the rights to list, read, write and remove objects in this bucket.",
)
_NO_BUCKET: Final = Cure(
    "there is no such bucket",
    "Correct the name of the bucket, in the `url` of this destination or in the variable BUCKET. "
    "Create a bucket only if there never was one: a new one has no copy.",
)
_CLOCK: Final = Cure(
    "the clock of this machine differs from that of the service", "Set the clock of this machine."
)
_FULL: Final = Cure("the bucket is full", "Free space at the service, or raise its quota.")
_REGION: Final = Cure(
    "the bucket is in another region",
    "Set `region` of this destination (or the variable REGION) to the bucket's, and `endpoint` (or "
    "ENDPOINT) to the address for it.",
)
_NOT_S3: Final = Cure(
    "the answer is not one of S3",
    "Set `endpoint`, or the variable ENDPOINT, to the address of the service's S3 API.",
)
_NAMES: Final = Cure(
    "it holds an object whose name cannot be listed, such as `a//b`",
    "Give this destination a prefix of its own in its `url`, such as `s3://BUCKET/seline`.",
)
_TAKEN: Final = Cure("there is such an object", ExportFailed.hint)
_UNREACHABLE: Final = (
    "Check the network and the `endpoint` of this destination (or the variable ENDPOINT)."
)
_SLOW: Final = (
    "Check the network and the `endpoint` of this destination. If the network is slow, raise its "
    "`timeout_s`."
)
_NO_HOST: Final = (
    "Check the network and the `endpoint` of this destination. If the service has one address for "
    "all buckets, set `path_style = true`."
)
_BY_CODE: Final[Mapping[str, Cure]] = {
    "InvalidAccessKeyId": Cure("the service does not know the access key", _WRONG_KEYS),
    "SignatureDoesNotMatch": Cure("the secret is not that of the access key", _WRONG_KEYS),
    "InvalidToken": Cure("the access key needs a session token", _WRONG_KEYS),
    "AccessDenied": _NO_RIGHT,
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "EntityTooLarge": Cure("the object is larger than the service accepts", _FULL.hint),
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
}
_BY_STATUS: Final[Mapping[int, Cure]] = {
    301: _REGION,
    307: _REGION,
    401: Cure("the service does not accept the access key", _WRONG_KEYS),
    403: _NO_RIGHT,
    404: _NOT_S3,
    507: _FULL,
}
"""Of answers with no code that is known; 403 only without any code."""
_BY_WORDS: Final[Mapping[str, Cure]] = {
    "kind: Timeout,": Cure("the service did not answer in time", _SLOW),
    "ConnectionRefused": Cure("the service refused the connection", _UNREACHABLE),
    "dns error": Cure("the name of the service is not known", _NO_HOST),
    "InvalidCertificate": Cure("the certificate of the service is not trusted", _NO_HOST),
    "kind: Connect,": Cure("the service cannot be reached", _UNREACHABLE),
    "error sending request": Cure("the connection was lost", _NO_HOST),
}
"""Parts of obstore's text for a request without an answer, in order."""


class S3:
    """A port `ObjectStore` in one bucket. Making an `S3` sends nothing."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        access_key_id: str,
        secret_access_key: str,
        endpoint: str = "",
        region: str = "us-east-1",
        path_style: bool | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Use the bucket of `url` at `endpoint`, by default Amazon's for the region.

        `path_style` is described in `addressed`. Each call may take `timeout_s`, and each of its
        requests half of that.
        """
        parts = urlsplit(url)
        self._name = name
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._keys = (access_key_id, secret_access_key)
        self._region = region
        self._address, self._is_virtual = addressed(
            endpoint or f"https://s3.{region}.amazonaws.com", self._bucket, path_style
        )
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        address = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        return f"{address} at {urlsplit(self._address).netloc.removeprefix(f'{self._bucket}.')}"

    async def list(self, folder: str) -> Sequence[Listed]:
        from obstore import list_with_delimiter_async

        listing = list_with_delimiter_async(self._store, folder or None)
        found = await self._call(listing, f"Listing {folder or 'the top'}")
        items: list[tuple[str, int | None]] = [(path, None) for path in found["common_prefixes"]]
        items += [(item["path"], item["size"]) for item in found["objects"]]
        entries = [Listed(_last(path), size_bytes) for path, size_bytes in items if path != folder]
        if not entries:
            await self._check_for_s3()
        return entries

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        if replace:
            await self._send(key, data, "overwrite")
            return
        try:
            is_there = await self._exists(key)  # some services replace whatever they are asked
        except ObjectForbidden as refusal:
            await self._create(key, data, refusal)  # the credentials only write
        else:
            if not is_there:
                await self._create(key, data)

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        async def content() -> bytes | None:
            answer = await self._begin_get(key)
            is_small = answer.meta["size"] <= bytes_max
            return bytes(await answer.bytes_async()) if is_small else None

        data = await self._call(content(), f"Reading {key}")
        if data is None:
            raise failures.too_large(self, key, bytes_max)
        return data

    async def remove(self, key: str) -> None:
        from obstore import delete_async

        with suppress(ObjectMissing):
            await self._call(delete_async(self._store, key), f"Removing {key}")

    async def make(self) -> None:
        """Do nothing: a bucket is made by its owner, a folder by its first object."""

    async def on_data_disk(self, data_dir: str) -> bool:  # noqa: ARG002  # of the port
        return False

    async def close(self) -> None:
        """Do nothing: obstore closes its connections when they are not used."""

    # parts

    async def _send(self, key: str, data: bytes, mode: Literal["overwrite", "create"]) -> None:
        from obstore import put_async

        is_large = len(data) > SINGLE_BYTES_MAX and mode == "overwrite"
        sending = put_async(
            self._store,
            key,
            data,
            mode=mode,
            use_multipart=is_large,
            chunk_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
        await self._call(sending, f"Writing {key}")

    async def _create(self, key: str, data: bytes, unseen: ObjectForbidden | None = None) -> None:
        """Store an object unless it exists; raise `unseen` where the service cannot tell."""
        try:
            await self._send(key, data, "create")
        except ExportFailed as failed:
            code = failed.details.get("service_code")
            if code == _NO_CONDITIONS and unseen is not None:
                raise unseen from failed
            if code == _NO_CONDITIONS:
                await self._send(key, data, "overwrite")
            elif code != _EXISTS:
                raise

    async def _exists(self, key: str) -> bool:
        """Whether there is an object, which is not read."""
        try:  # the refusal of a HEAD has no code, and would not say what is wrong
            await self._call(self._begin_get(key), f"Reading {key}")
        except ObjectMissing:
            return False
        return True

    async def _begin_get(self, key: str) -> "GetResult":
        from obstore import get_async

        return await get_async(self._store, key)

    async def _check_for_s3(self) -> None:
        """Raise ExportFailed unless the service says that an object is missing.

        obstore takes any page with status 200 for an empty listing.
        """
        with suppress(ObjectMissing):
            await self._call(self._begin_get(_NOT_THERE), "Listing the top")
            raise self._failed("Listing the top", _NOT_S3)

    @cached_property
    def _store(self) -> "S3Store":
        from obstore.store import S3Store

        _let_threads_end()
        key, secret = self._keys
        credential: S3Credential = {
            "access_key_id": key,
            "secret_access_key": secret,
            "expires_at": None,
        }
        limit = timedelta(seconds=self._timeout_s)
        return S3Store(
            self._bucket,
            prefix=self._prefix or None,
            aws_endpoint_url_s3=self._address,
            region=self._region,
            virtual_hosted_style_request=self._is_virtual,
            credential_provider=lambda: credential,
            skip_signature=False,
            disable_bulk_delete=True,  # which some services lack
            client_options={
                "allow_http": self._address.startswith("http:"),
                "timeout": limit / 2,
                "connect_timeout": min(limit / 4, timedelta(seconds=5)),
                "user_agent": "seline",
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": limit},
        )

    async def _call(self, request: Awaitable[T], doing: str) -> T:
        from obstore.exceptions import AlreadyExistsError

        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except TimeoutError:
            cause = f"the service did not answer within {self._timeout_s:g} s"
            raise self._failed(doing, Cure(cause, _SLOW)) from None
        except AlreadyExistsError:
            raise self._failed(doing, _TAKEN, code=_EXISTS) from None
        except Exception as error:  # noqa: BLE001  # the border: its text holds what is secret
            text = str(error)
        code = code_of(text)
        if code == "NoSuchKey":
            raise ObjectMissing(self._said(doing, "there is no such object"))
        raise self._failed(doing, explained(text), code=code)

    def _failed(self, doing: str, cure: Cure, *, code: str = "") -> ExportFailed:
        kind = ObjectForbidden if cure == _NO_RIGHT else ExportFailed
        return kind(self._said(doing, cure.cause), hint=cure.hint, service_code=code)

    def _said(self, doing: str, cause: str) -> str:
        return f"{doing} in {self.where} failed: {cause}."


def build(configured: DestinationSettings) -> S3:
    """Return the store of an `s3://` destination. Raises SettingsError."""
    check_extra("obstore", "s3")
    options = dict(configured.options)
    path_style, allow_http = (_truth(configured.name, options, name) for name in _TRUTHS)
    if not {"access_key_id", "secret_access_key"} <= options.keys():
        raise SettingsError(
            f"The destination {configured.name} has no access key.",
            hint="Set its `access_key_id` and `secret_access_key`, or the variables "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    if not re.fullmatch(r"[\w.-]+", urlsplit(configured.url).netloc):
        raise SettingsError(
            f"The `url` of the destination {configured.name} names no bucket.",
            hint="Write `url` as s3://BUCKET or s3://BUCKET/PREFIX.",
        )
    endpoint = options.get("endpoint", "")
    if endpoint and not (is_web_address(endpoint) and "@" not in endpoint):
        raise SettingsError(
            f"The `endpoint` of the destination {configured.name} is no web address.",
            hint="Set `endpoint` to the address of the service, such as https://s3.example.org.",
        )
    if endpoint.startswith("http:") and not (allow_http or is_loopback(endpoint)):
        raise SettingsError(
            f"The `endpoint` of the destination {configured.name} is not encrypted.",
            hint="Use an `endpoint` with https://, or set `allow_http = true` on a network of "
            "your own.",
        )
    timeout_s = configured.timeout_s or TIMEOUT_S
    return S3(
        configured.name, configured.url, path_style=path_style, timeout_s=timeout_s, **options
    )


def _truth(name: str, options: dict[str, str], option: str) -> bool | None:
    """Remove an option that is true or false, and return it; None if it is not set."""
    text = options.pop(option, None)
    try:
        return None if text is None else truth(text)
    except ValueError:
        raise SettingsError(
            f"The `{option}` of the destination {name} is neither true nor false.",
            hint="Set it to true or false.",
        ) from None


def addressed(endpoint: str, bucket: str, path_style: bool | None) -> tuple[str, bool]:
    """Return the address of a bucket, and whether its host has the bucket's name.

    That is so unless `path_style` is set. By itself a path is used where such a host has no
    address or certificate: for an IP address, localhost, an endpoint with a path, and a bucket
    with a dot in its name.
    """
    scheme, host, path, *_ = urlsplit(endpoint)
    if path_style is None:
        path_style = is_loopback(endpoint) or bool(path.strip("/")) or "." in bucket
    path_style = path_style or _is_ip(endpoint)
    return (endpoint.rstrip("/"), False) if path_style else (f"{scheme}://{bucket}.{host}", True)


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint is on this machine by its name or address."""
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or (_is_ip(endpoint) and ip_address(host).is_loopback)


def _is_ip(endpoint: str) -> bool:
    try:
        ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


def code_of(text: str) -> str:
    """Return the error code that a service gave, such as NoSuchKey; empty if it gave none."""
    found = re.search(r"<Code>(\w{1,60})</Code>", text)
    return found[1] if found else ""


def explained(text: str) -> Cure:
    """Return the cause and the next step for the text of an error of obstore."""
    code = code_of(text)
    if code in _BY_CODE:
        return _BY_CODE[code]
    status = re.search(r"status code: (\d{3})", text)
    if "path segment" in text:
        return _NAMES
    if status is None:
        return next((cure for words, cure in _BY_WORDS.items() if words in text), _NOT_S3)
    if int(status[1]) in _BY_STATUS and not (code and status[1] == "403"):
        return _BY_STATUS[int(status[1])]
    said = f"{status[1]} ({code})" if code else status[1]
    return Cure(f"the service answered {said}", ExportFailed.hint)


@cache
def _let_threads_end() -> None:
    """Give obstore's threads time to let go of Python's objects before the interpreter ends.

    One that does so later aborts the process.
    """
    atexit.register(time.sleep, THREADS_END_S)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
