"""Test Seline's own state: damage to a state document stops nothing else."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.access.tokens import Tokens
from seline.domain.document import Content
from seline.domain.job import JobRecord, RunOutcome
from seline.errors import Unauthorized, VolumeReadOnly
from seline.library import Seline
from seline.manager import ManagedStore, state
from seline.manager.state import State
from seline.ports.store import DocumentStore
from seline.server import serving
from tests.command_line import line_at
from tests.faults.test_damage import flip
from tests.http_client import settings_for

ROOT = Path(__file__).parents[2]

NAME = "user_profile.json"
STATE = ".seline"
WRITTEN: dict[str, Any] = {
    "integrity.json": {"last_full_at": "2026-11-27T03:39:52Z"},
    "unserved.json": {"documents": [NAME]},
    "usage.json": {"level": "warning", "points": [["2026-11-27T03:39:52Z", 1024]]},
    "exports.json": {"verified_at": "2026-11-27T03:39:52Z"},
    "purged.json": {"purged": [{"name": NAME, "at": "2026-11-27T03:39:52Z", "mirrors": ["n"]}]},
    "volume.json": {"id": "1a2b3c4d", "exports": 3},
    "deleted.json": {"deleted": {NAME: {"seen_at": "2026-11-27T03:39:52Z", "age_s": 3.5}}},
    "alerts.json": {
        "format": 1,
        "alerts": [
            {
                "subject": "", "told_at": "2026-11-27T03:39:52Z", "told_count": 1, "told_rank": 1,
                "worst": "warning",
                "alert": {
                    "id": "1", "type": "usage", "severity": "warning", "state": "open",
                    "document": None, "summary": "80%", "details": {}, "fix": "prune", "count": 1,
                    "first_at": "2026-11-27T03:39:52Z", "last_at": "2026-11-27T03:39:52Z",
                },
            }
        ],
        "waiting": {},
    },
    "tokens.json": {
        "tokens": [
            {
                "id": "0123abcd", "digest": "a" * 64, "scope": "read", "label": "",
                "created_at": "2026-11-27T03:39:52Z", "expires_at": None,
            }
        ]
    },
    "sessions.json": {
        "sessions": [
            {
                "id": "8ac1", "digest": "c" * 64, "binding": "d" * 64, "scope": "admin",
                "source": "one-time link", "created_at": "2026-11-27T03:39:52Z",
                "used_at": "2026-11-27T03:39:52Z",
            }
        ]
    },
    "pins.json": {
        "pins": [
            {
                "document": NAME, "revision": "b" * 64, "because": "by hand",
                "pinned_at": "2026-11-27T03:39:52Z", "until": None,
            }
        ]
    },
    "jobs.json": {
        "usage": {
            "last_success": "2026-11-27T03:39:52Z",
            "runs": [
                {
                    "id": "1", "started_at": "2026-11-27T03:39:52Z",
                    "ended_at": "2026-11-27T03:39:52Z", "outcome": "ok", "detail": "3.0% used",
                }
            ],
        }
    },
}  # fmt: skip
"""Every state document as the version before wrote it."""

DAMAGED = {
    "a wrong instant": lambda text: text.replace("T03:39:52Z", "T:3:39:52Z"),
    "an instant that is text": lambda text: text.replace("2026-11-27T03:39:52Z", "garbage"),
    "an instant beyond the year 9999": lambda text: text.replace(
        "2026-11-27T03:39:52Z", "9999-12-31T23:59:59-05:00"
    ),
    "another shape": lambda _text: '[{"what": "ever"}]',
    "no JSON": lambda text: text[:-5],
    "zeros": lambda text: "\0" * len(text),
}


def an_integrity(store: ManagedStore) -> State[datetime | None]:
    return store.state("integrity.json", datetime | None, lambda: None, field="last_full_at")


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / STATE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def check_in(health: dict[str, Any], name: str) -> dict[str, str]:
    return next(check for check in health["checks"] if check["name"] == name)


def each_in_some_way() -> list[Any]:
    """Return each document with each damage; the short tests have one damage of each document."""
    ways = sorted(DAMAGED)
    return [
        pytest.param(name, way, marks=[] if at % len(ways) == number else pytest.mark.prove)
        for at, name in enumerate(sorted(WRITTEN))
        for number, way in enumerate(ways)
    ]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """Give a volume with a document of three versions, closed."""
    async with open_seline(tmp_path / "data") as seline:
        for number in range(3):
            await seline.data.save_json(NAME, {"n": number})
    return tmp_path / "data"


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("name", "damage"), each_in_some_way())
def test_no_damage_of_a_state_document_ends_a_command(
    tmp_path: Path, name: str, damage: str
) -> None:
    line = line_at(tmp_path)
    assert line("save", NAME, stdin='{"n": 1}').code == 0
    text = json.dumps(WRITTEN[name], indent=2)
    damaged = DAMAGED[damage](text)
    write(tmp_path / "data", name, damaged)

    verbs = (
        ("status",),
        ("verify",),
        ("prune", "--yes"),
        ("jobs", "run", "usage"),
        ("export", "out/"),
    )
    for words in verbs:
        assert line(*words).code in (0, 3), line(*words).err

    assert line("load", NAME).value() == {"n": 1}
    kept = [path.read_text() for path in (tmp_path / "data" / "quarantine").iterdir()]
    if damaged != text:
        assert damaged in kept, "its bytes stay readable for a person"


def test_every_state_document_of_the_product_is_tried() -> None:
    product = [path for folder in ("seline", "workers") for path in (ROOT / folder).rglob("*.py")]
    opened = re.compile(r"""(?:\.state\(|State\(\s*managed,)\s*"([a-z]+\.json)\"""")
    found = {name for path in product for name in opened.findall(path.read_text(encoding="utf-8"))}

    assert found == set(WRITTEN)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("name", "damage"), each_in_some_way())
