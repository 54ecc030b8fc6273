"""V4: damage by a failing disk is found by the next read or verify, and is never served.

A seed draws a kind of damage, a file and a position. The expected result is computed from what was
saved and what was damaged (`rot.SavedVolume`): the bytes in the cache of a running process, else
the newest backup without damage, else an error. To Seline, a file without its attribute, or with
that of another document, is a foreign file: such a document is adopted as it is, and such a backup
is used after every sound one. A file whose attribute claims a newer format is refused and not
changed.
"""

import hashlib
import json
import logging
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from seline import open_seline
from seline.access.tokens import Tokens
from seline.alerts.log import AlertLog
from seline.blocking import Seline
from seline.domain import checksum, verdict
from seline.domain.document import Json
from seline.domain.job import JobRecord
from seline.domain.pins import Pin
from seline.domain.verdict import Verdict
from seline.errors import DocumentUnreadable, DocumentUnrecoverable, Unauthorized, UnsupportedFormat
from seline.http import PREFIX
from seline.library import Seline as AwaitedSeline
from seline.operations import Operations
from seline.ports.futures import run_without_loop
from seline.server import serving
from seline.storage.volume import capabilities, inspect
from seline.storage.volume.commit.preserve import Preserver
from seline.storage.volume.commit.replay import Replay
from seline.storage.volume.events import Events
from seline.storage.volume.journal import replaying
from tests.faults.forms import each_form_at_once, labelled
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.rot import (
    ALERTS,
    BYTE_DAMAGES,
    CHANGED,
    DELETED,
    JOBS,
    JOURNAL,
    JOURNALED,
    METADATA,
    PINS,
    RECORD,
    STATE,
    TOKENS,
    CrashedVolume,
    Damage,
    FilledVolume,
    JournaledVolume,
    SavedVolume,
    Trust,
    crash_in_transaction,
    draw_faults,
    fill_volume,
    is_lost,
    is_refused,
    kill_before_publishing,
    open_small,
    rot,
    rot_journal,
)
from tests.http_client import ADMIN, settings_for
from tests.proof.figures import note

pytestmark = each_form_at_once

SETTLED_AFTER_NS: Final = inspect.AT_REST_NS
SUITE: Final = "rot"
SEED: Final = 20250106
FAULTS: Final = 1000
FAULTS_FEW: Final = 40
LIMIT_S: Final = 60.0


@pytest.fixture(autouse=True)
def every_file_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every damaged file as settled, since a failing disk changes no time.

    Usage counts only Seline's own files, not the mount of the fast directory.
    """
    monkeypatch.setattr(inspect, "AT_REST_NS", -1)
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """Yield a fast directory, and disable logging, because Seline logs every fault."""
    logging.disable(logging.CRITICAL)
    with fast_place(tmp_path) as fast:
        yield fast
    logging.disable(logging.NOTSET)


# documents and their backups


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How damage is found: by a process that has the documents in its cache, or not.

    `recent`: a file that shrank may still be written by an editor, and must settle first.
    """

    name: str
    running: bool
    cached: bool
    recent: bool = False

    def __str__(self) -> str:
        return self.name


READERS: Final = (
    Reader(name="in a running process", running=True, cached=True),
    Reader(name="in a running process without a cache", running=True, cached=False),
    Reader(name="after a restart", running=False, cached=False),
    Reader(name="in a running process, just now", running=True, cached=True, recent=True),
)


