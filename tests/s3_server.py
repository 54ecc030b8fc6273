"""A small S3 service on loopback, in this process, that can be told to misbehave."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol, TypeAlias, TypeVar
from xml.sax.saxutils import escape

from aiohttp import web
from aiohttp.test_utils import TestServer

BUCKET, KEY_ID, SECRET = "copies", "the-access-key", "the-secret-key"
PAGE = 1000
Fault: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class S3Server:
    """Objects of one bucket, addressed by path, by host or by a proxy's absolute address.

    `fault` may answer a request instead; `requests` are the methods and paths, oldest first.
    `condition` is the header of an upload that replaces nothing.
    """

    condition = ("If-None-Match", "*")

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[web.Request] = []
        self.fault: Fault | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.fault is not None and (response := await self.fault(request)) is not None:
            return response
        if (refusal := self.refusal(request)) is not None:
            return refusal
        bucket, _, key = request.path.lstrip("/").partition("/")
        if request.host.startswith(f"{BUCKET}."):
            bucket, key = BUCKET, request.path.lstrip("/")
        if bucket != BUCKET:
            return refused(404, "NoSuchBucket")
        return await getattr(self, f"on_{request.method.lower()}")(request, key)

    def refusal(self, request: web.Request) -> web.Response | None:
        is_signed = f"Credential={KEY_ID}/" in request.headers.get("Authorization", "")
        return None if is_signed else refused(403, "InvalidAccessKeyId")

    async def on_put(self, request: web.Request, key: str) -> web.Response:
        body = await request.read()
        if request.headers.get(self.condition[0]) == self.condition[1] and key in self.objects:
            return refused(412, "PreconditionFailed")
        if "uploadId" in request.query:
            self.parts[request.query["uploadId"]][int(request.query["partNumber"])] = body
        else:
            self.objects[key] = body
        return web.Response(headers={"ETag": '"0"'})

    async def on_post(self, request: web.Request, key: str) -> web.Response:
        if "uploads" in request.query:
            self.parts[key] = {}
            return xml("InitiateMultipartUploadResult", f"<UploadId>{key}</UploadId>")
        parts = self.parts.pop(request.query["uploadId"])
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return xml("CompleteMultipartUploadResult", '<ETag>"0"</ETag>')

    async def on_delete(self, request: web.Request, key: str) -> web.Response:
        self.parts.pop(request.query.get("uploadId", ""), None)
        self.objects.pop(key, None)
        return web.Response(status=204)

    async def on_get(self, request: web.Request, key: str) -> web.Response:
        if key:
            if key not in self.objects:
                return refused(404, "NoSuchKey")
            headers = {"ETag": '"0"', "Last-Modified": "Mon, 06 Jan 2025 14:30:22 GMT"}
            return web.Response(body=self.objects[key], headers=headers)
        query = request.query
        return self.listing(query.get("prefix", ""), query.get("continuation-token", ""))

    def listing(self, prefix: str, after: str) -> web.Response:
        found: dict[str, str] = {}
        for key in sorted(self.objects):
            if key.startswith(prefix):
                name, slash, _ = key.removeprefix(prefix).partition("/")
                found[prefix + name + slash] = "CommonPrefixes" if slash else "Contents"
        page = list(islice((item for item in found.items() if item[0] > after), PAGE + 1))
        items = "".join(self.item(key, kind) for key, kind in page[:PAGE])
        if len(page) > PAGE:
            token = escape(page[PAGE - 1][0])
            items += f"<NextContinuationToken>{token}</NextContinuationToken>"
        truncated = str(len(page) > PAGE).lower()
        return xml("ListBucketResult", f"<IsTruncated>{truncated}</IsTruncated>{items}")

    def item(self, key: str, kind: str) -> str:
        if kind == "CommonPrefixes":
            return f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
        return (
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            "<LastModified>2025-01-06T14:30:22.000Z</LastModified></Contents>"
        )


def xml(name: str, content: str, status: int = 200) -> web.Response:
    """Return an answer of one XML element."""
    text = f"<{name}>{content}</{name}>"
    return web.Response(status=status, text=text, content_type="application/xml")


def refused(status: int, code: str) -> web.Response:
    """Return an error as S3 words it, which repeats the access key and the signature."""
    said = f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><StringToSign>AWS4-HMAC</StringToSign>"
    return xml("Error", f"<Code>{code}</Code>{said}", status)


@asynccontextmanager
async def s3_server() -> AsyncIterator[S3Server]:
    """Serve S3 on loopback; the address is in `url`."""
    async with serving(S3Server()) as server:
        yield server


class Answering(Protocol):
    """A service on loopback: it answers a request, and its address is in `url`."""

    url: str

    async def answer(self, request: web.Request) -> web.StreamResponse: ...


A = TypeVar("A", bound=Answering)


@asynccontextmanager
async def serving(server: A) -> AsyncIterator[A]:
    """Serve on loopback until the block ends."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(app, host="127.0.0.1") as running:
        server.url = str(running.make_url("")).rstrip("/")
        yield server
