"""What the buckets of all services have in common: requests by obstore, and causes of failures.

An object is whole or absent, and durable when `put` returns. Requests are made by obstore on its
own threads. A call ends within its time limit, with its retries. Error texts name a cause, never
what the service wrote: that can hold the credentials and the signature.

obstore also reads variables such as AWS_ENDPOINT_URL_S3 and AZURE_STORAGE_TOKEN. They would replace
an endpoint and credentials given to its usual arguments, so a kind of bucket uses those that take
precedence.
"""

import asyncio
import atexit
import re
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache, cached_property
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from seline.cures import Cure
from seline.errors import ExportFailed
from seline.outbound.destinations import failures
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed, ObjectForbidden, ObjectMissing

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

    Store = S3Store | GCSStore | AzureStore

TIMEOUT_S: Final = 60.0
SINGLE_BYTES_MAX: Final = 32 << 20
"""A larger object is sent in parts, which a cancelled call leaves in the bucket, not listed."""
_PART_BYTES: Final = 16 << 20
_PARTS_AT_ONCE: Final = 2
_RETRIES: Final = 5
THREADS_END_S: Final = 0.1
_EXISTS: Final = "PreconditionFailed"
_NO_CONDITIONS: Final = "NotImplemented"
"""The code of a service, such as B2, that has no conditional uploads."""
_NOT_THERE: Final = "seline-no-such-object"
T = TypeVar("T")

CLOCK: Final = Cure(
    "the clock of this machine differs from that of the service", "Set the clock of this machine."
)
FULL: Final = Cure("the bucket is full", "Free space at the service, or raise its quota.")
_TAKEN: Final = Cure("there is such an object", ExportFailed.hint)
_UNREACHABLE: Final = (
    "Check the network and the `endpoint` of this destination (or the variable that holds it)."
)
_SLOW: Final = (
    "Check the network and the `endpoint` of this destination. If the network is slow, raise its "
    "`timeout_s`."
)


class Service(NamedTuple):
    """What the answers of one kind of service mean.

    `missing`: the code of an object that does not exist. `foreign`: the cure of an answer that is
    not one of this service. `no_host`: of a host without an address.
    `taken`: the codes of an object that exists and was not to be replaced; obstore takes any
    conflict for that. `by_code` and `by_status` are of refusals; `by_words` of obstore's own texts.
    """

    missing: str
    no_right: Cure
    foreign: Cure
    no_host: Cure
    by_code: Mapping[str, Cure]
    by_status: Mapping[int, Cure]
    by_words: Mapping[str, Cure] = {}
    taken: Collection[str] = (_EXISTS, "ConditionalRequestConflict")