def try_documents(
    filled: FilledVolume, directory: Path, rng: random.Random
) -> tuple[int, list[str]]:
    """Damage one document; return how many files were damaged, and what is broken."""
    volume, reader = filled.volume, rng.choice(READERS)
    volume.copy(directory)
    documents = volume.documents()
    damages: dict[str, Damage] = {}
    if not reader.running:
        damages = draw_faults(directory, volume, documents, rng)
    with (
        _recent_changes(reader.recent),
        open_small(directory, storage__cache_bytes_max=(16 << 20) * reader.cached) as seline,
    ):
        if reader.running:
            for name in documents:
                seline.data.load_json(name)
            damages = draw_faults(directory, volume, documents, rng)
        store = StoreCheck(filled, damages, seline, cached=reader.cached)
        broken = store.check_verify() if rng.random() < 0.5 else store.check_reads()
        broken += store.check_served()
        broken += store.check_health()
        broken += store.check_kept_bytes(directory)
    with open_small(directory) as seline:
        restarted = StoreCheck(filled, damages, seline, cached=reader.cached, repaired=True)
        broken += restarted.check_served() + restarted.check_verify() + restarted.check_next_saves()
    broken += _check_metadata(directory)
    return len(damages), [f"{reader}: {_text_of(damages)}: {failure}" for failure in broken]


