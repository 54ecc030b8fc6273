"""Azure Blob Storage on loopback, in this process: it checks the signature of each request."""

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from xml.sax.saxutils import escape

from aiohttp import web

from tests.s3_server import BUCKET, Fault, serving, xml

ACCOUNT, KEY = "seline", base64.b64encode(b"the key of the storage account..").decode()
SIGNED = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)
DELETED = "HTTP/1.1 202 Accepted\r\n\r\n"
ABSENT = "HTTP/1.1 404 The specified blob does not exist.\r\nx-ms-error-code: BlobNotFound\r\n\r\n"


class AzureServer:
    """Blobs of one container. `fault` may answer a request instead."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[web.Request] = []
        self.fault: Fault | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.fault is not None and (response := await self.fault(request)) is not None:
            return response
        if request.headers.get("Authorization") != f"SharedKey {ACCOUNT}:{signature(request)}":
            return refused(403, "AuthenticationFailed")
        container, _, key = request.path.lstrip("/").partition("/")
        if container != BUCKET:
            return refused(404, "ContainerNotFound")
        if request.query.get("comp") == "batch":
            return await self.batch(request)
        if request.query.get("comp") == "list":
            return self.listing(request.query.get("prefix", ""))
        return await (self.on_put if request.method == "PUT" else self.on_get)(request, key)

    async def on_put(self, request: web.Request, key: str) -> web.Response:
        body = await request.read()
        if request.headers.get("If-None-Match") == "*" and key in self.objects:
            return refused(409, "BlobAlreadyExists")
        self.objects[key] = body
        return web.Response(status=201, headers={"ETag": '"0"'})

    async def on_get(self, request: web.Request, key: str) -> web.Response:
        if key not in self.objects:
            return refused(404, "BlobNotFound")
        headers = {"ETag": '"0"', "Last-Modified": "Mon, 06 Jan 2025 14:30:22 GMT"}
        return web.Response(body=self.objects[key], headers=headers)

    async def batch(self, request: web.Request) -> web.Response:
        """Remove the blobs of a batch, each in a part of the request and of the answer."""
        parts = ""
        for number, key in re.findall(
            rf"Content-ID: (\d+).*?DELETE /{BUCKET}/(\S+)", await request.text(), re.DOTALL
        ):
            done = ABSENT if self.objects.pop(key, None) is None else DELETED
            head = f"Content-Type: application/http\r\nContent-ID: {number}\r\n"
            parts += f"--batch\r\n{head}\r\n{done}"
        return web.Response(
            status=202,
            body=f"{parts}--batch--\r\n".encode(),
            headers={"Content-Type": "multipart/mixed; boundary=batch"},
        )

    def listing(self, prefix: str) -> web.Response:
        return xml("EnumerationResults", f"<Blobs>{''.join(self.entries(prefix))}</Blobs>")

    def entries(self, prefix: str) -> Iterator[str]:
        folders: set[str] = set()
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            name, slash, _ = key.removeprefix(prefix).partition("/")
            if not slash:
                yield (
                    f"<Blob><Name>{escape(key)}</Name><Properties>"
                    "<Last-Modified>Mon, 06 Jan 2025 14:30:22 GMT</Last-Modified><Etag>0</Etag>"
                    f"<Content-Length>{len(self.objects[key])}</Content-Length>"
                    "<Content-Type>x</Content-Type></Properties></Blob>"
                )
            elif name not in folders:
                folders.add(name)
                yield f"<BlobPrefix><Name>{escape(prefix + name)}/</Name></BlobPrefix>"


def signature(request: web.Request) -> str:
    """Return the signature that a request must have, as Azure's "Shared Key" describes it."""
    headers = request.headers
    given = ["" if (text := headers.get(name, "")) == "0" else text for name in SIGNED]
    own = sorted((name.lower(), headers[name]) for name in headers if name.lower()[:5] == "x-ms-")
    query = sorted(request.query.items())
    lines = [request.method, *given, *(f"{name}:{text}" for name, text in own)]
    lines += [f"/{ACCOUNT}{request.rel_url.raw_path}", *(f"{name}:{text}" for name, text in query)]
    secret = base64.b64decode(KEY)
    made = hmac.new(secret, "\n".join(lines).encode(), hashlib.sha256).digest()
    return base64.b64encode(made).decode()


def refused(status: int, code: str) -> web.Response:
    """Return an error as Azure words it, which repeats what was signed."""
    detail = f"<AuthenticationErrorDetail>signed with {KEY}</AuthenticationErrorDetail>"
    return xml("Error", f"<Code>{code}</Code>{detail}", status)


@asynccontextmanager
async def azure_server() -> AsyncIterator[AzureServer]:
    """Serve on loopback; the address is in `url`."""
    async with serving(AzureServer()) as server:
        yield server
