"""A bucket as destination: `s3://bucket/prefix` at Amazon, Railway, R2, B2, MinIO and others."""

from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from seline.cures import Cure
from seline.errors import SettingsError
from seline.outbound.destinations.bucket import CLOCK, FULL, TIMEOUT_S, Bucket, Service
from seline.outbound.destinations.endpoint import check_address, is_ip, is_loopback, truth_of
from seline.outbound.extra import check_extra
from seline.settings.values import DestinationSettings

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

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
_REGION: Final = Cure(
    "the bucket is in another region",
    "Set `region` of this destination (or the variable REGION) to the bucket's, and `endpoint` (or "
    "ENDPOINT) to the address for it.",
)
_NOT_S3: Final = Cure(
    "the answer is not one of S3",
    "Set `endpoint`, or the variable ENDPOINT, to the address of the service's S3 API.",
)
_NO_HOST: Final = Cure(
    "the name of the service is not known",
    "Check the network and the `endpoint` of this destination. If the service has one address for "
    "all buckets, set `path_style = true`.",
)
SERVICE: Final = Service(
    missing="NoSuchKey",
    no_right=_NO_RIGHT,
    foreign=_NOT_S3,
    no_host=_NO_HOST,
    by_code={
        "InvalidAccessKeyId": Cure("the service does not know the access key", _WRONG_KEYS),
        "SignatureDoesNotMatch": Cure("the secret is not that of the access key", _WRONG_KEYS),
        "InvalidToken": Cure("the access key needs a session token", _WRONG_KEYS),
        "AccessDenied": _NO_RIGHT,
        "NoSuchBucket": _NO_BUCKET,
        "InvalidBucketName": _NO_BUCKET,
        "RequestTimeTooSkewed": CLOCK,
        "RequestExpired": CLOCK,
        "QuotaExceeded": FULL,
        "XMinioStorageFull": FULL,
        "EntityTooLarge": Cure("the object is larger than the service accepts", FULL.hint),
        "AuthorizationHeaderMalformed": _REGION,
        "PermanentRedirect": _REGION,
        "TemporaryRedirect": _REGION,
    },
    by_status={  # of answers with no code that is known; 403 only without any code
        301: _REGION,
        307: _REGION,
        401: Cure("the service does not accept the access key", _WRONG_KEYS),
        403: _NO_RIGHT,
        404: _NOT_S3,
        507: FULL,
    },
)


class S3(Bucket):
    """A bucket of a service with Amazon's interface."""

    service: ClassVar[Service] = SERVICE

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

        `path_style` is described in `addressed`.
        """
        address, self._is_virtual = addressed(
            endpoint or f"https://s3.{region}.amazonaws.com", urlsplit(url).netloc, path_style
        )
        super().__init__(name, url, address=address, timeout_s=timeout_s)
        self._keys = (access_key_id, secret_access_key)
        self._region = region

    def _open(self) -> "S3Store":
        from obstore.store import S3Store

        key, secret = self._keys
        credential: S3Credential = {
            "access_key_id": key,
            "secret_access_key": secret,
            "expires_at": None,
        }
        return S3Store(
            self._bucket,
            prefix=self._prefix or None,
            aws_endpoint_url_s3=self._address,
            region=self._region,
            virtual_hosted_style_request=self._is_virtual,
            credential_provider=lambda: credential,
            skip_signature=False,
            disable_bulk_delete=True,  # which some services lack
            client_options=self._options,
            retry_config=self._retries,
        )


def build(configured: DestinationSettings) -> S3:
    """Return the store of an `s3://` destination. Raises SettingsError."""
    check_extra("obstore", "s3")
    options = dict(configured.options)
    path_style = truth_of(configured.name, options, "path_style")
    check_address(configured, options)
    if not {"access_key_id", "secret_access_key"} <= options.keys():
        raise SettingsError(
            f"The destination {configured.name} has no access key.",
            hint="Set its `access_key_id` and `secret_access_key`, or the variables "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    timeout_s = configured.timeout_s or TIMEOUT_S
    return S3(
        configured.name, configured.url, path_style=path_style, timeout_s=timeout_s, **options
    )


def addressed(endpoint: str, bucket: str, path_style: bool | None) -> tuple[str, bool]:
    """Return the address of a bucket, and whether its host has the bucket's name.

    That is so unless `path_style` is set. By itself a path is used where such a host has no
    address or certificate: for an IP address, localhost, an endpoint with a path, and a bucket
    with a dot in its name.
    """
    scheme, host, path, *_ = urlsplit(endpoint)
    if path_style is None:
        path_style = is_loopback(endpoint) or bool(path.strip("/")) or "." in bucket
    path_style = path_style or is_ip(endpoint)
    return (endpoint.rstrip("/"), False) if path_style else (f"{scheme}://{bucket}.{host}", True)
