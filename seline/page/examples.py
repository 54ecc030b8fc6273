"""Example values for the schemas of the OpenAPI description."""

from collections.abc import Mapping
from typing import Any, Final

DOCUMENT: Final = "user_profile.json"
BACKUP: Final = "user_profile_20261128_100000.json"
ITEM: Final = f"{DOCUMENT}.20261128_100000.broken"
_INSTANT: Final = "2026-11-28T10:00:00Z"
_REVISION: Final = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
ANY: Final[Mapping[str, Any]] = {"userName": "Alex", "level": 3}
"""The value of a document."""
OF_BODY: Final[Mapping[str, Any]] = {"import_documents": {"files": {DOCUMENT: ANY}}}
"""Bodies whose schema takes any JSON, by the operation."""
_OF_NAME: Final[Mapping[str, Any]] = {
    "at": _INSTANT,
    "backup": BACKUP,
    "before": _INSTANT,
    "command": f"seline restore {DOCUMENT} {BACKUP}",
    "copy": "heads/000001.json",
    "destination": "bucket",
    "document": DOCUMENT,
    "filename": DOCUMENT,
    "identity": "AGE-SECRET-KEY-1…",
    "item": ITEM,
    "job": "integrity",
    "message": "Done.",
    "mount_path": "/data",
    "only": [DOCUMENT],
    "path": "/level",
    "revision": _REVISION,
    "sha256": _REVISION,
    "skip": [DOCUMENT],
    "until": _INSTANT,
    "url": "s3://my-bucket/seline",
    "volume": "1f0c9a44",
    "where": "s3://my-bucket/seline",
}
"""Examples of fields and parameters, if their type allows them."""
_NAME_OF: Final[Mapping[str, str]] = {
    "BackupFile": BACKUP,
    "BackupShown": BACKUP,
    "CheckShown": "writing",
    "CopyInfo": "heads/000001.json",
    "DestinationAccepted": "bucket",
    "DestinationShown": "bucket",
    "DestinationUsed": "bucket",
    "JobShown": "integrity",
    "LeftOut": "notes.txt",
    "QuarantineItem": ITEM,
    "ReadyCheck": "volume",
    "SinkStatus": "log",
}
"""The `name` of a type's example; that of any other is a document's."""


def example_of(
    schema: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], name: str = ""
) -> Any:
    """Return a value that a schema allows; `name` is the field or parameter it is for."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas, name)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "array":
        return [example_of(schema.get("items", {}), schemas, name)]
    if kind == "object":
        return _object(schema, schemas)
    return ANY if kind is None else _simple(kind, name)


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]]) -> Any:
    if "properties" in schema:
        fields = schema["properties"].items()
        found = {name: example_of(field, schemas, name) for name, field in fields}
        if "name" in found:
            found["name"] = _NAME_OF.get(schema.get("title", ""), DOCUMENT)
        return found
    values = schema.get("additionalProperties")
    return {DOCUMENT: example_of(values, schemas)} if isinstance(values, dict) else {}


def _simple(kind: str, name: str) -> Any:
    if kind == "string":
        found = _OF_NAME.get(name, _INSTANT if name.endswith("_at") else "…")
        return found if isinstance(found, str) else found[0]
    return {"integer": 1, "number": 1.5, "boolean": False, "null": None}[kind]
