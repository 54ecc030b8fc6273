"""Google Cloud Storage on loopback, in this process: its XML API is S3's with other credentials."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tests.s3_server import S3Server, refused, serving

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

EMAIL = "bot@project.iam.gserviceaccount.com"


@cache
def service_account(number: int = 0) -> str:
    """Return the text of a service account's key; that with another number is another key."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    names = {"type": "service_account", "client_email": EMAIL, "private_key_id": f"key-{number}"}
    return json.dumps({**names, "private_key": private.decode()}, indent=2)


class GcsServer(S3Server):
    """One bucket; a request must have a token that the key of `service_account()` has signed."""

    condition = ("x-goog-if-generation-match", "0")

    def refusal(self, request: web.Request) -> web.Response | None:
        from cryptography.exceptions import InvalidSignature

        try:
            claims = claims_of(request.headers.get("Authorization", "").removeprefix("Bearer "))
        except (ValueError, InvalidSignature):
            return refused(401, "AuthenticationRequired")
        may_write = str(claims["scope"]).endswith(("devstorage.full_control", "cloud-platform"))
        is_known = claims["iss"] == EMAIL and may_write
        return None if is_known else refused(403, "AccessDenied")

    async def on_delete(self, request: web.Request, key: str) -> web.Response:
        if key not in self.objects and "uploadId" not in request.query:
            return refused(404, "NoSuchKey")
        return await super().on_delete(request, key)


@cache
def claims_of(token: str) -> dict[str, object]:
    """Return what a signed token says. Raises InvalidSignature, or ValueError for no token."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    signed, _, signature = token.rpartition(".")
    known = public_key()
    known.verify(decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    claims: dict[str, object] = json.loads(decoded(signed.partition(".")[2]))
    return claims


@cache
def public_key() -> "rsa.RSAPublicKey":
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = json.loads(service_account())["private_key"].encode()
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private.public_key()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@asynccontextmanager
async def gcs_server() -> AsyncIterator[GcsServer]:
    """Serve on loopback; the address is in `url`."""
    async with serving(GcsServer()) as server:
        yield server