async def test_damage_of_a_state_document_is_set_aside_reported_and_reset(
    directory: Path, name: str, damage: str
) -> None:
    text = json.dumps(WRITTEN[name], indent=2)
    damaged = DAMAGED[damage](text)
    if damaged == text:
        return  # this document has no instant
    file = write(directory, name, damaged)

    async with serving(settings_for(directory)) as server:
        await server.acquired()
        await server.operations.usage.measure()
        await server.operations.prune()
        await server.operations.verify()
        health = await server.operations.health()

        assert name in check_in(health, "state_reset")["detail"]
        assert "seline quarantine" in check_in(health, "state_reset")["fix"]
        assert await server.data.load_json(NAME) == {"n": 2}
    assert damaged in [path.read_text() for path in (directory / "quarantine").iterdir()]
    assert file.read_text() != damaged


BAD_ENTRIES: dict[str, dict[str, Any]] = {
    "an expiry that is no instant": {"expires_at": "never"},
    "an expiry beyond the year 9999": {"expires_at": "9999-12-31T23:59:59-05:00"},
    "an instant without its second digit": {"created_at": "2026-11-27T3:39:52Z"},
    "no id": {"id": ...},
    "an id that is a number": {"id": 7},
    "an empty id": {"id": ""},
    "a digit that is not ASCII": {"digest": "\u0663" * 64},
    "a scope that does not exist": {"scope": "root"},
}


