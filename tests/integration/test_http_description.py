"""Test the OpenAPI description: it has every route, resolves its references, and is made once."""

import json
import re

from seline.http.openapi import description, statuses
from seline.http.problems import STATUS_FOR
from seline.http.routes import ROUTES
from tests.http_client import Client


def test_the_description_has_every_route_that_a_client_can_call() -> None:
    described = description(ROUTES)

    found = {
        (method.upper(), path)
        for path, operations in described["paths"].items()
        for method in operations
    }
    assert found == {(route.method, route.path) for route in ROUTES if route.scope != "control"}


def test_every_reference_of_the_description_resolves() -> None:
    described = description(ROUTES)

    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(described)):
        place = described
        for part in reference.split("/"):
            place = place[part]


def test_an_operation_has_the_scope_the_parameters_and_the_statuses_of_its_route() -> None:
    described = description(ROUTES)

    for route in ROUTES:
        if route.scope == "control":
            continue
        operation = described["paths"][route.path][route.method.lower()]
        scopes = [] if route.scope == "open" else [{"bearer": [route.scope]}]
        names = [given["name"] for given in operation["parameters"] if given["in"] == "query"]
        assert operation.get("security", []) == scopes
        assert names == list(route.query)
        assert set(operation["responses"]) >= {str(status) for status in statuses(route)}
        assert set(statuses(route)) <= set(STATUS_FOR.values())


async def test_the_description_is_served_with_an_etag(client: Client) -> None:
    status, body, headers = await client.call("GET", "/openapi.json")
    again, _, _ = await client.call("GET", "/openapi.json", If_None_Match=headers["ETag"])

    assert (status, body["openapi"], again) == (200, "3.1.0", 304)
