"""The reference of the HTTP API: what its OpenAPI description says, as one page."""

import asyncio
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from aiohttp import web

from seline.domain.document import Content
from seline.http import PREFIX
from seline.http.reference import DESCRIPTION
from seline.page.examples import BACKUP, DOCUMENT, ITEM, OF_BODY, example_of
from seline.page.gate import came_by_tls
from seline.page.visit import PageRoute, View, Visit

_GROUP_OF: Final[Mapping[str, str]] = {
    "documents": "documents",
    "restore-backup": "backups",
    "prune": "backups",
    "export": "copies",
    "import": "copies",
    "destinations": "copies",
    "quarantine": "damage",
    "verify": "damage",
    "jobs": "jobs",
    "alerts": "alerts",
    "audit": "audit",
}
"""The group of a route, by the first part of its path; any other is of `state`."""
GROUPS: Final = ("state", *dict.fromkeys(_GROUP_OF.values()))
_OF_PATH: Final[Mapping[str, str]] = {
    "name": DOCUMENT,
    "backup": BACKUP,
    "item": ITEM,
    "job": "integrity",
    "destination": "bucket",
}


class ShownContent(NamedTuple):
    """A body: its media type, and an example; empty for bytes."""

    media: str
    example: str
    is_required: bool = False


class ShownAnswer(NamedTuple):
    """An answer of one status."""

    status: str
    phrase: str
    contents: Sequence[ShownContent]


class ShownRoute(NamedTuple):
    """A route as the page shows it. `errors` are statuses with their codes."""

    id: str
    group: str
    method: str
    path: str
    scope: str
    summary: str
    note: str
    parameters: Sequence[Mapping[str, Any]]
    bodies: Sequence[ShownContent]
    answers: Sequence[ShownAnswer]
    errors: Sequence[tuple[str, str]]
    curl: str

    @property
    def short(self) -> str:
        """The path without the prefix of the API."""
        return self.path.removeprefix(PREFIX)


async def show(visit: Visit) -> web.Response:
    """Show the reference. A thread reads the description, which takes long the first time."""
    scheme = "https" if came_by_tls(visit.request) else "http"
    describe = visit.request.config_dict[DESCRIPTION]
    address = f"{scheme}://{visit.request.host}"
    routes = await asyncio.to_thread(_cached, describe, address)
    groups = [(name, [route for route in routes if route.group == name]) for name in GROUPS]
    return visit.render("reference.html", groups=groups)


@functools.lru_cache(maxsize=8)
def _cached(describe: Callable[[], Content], address: str) -> Sequence[ShownRoute]:
    return list(shown_routes(msgspec.json.decode(describe().data), address))


def shown_routes(description: Mapping[str, Any], address: str) -> Iterator[ShownRoute]:
    """Yield the routes of an OpenAPI description; `address` is that of the server."""
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield _shown(description, address, method.upper(), path, operation)


def _shown(
    description: Mapping[str, Any],
    address: str,
    method: str,
    path: str,
    operation: Mapping[str, Any],
) -> ShownRoute:
    components, parameters = description["components"], operation["parameters"]
    body = operation.get("requestBody", {})
    given = OF_BODY.get(operation["operationId"])
    bodies = _contents(
        body.get("content", {}), components, given, is_required=body.get("required", False)
    )
    security = operation.get("security", [{"bearer": ["open"]}])
    scope = security[0]["bearer"][0]
    return ShownRoute(
        id=operation["operationId"],
        group=_GROUP_OF.get(path.removeprefix(PREFIX).split("/")[1], GROUPS[0]),
        method=method,
        path=path,
        scope=scope,
        summary=operation["summary"],
        note=operation.get("description", ""),
        parameters=parameters,
        bodies=bodies,
        answers=list(_answers(operation["responses"], components)),
        errors=list(_errors(operation["responses"], components)),
        curl=_curl(method, f"{address}{_filled(path)}", bodies, needs_token=scope != "open"),
    )


def _contents(
    content: Mapping[str, Any],
    components: Mapping[str, Any],
    given: Any = None,
    *,
    is_required: bool = False,
) -> list[ShownContent]:
    return [
        ShownContent(
            media, _example(media, about["schema"], components["schemas"], given), is_required
        )
        for media, about in content.items()
    ]


def _example(media: str, schema: Mapping[str, Any], schemas: Mapping[str, Any], given: Any) -> str:
    """Return the given example of JSON, else one of the schema; empty for other media types."""
    if not media.endswith("json"):
        return ""
    value = msgspec.json.encode(example_of(schema, schemas) if given is None else given)
    return msgspec.json.format(value, indent=2).decode()


def _answers(responses: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[ShownAnswer]:
    for status, response in sorted(responses.items()):
        if "$ref" not in response:
            contents = _contents(response.get("content", {}), components)
            yield ShownAnswer(status, response["description"], contents)


def _errors(
    responses: Mapping[str, Any], components: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield each status of a problem, and what the description says of its codes."""
    for status, response in sorted(responses.items()):
        if "$ref" in response:
            problem = components["responses"][response["$ref"].rpartition("/")[2]]
            yield status, problem["description"].partition(": ")[2]


def _filled(path: str) -> str:
    """Return a path with an example for each of its parameters."""
    for name, value in _OF_PATH.items():
        path = path.replace(f"{{{name}}}", quote(value))
    return path


def _curl(method: str, url: str, bodies: Sequence[ShownContent], *, needs_token: bool) -> str:
    """Return a command that calls a route; the first body is sent, if it needs one."""
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    if needs_token:
        words += ["-H", '"Authorization: Bearer $TOKEN"']
    if bodies and bodies[0].is_required:
        compact = msgspec.json.format(bodies[0].example.encode(), indent=-1).decode()
        words += ["-H", shlex.quote(f"Content-Type: {bodies[0].media}"), "-d", shlex.quote(compact)]
    return " ".join([*words, shlex.quote(url)])


REFERENCE: Final = View("reference", "", (PageRoute("GET", "/reference", show, takes_token=True),))
"""It is at the foot of every page, and not in the navigation."""