@pytest.mark.parametrize("flaw", sorted(BAD_ENTRIES))
async def test_a_broken_token_is_left_out_and_the_others_give_access(
    directory: Path, flaw: str
) -> None:
    entry = {**WRITTEN["tokens.json"]["tokens"][0], **BAD_ENTRIES[flaw]}
    broken = {key: value for key, value in entry.items() if value is not ...}
    secrets = ["first-secret", "last-secret"]
    sound = [{**WRITTEN["tokens.json"]["tokens"][0], "id": secret, "digest": digest(secret)}
             for secret in secrets]  # fmt: skip
    text = json.dumps({"tokens": [sound[0], broken, sound[1]]})
    file = write(directory, "tokens.json", text)

    for is_first in (True, False):
        async with serving(settings_for(directory)) as server:
            await server.acquired()
            for secret in secrets:
                named = server.tokens.authenticate(secret, client="a", needs="read")
                assert named == f"token {secret}"
            health = await server.operations.health()
            if is_first:
                detail = check_in(health, "state_reset")["detail"]
                assert "1 of 3 entries" in detail
                assert "entry 2: " in detail
            else:
                assert "state_reset" not in str(health)
    assert [token["id"] for token in json.loads(file.read_text())["tokens"]] == secrets
    assert text in [path.read_text() for path in (directory / "quarantine").iterdir()]


