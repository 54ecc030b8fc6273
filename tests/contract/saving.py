"""Changes that the contract tests make, and the values that they read."""

from collections.abc import Sequence
from typing import Any

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey, Revision
from seline.domain.json_codec import decode, encode
from seline.domain.retention import RetentionPlan, RetentionPolicy, plan_retention
from seline.manager import changes
from seline.ports.store import Atom, Change, DocumentStore, Retain


def content(value: object) -> Content:
    return Content.of(encode(value))


def retain(policy: RetentionPolicy) -> Retain:
    def plan(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
        return plan_retention(backups, policy)

    return plan


retain_five = retain(RetentionPolicy())


def drop_all(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return RetentionPlan((), tuple(backups))


def save(key: DocumentKey, value: object, **options: Any) -> Change:
    return Change(key, changes.save(content(value), **options), retain=retain_five)


def put(store: DocumentStore, key: DocumentKey, value: object, **options: Any) -> None:
    store.submit(Atom((save(key, value, **options),))).result(10)


def value_of(store: DocumentStore, key: DocumentKey) -> object:
    judged, _ = store.look(key)
    return None if judged.content is None else decode(judged.content.data)
