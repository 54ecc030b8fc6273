"""Errors as RFC 9457 problems, from one table. An unexpected error is logged, and a 500."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from seline import errors
from seline.errors import SelineError
from seline.http import MERGE_PATCH
from seline.program import typed

PROBLEM_TYPE: Final = "application/problem+json"
CLIENT_GONE: Final = 499
"""The status in log and metrics of a client that has disconnected; it receives nothing."""
_log = logging.getLogger("seline.http")

STATUS_FOR: Final[Mapping[type[SelineError], int]] = {
    errors.DocumentNotFound: 404,
    errors.BackupNotFound: 404,
    errors.PathNotFound: 404,
    errors.TokenNotFound: 404,
    errors.JobNotFound: 404,
    errors.CopyNotFound: 404,
    errors.DestinationNotFound: 404,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.InvalidDocumentName: 422,
    errors.NotSerializable: 422,
    errors.ImportRefused: 422,
    errors.InvalidRequest: 422,
    errors.DocumentTooLarge: 413,
    errors.RequestTooLarge: 413,
    errors.UnsupportedCoding: 415,
    errors.UnsupportedMediaType: 415,
    errors.MalformedRequest: 400,
    errors.RequestTimedOut: 408,
    errors.ExpectationFailed: 417,
    errors.RevisionMismatch: 412,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.TooManyRequests: 429,
    errors.CopyNotEncrypted: 422,
    errors.ExportDamaged: 422,
    errors.ExportFailed: 503,
    errors.KeyMissing: 422,
    errors.VolumeFull: 507,
    errors.TooManyDocuments: 507,
    errors.DocumentUnrecoverable: 503,
    errors.DocumentUnreadable: 503,
    errors.DocumentBusy: 503,
    errors.VolumeBusy: 503,
    errors.VolumeLocked: 503,
    errors.VolumeNotMounted: 503,
    errors.RestoreUnfinished: 503,
    errors.RestorePending: 503,
    errors.VolumeReadOnly: 503,
    errors.VolumeFailed: 503,
    errors.OutcomeUnknown: 503,
    errors.StoreClosed: 503,
    errors.UnsupportedFormat: 503,
    errors.NestedEdit: 409,
    errors.NotAnObject: 409,
    errors.WrongShape: 409,
    errors.ForkedStore: 500,
    errors.CalledInEventLoop: 500,
    errors.SettingsError: 500,
}


def status_of(error: SelineError) -> int:
    """Return the HTTP status of an error."""
    for kind in type(error).__mro__:
        if kind in STATUS_FOR:
            return STATUS_FOR[kind]
    return 500


def problem(error: SelineError) -> web.Response:
    """Return an error as a problem document."""
    status = status_of(error)
    body = {
        "type": f"urn:seline:error:{error.code}",
        "title": (type(error).__doc__ or "").strip().splitlines()[0],
        "status": status,
        "detail": error.message,
        "code": error.code,
        "hint": typed(error.hint),
        **{name: value for name, value in error.details.items() if value is not None},
    }
    response = web.Response(status=status, body=_encoded(body), content_type=PROBLEM_TYPE)
    if isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="seline"'
    if isinstance(error, errors.UnsupportedCoding):
        response.headers["Accept-Encoding"] = "identity"  # what is accepted (RFC 9110, 15.5.16)
    if isinstance(error, errors.UnsupportedMediaType):
        response.headers["Accept-Patch"] = MERGE_PATCH
    if isinstance(error, errors.TooManyRequests):
        response.headers["Retry-After"] = str(error.details.get("retry_after_s", 60))
    return response


def unexpected() -> SelineError:
    """Return the error for what Seline did not foresee."""
    return SelineError(
        "Something went wrong inside Seline; it was logged.",
        hint="Look at the log line with this request's id.",
    )


def _encoded(body: Mapping[str, object]) -> bytes:
    """Encode a problem; a byte of a header that is not UTF-8 becomes a question mark."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body, ensure_ascii=False, default=str).encode("utf-8", "replace")


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every error as a problem."""
    try:
        return await handler(request)
    except SelineError as error:
        return problem(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem(errors.MethodNotAllowed(f"This address takes {allowed}."))
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return problem(errors.RouteNotFound(f"There is nothing at {request.path}."))
    except web.HTTPRequestEntityTooLarge:
        return problem(errors.RequestTooLarge())
    except web.RequestPayloadError:
        return problem(errors.MalformedRequest("The body is not framed as HTTP asks."))
    except Exception as error:  # noqa: BLE001  # the border of a request: no internals are answered
        if isinstance(error, ConnectionError) and request.transport is None:
            return web.Response(status=CLIENT_GONE)
        _log.exception("unexpected error answering %s %s", request.method, request.path[:200])
        return problem(unexpected())