async def test_of_two_tokens_with_one_id_the_first_is_valid(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = WRITTEN["tokens.json"]["tokens"][0]
    both = [{**entry, "digest": digest(secret)} for secret in ("first", "second")]
    write(directory, "tokens.json", json.dumps({"tokens": both}))

    async with open_seline(directory) as seline:
        tokens = Tokens(seline.store, admin_token=None)
        await tokens.load()

        assert tokens.authenticate("first", client="a", needs="read") == "token 0123abcd"
        with pytest.raises(Unauthorized):
            tokens.authenticate("second", client="a", needs="read")
        assert len(await tokens.listed()) == 1
        assert "1 token in tokens.json repeats the id" in caplog.text
        await tokens.revoke("0123abcd")
        assert await tokens.listed() == ()


async def test_a_broken_token_of_a_volume_that_cannot_be_written_is_left_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {**WRITTEN["tokens.json"]["tokens"][0], "digest": digest("a-secret")}
    text = json.dumps({"tokens": [{**entry, "expires_at": "never"}, entry]})
    file = write(directory, "tokens.json", text)

    def refuse(*_: object) -> None:
        raise VolumeReadOnly

    async with open_seline(directory) as seline:
        monkeypatch.setattr(state, "_run", refuse)
        tokens = Tokens(seline.store, admin_token=None)
        await tokens.load()

        assert tokens.authenticate("a-secret", client="a", needs="read") == "token 0123abcd"
        with pytest.raises(Unauthorized):
            tokens.authenticate("another", client="a", needs="read")
    assert file.read_text() == text


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def test_a_state_document_of_the_version_before_is_read(directory: Path) -> None:
    for name, value in WRITTEN.items():
        write(directory, name, json.dumps(value))

    async with open_seline(directory) as seline:
        await seline.load()
        jobs = await seline.store.state("jobs.json", dict[str, JobRecord], dict).load()

        at = datetime(2026, 11, 27, 3, 39, 52, tzinfo=UTC)
        assert seline.verifier.last_full_at == at
        assert seline.verifier.unserved == {NAME}
        assert seline.exports.destinations.last_seen_at == at
        assert [pin.because for pin in seline.store.pins.pins()] == ["by hand"]
        assert jobs["usage"].last_success == at
        assert jobs["usage"].runs[0].outcome is RunOutcome.OK
        assert "state_reset" not in str((await seline.health())["checks"])


async def test_a_reset_is_reported_and_survives_a_restart(directory: Path) -> None:
    write(directory, "integrity.json", '{"last_full_at": "garbage"}')

    async with open_seline(directory) as seline:
        health = await seline.health()
    assert "integrity.json" in check_in(health, "state_reset")["detail"]
    assert check_in(health, "state_reset")["status"] == "warning"

    async with open_seline(directory) as seline:
        assert "state_reset" not in str((await seline.health())["checks"])


async def test_a_value_that_cannot_be_written_is_in_effect_and_reported(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_seline(directory) as seline:
        (directory / STATE / "integrity.json").mkdir()
        state = an_integrity(seline.store)
        await state.load()
        assert state.failure is not None

        value = datetime(2026, 1, 1, tzinfo=UTC)
        assert not await state.save(value)

        assert state.value == value
        checks = {check["name"] for check in (await seline.health())["checks"]}  # type: ignore[union-attr,index,call-overload]
        assert {"state_unreadable", "state_not_kept"} <= checks


async def test_concurrent_updates_lose_nothing(seline: Seline) -> None:
    state = seline.store.state("numbers.json", list[int], list)

    await asyncio.gather(*(state.update(_with(number)) for number in range(50)))

    assert sorted(await state.load()) == list(range(50))


async def test_a_value_that_was_replaced_does_not_come_back(seline: Seline) -> None:
    """A thread that read the value before an update puts it in effect after the update."""
    state = seline.store.state("numbers.json", list[int], list)
    await state.update(_with(1))
    read = state._content
    store = await seline.store.open()

    def slow(store: DocumentStore) -> Content | None:
        content = read(store)
        store.submit((state.change(_with(2)),)).result(10)
        return content

    state._content = slow  # type: ignore[method-assign]
    await asyncio.to_thread(state.read, store)

    assert state.value == [1, 2]


def _with(number: int) -> Callable[[list[int]], list[int]]:
    return lambda numbers: [*numbers, number]


# pins


async def test_lost_pins_keep_every_backup_and_rotation_goes_on(directory: Path) -> None:
    async with open_seline(directory) as seline:
        before = {backup.name for backup in await seline.data.backups(NAME)}
    write(directory, "pins.json", '{"pins": [{"document": "a.json"}]}')

    async with open_seline(directory) as seline:
        for number in range(20):
            await seline.data.save_json(NAME, {"later": number})
        after = {backup.name: backup for backup in await seline.data.backups(NAME)}
        health = await seline.health()

    assert before <= set(after), "one of them may have been pinned"
    assert len(after) < len(before) + 20, "newer backups are rotated"
    assert "2 older backups stay pinned" in check_in(health, "pins")["detail"]


async def test_no_backup_makes_room_while_lost_pins_are_replaced(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"storage__volume_limit_mb": 8, "backups__keep_newest": 50}
    async with open_seline(tmp_path, **settings) as seline:
        for number in range(33):
            await seline.data.save_json(NAME, {"n": number, "text": os.urandom(100_000).hex()})
        before = {backup.name for backup in await seline.data.backups(NAME)}
        await seline.data.pin(NAME, min(before))
    for backup in (tmp_path / STATE / "backups").glob("pins_*"):
        backup.unlink()
    write(tmp_path, "pins.json", "\0" * 100)
    (tmp_path / "filler.bin").write_bytes(bytes(900_000))

    async with open_seline(tmp_path, **settings) as seline:
        assert before == {backup.name for backup in await seline.data.backups(NAME)}


async def test_backups_kept_after_lost_pins_can_be_released(directory: Path) -> None:
    write(directory, "pins.json", "{}")

    async with open_seline(directory) as seline:
        for backup in await seline.data.backups(NAME):
            await seline.data.unpin(NAME, backup.name)
        assert check_in(await seline.health(), "pins")["status"] == "ok"

    async with open_seline(directory) as seline:
        assert seline.store.pins.pins() == ()


async def test_removed_pins_are_no_lost_pins(directory: Path) -> None:
    async with open_seline(directory) as seline:
        [newest, *_] = await seline.data.backups(NAME)
        await seline.data.pin(NAME, newest.name)
    (directory / STATE / "pins.json").unlink()

    async with open_seline(directory) as seline:
        assert seline.store.pins.pins() == ()


async def test_rotten_pins_with_a_sound_backup_are_recovered(directory: Path) -> None:
    async with open_seline(directory) as seline:
        backups = await seline.data.backups(NAME)
        for backup in backups:
            await seline.data.pin(NAME, backup.name)
    flip(directory / STATE / "pins.json", 100)

    async with open_seline(directory) as seline:
        assert [pin.because for pin in seline.store.pins.pins()] == ["by hand"]