@contextmanager
def _recent_changes(recent: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if recent:
            patch.setattr(inspect, "AT_REST_NS", SETTLED_AFTER_NS)
        yield


def _text_of(damages: Mapping[str, Damage]) -> str:
    return " and ".join(map(str, damages.values()))


def _check_metadata(directory: Path) -> list[str]:
    try:
        report = json.loads((directory / METADATA).read_bytes())
        return [] if report["schema_version"] == "1.0.0" else ["metadata.json was not rebuilt"]
    except ValueError:
        return ["metadata.json is still broken"]


class StoreCheck:
    """Checks an open store against the result that is expected after damage."""

    def __init__(
        self,
        filled: FilledVolume,
        damages: Mapping[str, Damage],
        seline: Seline,
        *,
        cached: bool,
        repaired: bool = False,
    ) -> None:
        """`repaired`: an earlier process has already found and repaired the damage."""
        self._filled = filled
        self._damages = damages
        self._data = seline.data
        self._seline = seline
        self._repaired = repaired
        self._cached = cached
        self._names = filled.volume.documents()
        self._expected = {
            name: filled.volume.expected_bytes(name, damages, cached=cached) for name in self._names
        }

    def check_reads(self) -> list[str]:
        """Check that every read returns the expected value, twice in a row."""
        return [*self.check_served(), *self.check_served()]

    def check_verify(self) -> list[str]:
        """Check that verify has the expected finding for each damaged file, and no other."""
        report = self._seline.verify()
        found = {(finding.document, finding.backup): finding.outcome for finding in report.findings}
        expected = {
            key: outcome
            for path in self._damages
            for key, outcome in self._expected_findings(path).items()
        }
        return [] if found == expected else [f"verify found {found}, not {expected}"]

    def _expected_findings(self, path: str) -> dict[tuple[str, str | None], str]:
        trust, name = self._damages[path].trust, path
        if path.startswith("backups/"):
            backup = path.removeprefix("backups/")
            [name] = [
                document
                for document in (*self._names, DELETED)
                if path in self._filled.volume.backups_of(document)
            ]
            return {(name, backup): "marked"} if trust is Trust.NONE else {}
        if trust is Trust.NEWER_FORMAT:
            return {(name, None): "unreadable"}
        if self._expected[name] is None:
            return {(name, None): "unrecoverable"}
        if self._repaired or trust is Trust.FULL:
            return {}
        return {(name, None): "recovered" if trust is Trust.NONE else "adopted"}

    def check_served(self) -> list[str]:
        """Check that each document is served or refused as expected, also in an export."""
        broken = [failure for name in self._names for failure in self._check_document(name)]
        export = self._data.export_all_data()
        refusals = {name for name in self._names if self._is_refused(name)}
        if set(export.get("unrecoverable", [])) != refusals:  # type: ignore[arg-type]
            broken.append(f"the export names {export.get('unrecoverable')}, not {refusals}")
        for name, value in export["files"].items():  # type: ignore[union-attr]
            if name in self._names and value != self._expected_value(name):
                broken.append(f"the export holds another {name}")
        return broken

    def _check_document(self, name: str) -> list[str]:
        try:
            value = self._data.load_json(name, default={"there": "is none"})
        except DocumentUnreadable:
            return [] if is_refused(name, self._damages) else [f"{name} cannot be read"]
        except DocumentUnrecoverable:
            return [] if self._expected[name] is None else [f"{name} is not recovered"]
        if value not in self._filled.saved_values[name]:
            return [f"{name} is served as {str(value)[:60]!r}, which was never saved"]
        if self._is_refused(name) or value != self._expected_value(name):
            return [f"{name} is served as {str(value)[:60]!r}"]
        return []

    def _is_refused(self, name: str) -> bool:
        return self._expected[name] is None or is_refused(name, self._damages)

    def _expected_value(self, name: str) -> Json:
        data = self._expected[name]
        return None if data is None else json.loads(data)  # type: ignore[no-any-return]

    def check_health(self) -> list[str]:
        """Check that health names each damaged document and what its recovery lost."""
        health = self._seline.health()
        if health["status"] == "healthy" and self._lost_documents():
            return ["health is healthy"]
        lines = [f"{check['name']}: {check['detail']}" for check in health["checks"]]  # type: ignore[union-attr,index,call-overload]
        return [
            f"health does not report of {name}: {pattern}"
            for name in self._lost_documents()
            for pattern in [self._expected_text(name)]
            if not any(name in line and re.search(pattern, line) for line in lines)
        ]

    def _expected_text(self, name: str) -> str:
        if self._expected[name] is None:
            return "^unrecoverable: .* is broken|^documents: cannot be served"
        unchanged = self._cached and self._expected[name] == self._filled.volume.files[name]
        return f"^recovered: .*{'nothing is lost' if unchanged else 'lost: changes after'}"

    def _lost_documents(self) -> list[str]:
        return [name for name in self._names if is_lost(name, self._damages)]

    def check_kept_bytes(self, directory: Path) -> list[str]:
        """Check that broken bytes are in quarantine, or in place if nothing replaced them (V4)."""
        quarantined = {(item.document, self._seline.read_quarantine(item.name))
                 for item in self._seline.quarantine()}  # fmt: skip
        broken = []
        for name in self._lost_documents():
            data = self._damages[name].data
            if self._expected[name] is None:
                kept = (directory / name).read_bytes() == data == self._seline.raw(name)
            else:
                kept = (name, data) in quarantined
            broken += [] if kept else [f"the broken bytes of {name} are lost"]
        return broken

    def check_next_saves(self) -> list[str]:
        """Check that the next save is accepted, unless the document is not served (V4)."""
        broken = []
        for name in self._names:
            try:
                self._data.save_json(name, {"the": "next"}, shrink=True)
            except (DocumentUnrecoverable, DocumentUnreadable):
                broken += [] if self._is_refused(name) else [f"{name} refuses the next save"]
            else:
                newest = self._data.backups(name)[0]
                if self._is_refused(name):
                    broken.append(f"{name} was overwritten")
                elif self._data.read_backup(name, newest.name) != self._expected_value(name):
                    broken.append(f"the newest backup of {name} is not the replaced content")
        return broken


# Seline's own state


def try_state(filled: FilledVolume, directory: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Damage Seline's own state, in a running process or before a start."""
    volume, reader = filled.volume, rng.choice(READERS)
    volume.copy(directory)
    state = volume.documents(inside=STATE)
    damages: dict[str, Damage] = {}
    broken: list[str] = []
    created: list[str] = []
    if reader.running:
        with open_small(directory, storage__cache_bytes_max=(16 << 20) * reader.cached) as seline:
            run_without_loop(_tokens(seline).load())
            seline.verify()
            damages = draw_faults(directory, volume, state, rng)
            created = _repair(seline, damages, verify=rng.random() < 0.5)
    else:
        damages = draw_faults(directory, volume, state, rng)
    expected = {
        path: None
        if is_refused(path, damages)
        else volume.expected_bytes(path, damages, cached=reader.cached)
        for path in state
    }
    with open_small(directory) as seline:
        broken += _check_tokens(seline, filled, expected[TOKENS], created)
        broken += _check_pins(seline, expected[PINS], damages)
        broken += _check_jobs_and_alerts(seline, expected)
        broken += _check_deleted(seline, volume)
    return len(damages), [f"{reader}: {_text_of(damages)}: {failure}" for failure in broken]


def _tokens(seline: Seline) -> Tokens:
    return Tokens(seline._awaited.store, admin_token=None)


def _repair(seline: Seline, damages: Mapping[str, Damage], *, verify: bool) -> list[str]:
    """Repair by verify or by the next change; return the token that the change created."""
    if verify:
        seline.verify()
        return []
    store = seline._awaited.store
    store.pins.load()
    for path in {*damages} - {PINS}:
        run_without_loop(store.state(Path(path).name, object, lambda: None).load())
    try:
        return [run_without_loop(_tokens(seline).create())[1]]
    except (DocumentUnrecoverable, DocumentUnreadable):
        return []


def _check_tokens(
    seline: Seline, filled: FilledVolume, expected: bytes | None, created: Sequence[str]
) -> list[str]:
    """Check that exactly the tokens in the newest sound record are admitted."""
    tokens = _tokens(seline)
    run_without_loop(tokens.load())
    named = {token["digest"] for token in json.loads(expected or b'{"tokens": []}')["tokens"]}
    allowed = {secret for secret in (*filled.secrets, *created) if _digest(secret) in named} | {
        *created
    }
    admitted = {
        secret
        for secret in (*filled.secrets, *created, "sel_00000000_guess")
        if _is_admitted(tokens, secret)
    }
    return (
        []
        if admitted == allowed
        else [f"wrongly admitted: {len(admitted - allowed)}, refused: {len(allowed - admitted)}"]
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_admitted(tokens: Tokens, secret: str) -> bool:
    try:
        tokens.authenticate(secret, client=secret, needs="read")
    except Unauthorized:
        return False
    return True


def _check_pins(seline: Seline, expected: bytes | None, damages: Mapping[str, Damage]) -> list[str]:
    """Check that the pins are those of the newest sound record, or every backup stays (V8)."""
    pins = seline._awaited.store.pins
    before = {backup.name for backup in seline.data.backups("profile.json")}
    for number in range(8):
        seline.data.save_json("profile.json", {"later": number}, shrink=True)
    after = {backup.name: backup for backup in seline.data.backups("profile.json")}
    checks = {check["name"]: check for check in seline.health()["checks"]}  # type: ignore[index,union-attr,call-overload]
    if expected is None:
        reported = checks["pins"]["status"] == "warning"
        kept = before <= set(after)
        if pins.failure is not None:
            kept = kept and len(after) == len(before) + 8
        return (
            []
            if reported and kept
            else [f"unreadable pins: reported {reported}, every backup kept {kept}"]
        )
    if set(pins.pins()) != set(msgspec.json.decode(expected, type=dict[str, list[Pin]])["pins"]):
        return ["the pins differ"]
    unreported = is_lost(PINS, damages) and "pins.json" not in str(checks)
    return ["a pin may be lost, and health does not report it"] if unreported else []


def _check_jobs_and_alerts(seline: Seline, expected: Mapping[str, bytes | None]) -> list[str]:
    """Check that the jobs and alerts are those of the newest sound record, or none."""
    store = seline._awaited.store
    jobs = run_without_loop(store.state("jobs.json", dict[str, JobRecord], dict).load())
    alerts = AlertLog(store, ())
    run_without_loop(alerts.load(deliver=False))
    operations = Operations(store)
    run_without_loop(operations.load())
    run_without_loop(operations.usage.measure())
    kept = json.loads(expected[ALERTS] or b'{"alerts": []}')["alerts"]
    broken = []
    if jobs != msgspec.json.decode(expected[JOBS] or b"{}", type=dict[str, JobRecord]):
        broken.append("the jobs' records differ")
    if {alert.id for alert in alerts.listing()} != {alert["alert"]["id"] for alert in kept}:
        broken.append("the alerts differ")
    return broken


def _check_deleted(seline: Seline, volume: SavedVolume) -> list[str]:
    """Check that the backups of deleted documents are kept (V8)."""
    seline.prune()
    kept = {f"backups/{backup.name}" for backup in seline.data.backups(DELETED)}
    return (
        []
        if kept == set(volume.backups_of(DELETED))
        else ["backups of a deleted document were removed"]
    )


# volumes after a crash in a transaction


UNRECOVERABLE: Final = "unrecoverable"


def try_record(
    volumes: Sequence[CrashedVolume], directory: Path, rng: random.Random
) -> tuple[int, list[str]]:
    """Damage the record, or staged files, or a document of the transaction; open the volume."""
    crashed = rng.choice(volumes)
    crashed.volume.copy(directory)
    staged = [path for path in crashed.staged.values() if (directory / path).exists()]
    targets = rng.choice(
        (
            [RECORD],
            rng.sample(staged, rng.randint(1, 2)),
            [RECORD, rng.choice(staged)],
            [rng.choice([name for name in CHANGED if name in crashed.volume.files])],
        )
    )
    damages = {path: rot(directory, path, _draw_kind(path, rng), rng) for path in targets}
    with open_small(directory) as seline:
        broken = [
            f"{name} is {value!r}"
            for name in CHANGED
            if (value := _load(seline, name)) != _expected_value_of(crashed, name, damages)
        ]
        reported = any(check["name"] == "journal_broken" for check in seline.health()["checks"])  # type: ignore[index,union-attr,call-overload]
        if reported != _is_incomplete(crashed, damages):
            broken.append(f"health reports an incomplete transaction: {reported}")
        kept = {seline.read_quarantine(item.name) for item in seline.quarantine()}
        kept |= {path.read_bytes() for path in map(directory.joinpath, damages) if path.exists()}
        required = {RECORD, *CHANGED, *(() if RECORD in damages else _unpublished(crashed))}
        broken += [
            f"{path} is gone" for path in required & {*damages} if damages[path].data not in kept
        ]
    broken += [f"stray: {path}" for path in (directory / STATE / "staging").iterdir()]
    where = f"{len(crashed.published)} of {len(CHANGED)} in place"
    return len(damages), [f"{where}: {_text_of(damages)}: {failure}" for failure in broken]


def _draw_kind(path: str, rng: random.Random) -> str:
    """Draw a kind of damage; white space after the record is not damage."""
    excluded = {"a space after the end", "truncated"} if path == RECORD else set()
    return rng.choice([kind for kind in BYTE_DAMAGES if kind not in excluded])


def _load(seline: Seline, name: str) -> Json:
    try:
        return seline.data.load_json(name, default=None)
    except DocumentUnrecoverable:
        return UNRECOVERABLE


def _expected_value_of(crashed: CrashedVolume, name: str, damages: Mapping[str, Damage]) -> Json:
    before, after = (_decoded(data) for data in (crashed.before[name], crashed.after[name]))
    if name in damages and name in crashed.published:
        return UNRECOVERABLE if before is None else before
    if name in crashed.published:
        return after
    if RECORD in damages or crashed.staged[name] in damages:
        return before
    return before if _is_rolled_back(crashed, damages) else after


def _decoded(data: bytes | None) -> Json:
    return None if data is None else json.loads(data)  # type: ignore[no-any-return]


def _is_rolled_back(crashed: CrashedVolume, damages: Mapping[str, Damage]) -> bool:
    """Return whether the transaction is rolled back: damaged, and no document published."""
    return not crashed.published and _is_incomplete(crashed, damages)


def _is_incomplete(crashed: CrashedVolume, damages: Mapping[str, Damage]) -> bool:
    return RECORD in damages or not _unpublished(crashed).isdisjoint(damages)


def _unpublished(crashed: CrashedVolume) -> set[str]:
    """Return the staged files that are not published; the others hold the displaced content."""
    return {path for name, path in crashed.staged.items() if name not in crashed.published}


# volumes after a kill, with contents that only the journal has


def try_journal(
    volume: JournaledVolume, directory: Path, rng: random.Random
) -> tuple[int, list[str]]:
    """Damage the journal; open the volume twice.

    Each document has an acknowledged value. It has an older one only if the damage is reported, or
    if it looks like a write that a power cut interrupted.
    """
    volume.copy(directory)
    targets = {volume.active} if rng.random() < 0.7 else rng.sample(JOURNAL, rng.randint(1, 2))
    damages = {path: rot_journal(directory, volume, path, rng) for path in targets}
    may_be_older = volume.looks_interrupted(directory)
    broken = list[str]()
    with open_small(directory) as seline:
        found = {name: _load(seline, name) for name in JOURNALED}
        reported = any(check["name"] == "journal_broken" for check in seline.health()["checks"])  # type: ignore[index,union-attr,call-overload]
        older = [name for name in JOURNALED if found[name] != volume.versions[name][-1]]
        if older and not (reported or may_be_older):
            broken.append(f"health does not report that {older} are older")
        broken += [
            f"{name} is served as {str(found[name])[:60]!r}, which was not acknowledged"
            for name in JOURNALED
            if found[name] not in volume.versions[name]
        ]
        broken += [f"verify finds {finding}" for finding in seline.verify().findings]
    with open_small(directory) as seline:
        again = {name: _load(seline, name) for name in JOURNALED}
        if again != found:
            broken.append(f"after another start {again} is served, not {found}")
        for name in JOURNALED:
            seline.data.save_json(name, {"the": "next"}, shrink=True)
    broken += [f"stray: {path}" for path in (directory / STATE / "staging").iterdir()]
    return len(damages), [f"{_text_of(damages)}: {failure}" for failure in broken]


# the rounds


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is damaged, and the function that runs one round in (volume, directory, rng)."""

    what: str
    run: Callable[[Any, Path, random.Random], tuple[int, list[str]]]
    prepare: Callable[[FilledVolume, Path], Any]
    share: float


def _unchanged(filled: FilledVolume, _place: Path) -> FilledVolume:
    return filled


SUBJECTS: Final = (
    Subject(what="documents and backups", run=try_documents, prepare=_unchanged, share=0.5),
    Subject(
        what="tokens, pins, jobs, alerts and their backups",
        run=try_state,
        prepare=_unchanged,
        share=0.2,
    ),
    Subject(
        what="the record of a transaction and what it names",
        run=try_record,
        prepare=crash_in_transaction,
        share=0.15,
    ),
    Subject(
        what="the journal, with contents that no file has",
        run=try_journal,
        prepare=kill_before_publishing,
        share=0.15,
    ),
)
FAULTS_PER_VOLUME: Final = 50


def run_faults(
    subject: Subject, workspace: Path, faults: int, *, seed: int, until_s: float = math.inf
) -> tuple[int, list[str]]:
    """Damage `faults` files, on a new volume for every fifty; return how many, and what broke."""
    tried, broken = 0, list[str]()
    print(f"\n{subject.what}: seed {seed}")
    while tried < faults and time.monotonic() < until_s:
        rng = random.Random(f"{seed} {tried}")
        directory = workspace / f"{subject.what} {tried}"
        directory.mkdir()
        volume = subject.prepare(fill_volume(directory / "whole", rng), directory)
        stop = min(faults, tried + FAULTS_PER_VOLUME)
        while tried < stop and time.monotonic() < until_s:
            count, failures = subject.run(volume, directory / "broken", rng)
            shutil.rmtree(directory / "broken")
            tried, broken = tried + count, broken + failures
        shutil.rmtree(directory)
    return tried, broken


@pytest.mark.one_in(3)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.what)
def test_damage_is_found_and_recovered_or_refused(subject: Subject, workspace: Path) -> None:
    tried, broken = run_faults(subject, workspace, round(FAULTS_FEW * subject.share), seed=SEED)
    assert not broken, "\n".join(broken)
    assert tried


@pytest.mark.prove(share=3)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.what)
def test_none_of_a_thousand_faults_is_served(
    form: str, subject: Subject, workspace: Path, share_s: float
) -> None:
    until_s = time.monotonic() + min(max(3.0, share_s), LIMIT_S)
    seed = random.SystemRandom().randrange(1 << 32)
    tried, broken = run_faults(
        subject, workspace, round(FAULTS * subject.share), seed=seed, until_s=until_s
    )
    note(
        SUITE,
        labelled(subject.what, form),
        tried=tried,
        failures=len(broken),
        where=kind_of(workspace),
        seed=seed,
    )
    assert not broken, "\n".join(broken)
    assert tried


# negative controls: stores that are wrong


def _serve_altered_bytes(patch: pytest.MonkeyPatch) -> None:
    def ignore_checksum(*args: Any, **options: Any) -> inspect.Judged:
        judged = real(*args, **options)
        if judged.verdict is not Verdict.ALTERED:
            return judged
        return inspect.Judged(Verdict.SOUND, judged.content, judged.recorded)

    real = inspect.judge
    patch.setattr(inspect, "judge", ignore_checksum)


def _accept_any_backup(patch: pytest.MonkeyPatch) -> None:
    for module in (checksum, verdict, inspect):
        patch.setattr(module, "name_hash", lambda _key: bytes(16))


def _report_no_recovery(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Events, "repaired", lambda *_, **__: False)


def _discard_broken_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Preserver, "keep_broken", lambda _self, staged, _now: staged)


def _report_no_damaged_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replaying, "damaged", lambda *_: [])
    patch.setattr(replaying.JournalReplay, "_report_lost", lambda *_: None)


def _trust_staged_files(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "_is_damaged", lambda *_: False)


CONTROLS: Final[Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], Subject]]] = {
    "altered bytes are served as sound": (_serve_altered_bytes, SUBJECTS[0]),
    "backups of other documents are used": (_accept_any_backup, SUBJECTS[0]),
    "recoveries are not reported": (_report_no_recovery, SUBJECTS[0]),
    "broken bytes are not kept": (_discard_broken_bytes, SUBJECTS[0]),
    "damaged staged files are rolled forward": (_trust_staged_files, SUBJECTS[2]),
    "a damaged journal is not reported": (_report_no_damaged_journal, SUBJECTS[3]),
}


@pytest.mark.prove
@pytest.mark.parametrize("control", CONTROLS)
def test_a_wrong_store_is_flagged(
    control: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_store, subject = CONTROLS[control]
    break_store(monkeypatch)
    for seed in range(6):
        _, broken = run_faults(subject, workspace, 12, seed=seed)
        if broken:
            return
    raise AssertionError("nothing was flagged")


@pytest.mark.prove
@pytest.mark.parametrize("control", CONTROLS)
def test_the_flagged_faults_of_a_wrong_store_are_counted(
    form: str, control: str, workspace: Path, share_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_store, subject = CONTROLS[control]
    break_store(monkeypatch)
    until_s = time.monotonic() + min(max(3.0, share_s), LIMIT_S / 10)
    tried, broken = run_faults(subject, workspace, FAULTS_PER_VOLUME, seed=SEED, until_s=until_s)
    note("negative control", labelled(f"rot: {control}", form), tried=tried, failures=len(broken),
         where=kind_of(workspace))  # fmt: skip
    assert broken


# files that no document depends on, and the format


NOT_DOCUMENTS: Final = (METADATA, f"{STATE}server.json", "quarantine")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("path", NOT_DOCUMENTS)
def test_damage_to_metadata_server_json_or_quarantine_affects_no_document(
    path: str, workspace: Path
) -> None:
    filled = fill_volume(workspace / "whole", random.Random(SEED))
    for number, kind in enumerate(BYTE_DAMAGES):
        directory = workspace / str(number)
        filled.volume.copy(directory)
        [target] = [path] if path != "quarantine" else os.listdir(directory / path)
        target = target if path != "quarantine" else f"quarantine/{target}"
        rot(directory, target, kind, random.Random(number))
        with open_small(directory) as seline:
            store = StoreCheck(filled, {}, seline, cached=False, repaired=True)
            assert not [*store.check_served(), *store.check_verify()], kind
            seline.data.save_json("profile.json", {"the": "next"}, shrink=True)
        assert not _check_metadata(directory), kind


def test_a_damaged_format_file_is_refused_or_written_again(workspace: Path) -> None:
    """Another number may be a newer format, so that volume stays as it is. A format is a number."""
    filled = fill_volume(workspace / "whole", random.Random(SEED))
    whole = (filled.volume.directory / STATE / "format").read_bytes()
    for bit in range(8):
        directory = workspace / str(bit)
        filled.volume.copy(directory)
        damaged = bytes([whole[0] ^ 1 << bit]) + b"\n"
        (directory / STATE / "format").write_bytes(damaged)
        before = SavedVolume.of(directory).files
        if damaged[:1].isdigit() and damaged != b"0\n":
            with pytest.raises(UnsupportedFormat):
                open_small(directory)
            assert SavedVolume.of(directory).files == before
            (directory / STATE / "format").write_bytes(whole)
        with open_small(directory) as seline:
            assert not StoreCheck(filled, {}, seline, cached=False).check_served()
        if damaged != b"0\n":
            assert (directory / STATE / "format").read_bytes() == whole


# single state files


def test_unreadable_pins_stop_rotation(workspace: Path) -> None:
    """A directory in place of pins.json counts as unreadable pins, not as no pins."""
    filled = fill_volume(workspace / "whole", random.Random(SEED))
    directory = filled.volume.directory
    (directory / PINS).unlink()
    (directory / PINS).mkdir()
    with open_small(directory) as seline:
        assert not _check_pins(seline, None, {})


def test_verify_repairs_state_files_from_memory_before_a_restart(workspace: Path) -> None:
    filled = fill_volume(workspace / "whole", random.Random(SEED))
    directory = filled.volume.directory
    broken = [TOKENS, *filled.volume.backups_of(TOKENS), PINS, *filled.volume.backups_of(PINS)]
    with open_small(directory) as seline:
        run_without_loop(_tokens(seline).load())
        for path in broken:
            rot(directory, path, "a flipped bit", random.Random(path))
        seline.verify()
        health = seline.health()
    with open_small(directory) as seline:
        saved = filled.volume.files
        assert not _check_tokens(seline, filled, saved[TOKENS], ())
        assert not _check_pins(seline, saved[PINS], {})
    assert "tokens.json" in str(health["checks"])


async def test_damaged_tokens_admit_no_caller_and_block_no_document(workspace: Path) -> None:
    """The first token has no backup; one flipped bit in it must not stop the bot from reading."""
    async with open_seline(workspace, lock_wait_s=0) as seline:
        await seline.data.save_json("profile.json", {"n": 1})
        _, secret = await _tokens_of(seline).create()
    rot(workspace, TOKENS, "a flipped bit", random.Random(SEED))
    async with serving(settings_for(workspace)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        for token, status in ((secret, 401), (ADMIN, 200)):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(
                f"{running.address}{PREFIX}/health", headers=headers
            ) as response:
                assert response.status == status
                health = await response.text()
        assert "tokens.json" in health
        assert await running.data.load_json("profile.json") == {"n": 1}
        _, another = await running.tokens.create()
        assert running.tokens.authenticate(another, client="", needs="admin")


def _tokens_of(seline: AwaitedSeline) -> Tokens:
    return Tokens(seline.store, admin_token=None)