class Bucket:
    """A port `ObjectStore` in one bucket; a subclass opens it. Making one sends nothing."""

    service: ClassVar[Service]

    def __init__(self, name: str, url: str, *, address: str, timeout_s: float = TIMEOUT_S) -> None:
        """Use the bucket of `url` at `address`.

        Each call may take `timeout_s`, and each of its requests half of that.
        """
        parts = urlsplit(url)
        self._name = name
        self._scheme, self._bucket = parts.scheme, parts.netloc
        self._prefix = parts.path.strip("/")
        self._address = address
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        address = f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")
        return f"{address} at {urlsplit(self._address).netloc.removeprefix(f'{self._bucket}.')}"

    async def list(self, folder: str) -> Sequence[Listed]:
        from obstore import list_with_delimiter_async

        found = await self._call(
            lambda store: list_with_delimiter_async(store, folder or None),
            f"Listing {folder or 'the top'}",
        )
        items: list[tuple[str, int | None]] = [(path, None) for path in found["common_prefixes"]]
        items += [(item["path"], item["size"]) for item in found["objects"]]
        entries = [Listed(_last(path), size_bytes) for path, size_bytes in items if path != folder]
        if not entries:
            await self._check_service()
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
        async def content(store: "Store") -> bytes | None:
            answer = await _begin_get(store, key)
            is_small = answer.meta["size"] <= bytes_max
            return bytes(await answer.bytes_async()) if is_small else None

        data = await self._call(content, f"Reading {key}")
        if data is None:
            raise failures.too_large(self, key, bytes_max)
        return data

    async def remove(self, key: str) -> None:
        from obstore import delete_async

        with suppress(ObjectMissing):
            await self._call(lambda store: delete_async(store, key), f"Removing {key}")

    async def make(self) -> None:
        """Do nothing: a bucket is made by its owner, a folder by its first object."""

    async def on_data_disk(self, data_dir: str) -> bool:  # noqa: ARG002  # of the port
        return False

    async def close(self) -> None:
        """Do nothing: obstore closes its connections when they are not used."""

    # parts

    @abstractmethod
    def _open(self) -> "Store":
        """Return obstore's store of the bucket, with the prefix, the options and the retries."""

    @property
    def _options(self) -> "ClientConfig":
        limit = timedelta(seconds=self._timeout_s)
        return {
            "allow_http": self._address.startswith("http:"),
            "timeout": limit / 2,
            "connect_timeout": min(limit / 4, timedelta(seconds=5)),
            "user_agent": "seline",
        }

    @property
    def _retries(self) -> "RetryConfig":
        return {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=self._timeout_s)}

    @cached_property
    def _store(self) -> "Store":
        _let_threads_end()
        return self._open()

    async def _send(self, key: str, data: bytes, mode: Literal["overwrite", "create"]) -> None:
        from obstore import put_async

        is_large = len(data) > SINGLE_BYTES_MAX and mode == "overwrite"
        await self._call(
            lambda store: put_async(
                store,
                key,
                data,
                mode=mode,
                use_multipart=is_large,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            ),
            f"Writing {key}",
        )

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
            await self._call(lambda store: _begin_get(store, key), f"Reading {key}")
        except ObjectMissing:
            return False
        return True

    async def _check_service(self) -> None:
        """Raise ExportFailed unless the service says that an object is missing.

        obstore takes any page with status 200 for an empty listing.
        """
        if await self._exists(_NOT_THERE):
            raise self._failed("Listing the top", self.service.foreign)

    async def _call(self, request: "Callable[[Store], Awaitable[T]]", doing: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request(self._store)
        except TimeoutError:
            cause = f"the service did not answer within {self._timeout_s:g} s"
            raise self._failed(doing, Cure(cause, _SLOW)) from None
        except Exception as error:  # noqa: BLE001  # the border: its text holds what is secret
            text = str(error)
        code = self._code_of(text)
        if code in self.service.taken or "status code: 412" in text:
            raise self._failed(doing, _TAKEN, code=_EXISTS)
        if code == self.service.missing:
            raise ObjectMissing(self._said(doing, "there is no such object"))
        raise self._failed(doing, self._explained(text, code), code=code)

    def _code_of(self, text: str) -> str:
        """Return the error code that a service gave, such as NoSuchKey; empty if it gave none."""
        found = re.search(r"<Code>(\w{1,60})</Code>", text)
        return found[1] if found else ""

    def _explained(self, text: str, code: str) -> Cure:
        """Return the cause and the next step for the text of an error of obstore."""
        service = self.service
        if code in service.by_code:
            return service.by_code[code]
        status = re.search(r"status code: (\d{3})|\(code: (\d{3})\)", text)
        if "path segment" in text:
            return Cure(
                "it holds an object whose name cannot be listed, such as `a//b`",
                "Give this destination a prefix of its own in its `url`, such as "
                f"`{self._scheme}://BUCKET/seline`.",
            )
        if status is None:
            words = {**service.by_words, **_by_words(service.no_host)}
            return next((cure for part, cure in words.items() if part in text), service.foreign)
        number = status[1] or status[2]
        if int(number) in service.by_status and not (code and number == "403"):
            return service.by_status[int(number)]
        said = f"{number} ({code})" if code else number
        return Cure(f"the service answered {said}", ExportFailed.hint)

    def _failed(self, doing: str, cure: Cure, *, code: str = "") -> ExportFailed:
        kind = ObjectForbidden if cure == self.service.no_right else ExportFailed
        return kind(self._said(doing, cure.cause), hint=cure.hint, service_code=code)

    def _said(self, doing: str, cause: str) -> str:
        return f"{doing} in {self.where} failed: {cause}."


async def _begin_get(store: "Store", key: str) -> "GetResult":
    from obstore import get_async

    return await get_async(store, key)


def _by_words(no_host: Cure) -> Mapping[str, Cure]:
    """Return the causes by parts of obstore's text for a request without an answer, in order."""
    return {
        "kind: Timeout,": Cure("the service did not answer in time", _SLOW),
        "ConnectionRefused": Cure("the service refused the connection", _UNREACHABLE),
        "dns error": no_host,
        "InvalidCertificate": Cure("the certificate of the service is not trusted", no_host.hint),
        "kind: Connect,": Cure("the service cannot be reached", _UNREACHABLE),
        "error sending request": Cure("the connection was lost", no_host.hint),
    }


@cache
def _let_threads_end() -> None:
    """Give obstore's threads time to let go of Python's objects before the interpreter ends.

    One that does so later aborts the process.
    """
    atexit.register(time.sleep, THREADS_END_S)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
