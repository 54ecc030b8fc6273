"""Test the lines of the log as JSON."""

import json
import logging
import re

from seline.logs import JsonFormatter


def test_a_line_has_the_message_the_level_and_every_added_field() -> None:
    record = logging.getLogger("seline.http").makeRecord(
        "seline.http", logging.INFO, "x.py", 1, "%s Zoé", ("PUT",), None,
        extra={"route": "/x", "took_ms": 1.5, "kind": int},
    )  # fmt: skip
    line = json.loads(JsonFormatter().format(record))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "logger": "seline.http",
        "message": "PUT Zoé",
        "route": "/x",
        "took_ms": 1.5,
        "kind": "<class 'int'>",
    }


def test_a_line_of_an_error_has_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        failure = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"msg": "failed", "levelname": "ERROR", "exc_info": failure})
    line = json.loads(JsonFormatter().format(record))

    assert (line["level"], line["message"]) == ("error", "failed")
    assert line["exception"].endswith("ValueError: broken")
