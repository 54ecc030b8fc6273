"""The OpenAPI 3.1 description of the API, made of the table of routes and the types it names.

The body of an answer is what the handler's return annotation names. Errors are those that every
route of its scope, method and path can have; their codes are the table of problems. A control route
is not described, because no client over the network gets an answer there.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

import seline
from seline.errors import SelineError
from seline.http.parameters import HEADERS, PATHS, QUERIES
from seline.http.problems import PROBLEM_TYPE, STATUS_FOR
from seline.http.rendering import JsonAnswer, SuccessAnswer
from seline.http.routes import Route

Schema: TypeAlias = dict[str, Any]
JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_PROBLEM_REF: Final = "#/components/responses/Problem{}"
_UNNAMED: Final[Mapping[object, Schema]] = {
    Any: {},
    str: {"type": "string"},
    bytes: {"type": "string", "format": "binary"},
}
_DESCRIPTION: Final = (
    "JSON documents with backups. Errors are problems (RFC 9457); the statuses of each route name "
    "their codes. Unknown parameters and fields are refused."
)


def description(routes: Sequence[Route]) -> Schema:
    """Return the OpenAPI document of the routes that clients over the network can call."""
    shown = [route for route in routes if route.scope != "control"]
    components = _Components(shown)
    paths: dict[str, Schema] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Seline", "version": seline.__version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components.schemas | {"Problem": _problem_schema()},
            "responses": _problem_responses(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of scope `read` or `admin`; `admin` includes `read`.",
                }
            },
        },
    }


def statuses(route: Route) -> list[int]:
    """Return the statuses of the problems that a route can answer, sorted."""
    found = {400, 417}
    if route.scope != "open":
        found |= {401, 403, 413, 415, 422, 429, 500, 503}
    if "{" in route.path:
        found |= {404}
    if route.body:
        found |= {404, 408}  # what a body names may not exist
    if route.method != "GET":
        found |= {404, 409, 507}
    if route.is_conditional or route.has_revision:
        found |= {412}
    return sorted(found)


class _Components:
    """The schemas that routes share, and the body of each answer."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._answers = {route.handler: _answered(route) for route in routes}
        bodies = {kind for route in routes for kind in route.body.values() if kind not in _UNNAMED}
        answers = {kind for kinds in self._answers.values() for _, kind in kinds.values()}
        answers = {kind for kind in answers if kind not in _UNNAMED}
        _, taken = msgspec.json.schema_components(_by_name(bodies), ref_template=_REF)
        _, given = msgspec.json.schema_components(_by_name(answers), ref_template=_REF)
        for schema in given.values():
            _close(schema)
        self.schemas: dict[str, Schema] = given | taken

    def answer(self, route: Route) -> Schema:
        """Return the content of a route's answers, by media type."""
        return {
            media: {"schema": self._done(kind) if is_done else self.schema(kind)}
            for media, (is_done, kind) in self._answers[route.handler].items()
        }

    def schema(self, kind: object) -> Schema:
        """Return the schema of a type, named if it has one."""
        if kind in _UNNAMED:
            return _UNNAMED[kind]
        return {"$ref": _REF.format(name=getattr(kind, "__name__", ""))}

    def _done(self, kind: Any) -> Schema:
        fields = self.schemas[kind.__name__]
        return {
            **fields,
            "properties": {"success": {"type": "boolean", "const": True}, **fields["properties"]},
            "required": ["success", *fields["required"]],
        }


def _answered(route: Route) -> dict[str, tuple[bool, object]]:
    """Return the type of each media type of the answers, and whether `success` is added."""
    if route.media:
        return {media: (False, kind) for media, kind in route.media.items()}
    returned = get_type_hints(route.handler)["return"]
    origin = get_origin(returned)
    assert origin in (JsonAnswer, SuccessAnswer), route
    return {JSON: (origin is SuccessAnswer, get_args(returned)[0])}


def _by_name(kinds: Iterable[object]) -> list[Any]:
    return sorted(kinds, key=lambda kind: getattr(kind, "__name__", ""))


def _close(schema: Schema) -> None:
    """Say of an answer's object that it has every field that may not be left out, and no other."""
    if "description" in schema:
        schema["description"] = cleandoc(schema["description"])
    if "properties" in schema:
        schema["additionalProperties"] = False
        defaults = [name for name, field in schema["properties"].items() if "default" in field]
        schema["required"] = [*schema.get("required", ()), *defaults]
        for name in defaults:
            del schema["properties"][name]["default"]


def _operation(route: Route, components: _Components) -> Schema:
    text = (route.handler.__doc__ or "").strip().partition("\n")[0]
    operation: Schema = {
        "operationId": route.handler.__name__,
        "summary": text,
        "parameters": _parameters(route),
        "responses": _responses(route, components),
    }
    if route.no_undo:
        operation["description"] = f"It cannot be undone. {route.no_undo}"
    if route.body:
        operation["requestBody"] = {
            "required": route.needs_body,
            "content": {
                media: {"schema": components.schema(kind)} for media, kind in route.body.items()
            },
        }
    if route.scope != "open":
        operation["security"] = [{"bearer": [route.scope]}]
    return operation


def _parameters(route: Route) -> list[Schema]:
    named = [part.partition("}")[0] for part in route.path.split("{")[1:]]
    found = [{"name": name, "in": "path", "required": True, **PATHS[name]} for name in named]
    found += [{"name": name, "in": "query", **QUERIES[name]} for name in route.query]
    if route.is_conditional or route.has_revision:
        found += [_header(name) for name in HEADERS]
    elif route.is_polled:
        found += [_header("If-None-Match")]
    return found


def _header(name: str) -> Schema:
    return {"name": name, "in": "header", **HEADERS[name]}


def _responses(route: Route, components: _Components) -> Schema:
    found: Schema = {
        str(status): {"description": HTTPStatus(status).phrase, "content": components.answer(route)}
        for status in route.statuses
    }
    if route.has_revision:
        found["304"] = {"description": "The reader has this revision already."}
    if route.is_polled:
        found["304"] = {"description": "Nothing has changed; ages do not count."}
    refused = {str(status): {"$ref": _PROBLEM_REF.format(status)} for status in statuses(route)}
    return refused | found


def _problem_responses() -> Schema:
    """Return the response of each status of a problem; the description names its codes."""
    codes: dict[int, list[str]] = {}
    for kind, status in STATUS_FOR.items():
        codes.setdefault(status, []).append(kind.code)
    return {
        f"Problem{status}": {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(codes[status]))}",
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
        for status in sorted(codes)
    }


def _problem_schema() -> Schema:
    """Return the schema of a problem: what each has, and details that depend on its code."""
    texts = ("type", "title", "detail", "code", "hint")
    properties: Schema = {name: {"type": "string"} for name in texts}
    properties["code"] = {"enum": sorted(_codes(SelineError))}
    properties["status"] = {"type": "integer"}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _codes(kind: type[SelineError]) -> set[str]:
    return {kind.code}.union(*map(_codes, kind.__subclasses__()))
