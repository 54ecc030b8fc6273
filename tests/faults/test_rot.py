"""Rot: whatever a bad disk changes is found by the next read or verify, and never served (V4).

Faults are drawn by a seed: a kind of damage, a file, a place in it. What must be left is told from
what was saved and what was broken alone (`rot.Volume`): the bytes in a running process's memory,
else the newest backup that was not broken, else an error, and never anything else. A file without
its attribute, or with another document's, is no rot to Seline but a stranger's (SPEC §3): the
document is adopted as it lies there, the backup is used after every sound one. One whose attribute
says that a newer Seline wrote it is refused and left alone.
"""

from __future__ import annotations

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
import pytest

from seline import open_seline
from seline.access.tokens import Tokens
from seline.alerts.log import Alerts
from seline.blocking import Seline
from seline.domain import integrity
from seline.domain.document import Json
from seline.domain.integrity import Verdict
from seline.domain.job import read_records
from seline.domain.pins import read_pins
from seline.errors import (
    DocumentUnreadable,
    DocumentUnrecoverable,
    Unauthorized,
    UnsupportedFormat,
)
from seline.http.routes import PREFIX
from seline.library import Seline as AwaitedSeline
from seline.manager.state import remembered
from seline.operations.custody import Custody
from seline.ports.futures import run_without_loop
from seline.server import serving
from seline.storage.volume import capabilities, inspect
from seline.storage.volume.commit.preserve import Preserver
from seline.storage.volume.commit.replay import Replay
from seline.storage.volume.events import Events
from tests.faults.powercut.trying import fast_place, kind_of
from tests.faults.rot import (
    ALERTS,
    BYTES,
    CHANGED,
    GONE,
    JOBS,
    METADATA,
    PINS,
    RECORD,
    STATE,
    TOKENS,
    Belief,
    Crashed,
    Damage,
    Filled,
    Volume,
    crash,
    fill,
    lost,
    opened,
    refused,
    rot,
    some_faults,
)
from tests.integration.test_http import ADMIN, settings_for
from tests.proof.figures import note

LONG_AGO_NS: Final = inspect.LONG_AGO_NS
SUITE: Final = "rot"
SEED: Final = 20250106
FAULTS: Final = 1000
FAULTS_FEW: Final = 40
LIMIT_S: Final = 120.0


@pytest.fixture(autouse=True)
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that rots touches no time: what is found broken has lain there for long.

    And whatever else fills the fast directory's mount is none of this suite's.
    """
    monkeypatch.setattr(inspect, "LONG_AGO_NS", -1)
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a fast directory, and quiet: each fault is logged, as it must be."""
    logging.disable(logging.CRITICAL)
    with fast_place(tmp_path) as fast:
        yield fast
    logging.disable(logging.NOTSET)


# documents and their backups


@dataclass(frozen=True, kw_only=True)
class Way:
    """How faults are found: by a process that knew the documents before, or not.

    `just_now`: what shrank may still be an editor's first step, and is given time to settle.
    """

    name: str
    running: bool
    remembers: bool
    just_now: bool = False

    def __str__(self) -> str:
        return self.name


WAYS: Final = (
    Way(name="in a running process", running=True, remembers=True),
    Way(name="in a running process that remembers nothing", running=True, remembers=False),
    Way(name="after a restart", running=False, remembers=False),
    Way(name="in a running process, just now", running=True, remembers=True, just_now=True),
)


def try_documents(filled: Filled, directory: Path, chance: random.Random) -> tuple[int, list[str]]:
    """Break something of one document; return how many files, and which promises were broken."""
    volume, way = filled.volume, chance.choice(WAYS)
    volume.copy(directory)
    documents = volume.documents()
    damages: dict[str, Damage] = {}
    if not way.running:
        damages = some_faults(directory, volume, documents, chance)
    with (
        _young(way.just_now),
        opened(directory, storage__cache_bytes_max=(16 << 20) * way.remembers) as seline,
    ):
        if way.running:
            for name in documents:
                seline.data.load_json(name)
            damages = some_faults(directory, volume, documents, chance)
        found = Found(filled, damages, seline, remembered=way.remembers)
        broken = found.by_verify() if chance.random() < 0.5 else found.by_reading()
        broken += found.everything_is_served()
        broken += found.it_is_said()
        broken += found.broken_bytes_are_kept(directory)
    with opened(directory) as seline:
        again = Found(filled, damages, seline, remembered=way.remembers, mended=True)
        broken += again.everything_is_served() + again.by_verify() + again.everything_works()
    broken += _report_is_whole(directory)
    return len(damages), [f"{way}: {_told(damages)}: {one}" for one in broken]


@contextmanager
def _young(just_now: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if just_now:
            patch.setattr(inspect, "LONG_AGO_NS", LONG_AGO_NS)
        yield


def _told(damages: Mapping[str, Damage]) -> str:
    return " and ".join(map(str, damages.values()))


def _report_is_whole(directory: Path) -> list[str]:
    try:
        report = json.loads((directory / METADATA).read_bytes())
        return [] if report["schema_version"] == "1.0.0" else ["metadata.json is not made again"]
    except ValueError:
        return ["metadata.json is left broken"]


class Found:
    """What an open store makes of the damage, against what must come of it."""

    def __init__(
        self,
        filled: Filled,
        damages: Mapping[str, Damage],
        seline: Seline,
        *,
        remembered: bool,
        mended: bool = False,
    ) -> None:
        """`mended`: an earlier process has found everything already."""
        self._filled = filled
        self._damages = damages
        self._data = seline.data
        self._mended = mended
        self._remembered = remembered
        self._names = filled.volume.documents()
        self._left = {
            name: filled.volume.left_of(name, damages, remembered=remembered)
            for name in self._names
        }

    def by_reading(self) -> list[str]:
        """Every read is right, the first as the second."""
        return [*self.everything_is_served(), *self.everything_is_served()]

    def by_verify(self) -> list[str]:
        """Everything broken is a finding, and nothing else is."""
        report = self._data.verify()
        found = {(one.document, one.backup): one.outcome for one in report.findings}
        must = {
            key: outcome
            for path in self._damages
            for key, outcome in self._current_documents(path).items()
        }
        return [] if found == must else [f"verify found {found}, not {must}"]

    def _current_documents(self, path: str) -> dict[tuple[str, str | None], str]:
        belief, name = self._damages[path].belief, path
        if path.startswith("backups/"):
            backup = path.removeprefix("backups/")
            [name] = [
                one for one in (*self._names, GONE) if path in self._filled.volume.backups_of(one)
            ]
            return {(name, backup): "marked"} if belief is Belief.NOTHING else {}
        if belief is Belief.NOT_OURS_TO_SAY:
            return {(name, None): "unreadable"}
        if self._left[name] is None:
            return {(name, None): "unrecoverable"}
        if self._mended or belief is Belief.EVERYTHING:
            return {}
        return {(name, None): "recovered" if belief is Belief.NOTHING else "adopted"}

    def everything_is_served(self) -> list[str]:
        """Each document is exactly what must be left of it, or refused by name; exports too."""
        broken = [one for name in self._names for one in self._served(name)]
        export = self._data.export_all_data()
        refusals = {name for name in self._names if self._is_refused(name)}
        if set(export.get("unrecoverable", [])) != refusals:  # type: ignore[arg-type]
            broken.append(f"the export names {export.get('unrecoverable')}, not {refusals}")
        for name, value in export["files"].items():  # type: ignore[union-attr]
            if name in self._names and value != self._value(name):
                broken.append(f"the export holds another {name}")
        return broken

    def _served(self, name: str) -> list[str]:
        try:
            value = self._data.load_json(name, default={"there": "is none"})
        except DocumentUnreadable:
            return [] if refused(name, self._damages) else [f"{name} cannot be read"]
        except DocumentUnrecoverable:
            return [] if self._left[name] is None else [f"{name} is not recovered"]
        if value not in self._filled.ever[name]:
            return [f"{name} is served as {str(value)[:60]!r}, which was never saved"]
        if self._is_refused(name) or value != self._value(name):
            return [f"{name} is served as {str(value)[:60]!r}"]
        return []

    def _is_refused(self, name: str) -> bool:
        return self._left[name] is None or refused(name, self._damages)

    def _value(self, name: str) -> Json:
        left = self._left[name]
        return None if left is None else json.loads(left)  # type: ignore[no-any-return]

    def it_is_said(self) -> list[str]:
        """Health names each broken document, and says of each recovered one what is lost."""
        health = self._data.health()
        if health["status"] == "healthy" and self._all_lost():
            return ["health is healthy"]
        told = [f"{check['name']}: {check['detail']}" for check in health["checks"]]  # type: ignore[union-attr,index,call-overload]
        return [
            f"health does not say of {name}: {must}"
            for name in self._all_lost()
            for must in [self._must_say(name)]
            if not any(name in one and re.search(must, one) for one in told)
        ]

    def _must_say(self, name: str) -> str:
        if self._left[name] is None:
            return "^unrecoverable: .* nothing was overwritten|^documents: cannot be served"
        nothing = self._remembered and self._left[name] == self._filled.volume.files[name]
        return f"^recovered: .*{'nothing is lost' if nothing else 'lost: changes after'}"

    def _all_lost(self) -> list[str]:
        return [name for name in self._names if lost(name, self._damages)]

    def broken_bytes_are_kept(self, directory: Path) -> list[str]:
        """What was replaced lies in quarantine as it was; what was not, where it was (V4)."""
        aside = {(item.document, self._data.read_quarantine(item.name))
                 for item in self._data.quarantine()}  # fmt: skip
        broken = []
        for name in self._all_lost():
            data = self._damages[name].data
            if self._left[name] is None:
                kept = (directory / name).read_bytes() == data == self._data.raw(name)
            else:
                kept = (name, data) in aside
            broken += [] if kept else [f"the broken bytes of {name} are gone"]
        return broken

    def everything_works(self) -> list[str]:
        """What is whole takes the next change; what is not refuses it and stays (V4)."""
        broken = []
        for name in self._names:
            try:
                self._data.save_json(name, {"the": "next"}, shrink=True)
            except (DocumentUnrecoverable, DocumentUnreadable):
                broken += [] if self._is_refused(name) else [f"{name} takes no change"]
            else:
                newest = self._data.backups(name)[0]
                if self._is_refused(name):
                    broken.append(f"{name} was overwritten")
                elif self._data.read_backup(name, newest.name) != self._value(name):
                    broken.append(f"the newest backup of {name} is not what it was")
        return broken


# Seline's own state


def try_state(filled: Filled, directory: Path, chance: random.Random) -> tuple[int, list[str]]:
    """Break something of Seline's own, in a running process that goes on with it, or at rest."""
    volume, way = filled.volume, chance.choice(WAYS)
    volume.copy(directory)
    state = volume.documents(inside=STATE)
    damages: dict[str, Damage] = {}
    broken: list[str] = []
    made: list[str] = []
    if way.running:
        with opened(directory, storage__cache_bytes_max=(16 << 20) * way.remembers) as seline:
            run_without_loop(_tokens(seline).load())
            seline.data.verify()
            damages = some_faults(directory, volume, state, chance)
            made = _go_on(seline, damages, verify=chance.random() < 0.5)
    else:
        damages = some_faults(directory, volume, state, chance)
    left = {
        path: None
        if refused(path, damages)
        else volume.left_of(path, damages, remembered=way.remembers)
        for path in state
    }
    with opened(directory) as seline:
        broken += _only_who_may_comes_in(seline, filled, left[TOKENS], made)
        broken += _pins_hold_or_nothing_is_rotated(seline, left[PINS], damages)
        broken += _notes_are_right_or_begun_anew(seline, left)
        broken += _nothing_of_the_deleted_goes(seline, volume)
    return len(damages), [f"{way}: {_told(damages)}: {one}" for one in broken]


def _tokens(seline: Seline) -> Tokens:
    awaited = seline.data._awaited
    return Tokens(awaited, admin_token=None, clock=awaited.clock)


def _go_on(seline: Seline, damages: Mapping[str, Damage], *, verify: bool) -> list[str]:
    """Have everything mended, by a pass or by the next change; return the secret of a new token."""
    if verify:
        seline.data.verify()
        return []
    seline.data._awaited.keeping.load()
    for path in {*damages} - {PINS}:
        run_without_loop(remembered(seline.data._awaited, Path(path).name, None))
    try:
        return [run_without_loop(_tokens(seline).create()).secret]
    except (DocumentUnrecoverable, DocumentUnreadable):
        return []


def _only_who_may_comes_in(
    seline: Seline, filled: Filled, left: bytes | None, made: Sequence[str]
) -> list[str]:
    """Tokens let in whom the newest sound record names; a broken one lets in nobody."""
    tokens = _tokens(seline)
    run_without_loop(tokens.load())
    named = {one["digest"] for one in json.loads(left or b'{"tokens": []}')["tokens"]}
    may = {one for one in (*filled.secrets, *made) if _digest(one) in named} | {*made}
    come_in = {
        one for one in (*filled.secrets, *made, "sel_00000000_guess") if _admits(tokens, one)
    }
    return (
        [] if come_in == may else [f"{len(come_in - may)} too many, {len(may - come_in)} too few"]
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _admits(tokens: Tokens, secret: str) -> bool:
    try:
        tokens.admit(secret, client=secret, needs="read")
    except Unauthorized:
        return False
    return True


def _pins_hold_or_nothing_is_rotated(
    seline: Seline, left: bytes | None, damages: Mapping[str, Damage]
) -> list[str]:
    """Either the pins are those of the newest sound record, or every backup stays (V8)."""
    keeping = seline.data._awaited.keeping
    before = {backup.name for backup in seline.data.backups("profile.json")}
    for number in range(8):
        seline.data.save_json("profile.json", {"later": number}, shrink=True)
    after = {backup.name: backup for backup in seline.data.backups("profile.json")}
    checks = {check["name"]: check for check in seline.data.health()["checks"]}  # type: ignore[index,union-attr,call-overload]
    if left is None:
        said = checks["pins"]["status"] == "warning"
        stay = before <= set(after) and len(after) == len(before) + 8
        return [] if said and stay else [f"unreadable pins: said {said}, everything stays {stay}"]
    if set(keeping.pins()) != set(read_pins(json.loads(left))):
        return ["the pins are others"]
    lost_unsaid = lost(PINS, damages) and "pins.json" not in str(checks)
    return ["a pin may be lost, and nothing is said"] if lost_unsaid else []


def _notes_are_right_or_begun_anew(seline: Seline, left: Mapping[str, bytes | None]) -> list[str]:
    """The records of jobs and alerts are whole, or begun anew."""
    data = seline.data._awaited
    jobs = run_without_loop(remembered(data, "jobs.json", {}))
    alerts = Alerts(data, ())
    run_without_loop(alerts.load(deliver=False))
    custody = Custody(data, clock=data.clock)
    run_without_loop(custody.remember())
    run_without_loop(custody.measure())
    kept = json.loads(left[ALERTS] or b'{"alerts": []}')["alerts"]
    broken = []
    if read_records(jobs) != read_records(json.loads(left[JOBS] or b"{}")):
        broken.append("the jobs' records are others")
    if {one.id for one in alerts.listing()} != {one["alert"]["id"] for one in kept}:
        broken.append("the alerts are others")
    return broken


def _nothing_of_the_deleted_goes(seline: Seline, volume: Volume) -> list[str]:
    """What is known of the deleted may rot: their backups stay (V8)."""
    seline.data.prune()
    there = {f"backups/{backup.name}" for backup in seline.data.backups(GONE)}
    return [] if there == set(volume.backups_of(GONE)) else ["a deleted document's backups went"]


# what a crash in a transaction left


UNRECOVERABLE: Final = "unrecoverable"


def try_record(
    crashed: Sequence[Crashed], directory: Path, chance: random.Random
) -> tuple[int, list[str]]:
    """Break the record, or what was staged, or what it replaces; open what is left."""
    crash = chance.choice(crashed)
    crash.volume.copy(directory)
    staged = [path for path in crash.staged.values() if (directory / path).exists()]
    targets = chance.choice(
        (
            [RECORD],
            chance.sample(staged, chance.randint(1, 2)),
            [RECORD, chance.choice(staged)],
            [chance.choice([name for name in CHANGED if name in crash.volume.files])],
        )
    )
    damages = {path: rot(directory, path, _kind_for(path, chance), chance) for path in targets}
    with opened(directory) as seline:
        broken = [
            f"{name} is {value!r}"
            for name in CHANGED
            if (value := _loaded(seline, name)) != _must_be(crash, name, damages)
        ]
        told = any(check["name"] == "journal_broken" for check in seline.data.health()["checks"])  # type: ignore[index,union-attr,call-overload]
        if told != _cannot_be_completed(crash, damages):
            broken.append(f"that it cannot be completed is told: {told}")
        kept = {seline.data.read_quarantine(one.name) for one in seline.data.quarantine()}
        kept |= {path.read_bytes() for path in map(directory.joinpath, damages) if path.exists()}
        must = {RECORD, *CHANGED, *(() if RECORD in damages else _waiting(crash))}
        broken += [f"{one} is gone" for one in must & {*damages} if damages[one].data not in kept]
    broken += [f"stray: {path}" for path in (directory / STATE / "staging").iterdir()]
    where = f"{len(crash.published)} of {len(CHANGED)} in place"
    return len(damages), [f"{where}: {_told(damages)}: {one}" for one in broken]


def _kind_for(path: str, chance: random.Random) -> str:
    """White space behind the record is nothing to it."""
    without = {"a space behind the end", "truncated"} if path == RECORD else set()
    return chance.choice([kind for kind in BYTES if kind not in without])


def _loaded(seline: Seline, name: str) -> Json:
    try:
        return seline.data.load_json(name, default=None)
    except DocumentUnrecoverable:
        return UNRECOVERABLE


def _must_be(crash: Crashed, name: str, damages: Mapping[str, Damage]) -> Json:
    before, after = (_value_of(data) for data in (crash.before[name], crash.after[name]))
    if name in damages and name in crash.published:
        return UNRECOVERABLE if before is None else before
    if name in crash.published:
        return after
    if RECORD in damages or crash.staged[name] in damages:
        return before
    return before if _is_given_up(crash, damages) else after


def _value_of(data: bytes | None) -> Json:
    return None if data is None else json.loads(data)  # type: ignore[no-any-return]


def _is_given_up(crash: Crashed, damages: Mapping[str, Damage]) -> bool:
    """Whether none of it is made: something staged is broken, and nothing is in place yet."""
    return not crash.published and _cannot_be_completed(crash, damages)


def _cannot_be_completed(crash: Crashed, damages: Mapping[str, Damage]) -> bool:
    return RECORD in damages or not _waiting(crash).isdisjoint(damages)


def _waiting(crash: Crashed) -> set[str]:
    """Return what is staged and not in place; what lies there for the others came out for them."""
    return {path for name, path in crash.staged.items() if name not in crash.published}


# the rounds


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What rots, and how one round of it is tried: (what to copy, where to, chance)."""

    what: str
    one: Callable[[Any, Path, random.Random], tuple[int, list[str]]]
    prepare: Callable[[Filled, Path], Any]
    share: float


def _as_filled(filled: Filled, _place: Path) -> Filled:
    return filled


SUBJECTS: Final = (
    Subject(what="documents and backups", one=try_documents, prepare=_as_filled, share=0.6),
    Subject(
        what="tokens, pins, jobs, alerts and their backups",
        one=try_state,
        prepare=_as_filled,
        share=0.25,
    ),
    Subject(
        what="the record of a transaction and what it names",
        one=try_record,
        prepare=crash,
        share=0.15,
    ),
)
FAULTS_PER_VOLUME: Final = 50


def try_some(
    subject: Subject, place: Path, faults: int, *, seed: int, until_s: float = math.inf
) -> tuple[int, list[str]]:
    """Break so many files, on a volume made anew now and then; return how many, and what broke."""
    tried, broken = 0, list[str]()
    print(f"\n{subject.what}: seed {seed}")
    while tried < faults and time.monotonic() < until_s:
        chance = random.Random(f"{seed} {tried}")
        whole = place / f"{subject.what} {tried}"
        whole.mkdir()
        volume = subject.prepare(fill(whole / "whole", chance), whole)
        ends = min(faults, tried + FAULTS_PER_VOLUME)
        while tried < ends and time.monotonic() < until_s:
            count, found = subject.one(volume, whole / "broken", chance)
            shutil.rmtree(whole / "broken")
            tried, broken = tried + count, broken + found
        shutil.rmtree(whole)
    return tried, broken


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.what)
def test_what_rots_is_found_and_recovered_or_refused(subject: Subject, place: Path) -> None:
    tried, broken = try_some(subject, place, round(FAULTS_FEW * subject.share), seed=SEED)
    assert not broken, "\n".join(broken)
    assert tried


@pytest.mark.prove(share=3)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.what)
def test_of_a_thousand_faults_none_is_served(subject: Subject, place: Path, share_s: float) -> None:
    until_s = time.monotonic() + min(share_s, LIMIT_S)
    seed = random.SystemRandom().randrange(1 << 32)
    tried, broken = try_some(
        subject, place, round(FAULTS * subject.share), seed=seed, until_s=until_s
    )
    note(SUITE, subject.what, tried=tried, failures=len(broken), where=kind_of(place), seed=seed)
    assert not broken, "\n".join(broken)
    assert tried


# stores that are wrong on purpose


def _believes_what_it_reads(patch: pytest.MonkeyPatch) -> None:
    def credulous(*args: Any, **more: Any) -> inspect.Judged:
        judged = real(*args, **more)
        if judged.verdict is not Verdict.ALTERED:
            return judged
        return inspect.Judged(Verdict.SOUND, judged.content, judged.recorded)

    real = inspect.judge
    patch.setattr(inspect, "judge", credulous)


def _takes_any_backup(patch: pytest.MonkeyPatch) -> None:
    for module in (integrity, inspect):
        patch.setattr(module, "name_hash", lambda _key: bytes(16))


def _recovers_and_says_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Events, "repaired", lambda *_: False)


def _throws_broken_bytes_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Preserver, "_set_aside", lambda *_: None)


def _believes_what_was_staged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "_is_damaged", lambda *_: False)


CONTROLS: Final[Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], Subject]]] = {
    "rot is read as if it were sound": (_believes_what_it_reads, SUBJECTS[0]),
    "backups of any document will do": (_takes_any_backup, SUBJECTS[0]),
    "recoveries are not told": (_recovers_and_says_nothing, SUBJECTS[0]),
    "broken bytes are thrown away": (_throws_broken_bytes_away, SUBJECTS[0]),
    "a staged file that rotted is passed over": (_believes_what_was_staged, SUBJECTS[2]),
}


@pytest.mark.parametrize("wrong", CONTROLS)
def test_a_store_that_is_wrong_on_purpose_is_flagged(
    wrong: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, subject = CONTROLS[wrong]
    plant(monkeypatch)
    for seed in range(6):
        _, broken = try_some(subject, place, 12, seed=seed)
        if broken:
            return
    raise AssertionError("nothing was flagged")


@pytest.mark.prove
@pytest.mark.parametrize("wrong", CONTROLS)
def test_every_wrong_store_is_counted(
    wrong: str, place: Path, share_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, subject = CONTROLS[wrong]
    plant(monkeypatch)
    until_s = time.monotonic() + min(share_s, LIMIT_S / 10)
    tried, broken = try_some(subject, place, FAULTS_PER_VOLUME, seed=SEED, until_s=until_s)
    note("negative control", f"rot: {wrong}", tried=tried, failures=len(broken),
         where=kind_of(place))  # fmt: skip
    assert broken


# what no document depends on, and what nothing can be told of


ELSEWHERE: Final = (METADATA, f"{STATE}server.json", "quarantine")


@pytest.mark.parametrize("path", ELSEWHERE)
def test_rot_where_no_document_lies_touches_none(path: str, place: Path) -> None:
    filled = fill(place / "whole", random.Random(SEED))
    for number, kind in enumerate(BYTES):
        directory = place / str(number)
        filled.volume.copy(directory)
        [target] = [path] if path != "quarantine" else os.listdir(directory / path)
        target = target if path != "quarantine" else f"quarantine/{target}"
        rot(directory, target, kind, random.Random(number))
        with opened(directory) as seline:
            found = Found(filled, {}, seline, remembered=False, mended=True)
            assert not [*found.everything_is_served(), *found.by_verify()], kind
            seline.data.save_json("profile.json", {"the": "next"}, shrink=True)
        assert not _report_is_whole(directory), kind


def test_a_rotten_format_is_refused_and_nothing_is_touched(place: Path) -> None:
    """Whether it is rot or a newer Seline's cannot be told, so the volume is left as it is."""
    filled = fill(place / "whole", random.Random(SEED))
    for bit in range(8):
        directory = place / str(bit)
        filled.volume.copy(directory)
        rotten = bytes([b"1"[0] ^ 1 << bit]) + b"\n"
        (directory / STATE / "format").write_bytes(rotten)
        before = Volume.of(directory).files
        if rotten != b"0\n":
            with pytest.raises(UnsupportedFormat):
                opened(directory)
        assert Volume.of(directory).files == before
        (directory / STATE / "format").write_bytes(b"1\n")
        with opened(directory) as seline:
            assert not Found(filled, {}, seline, remembered=False).everything_is_served()


# Seline's own state, one thing at a time


def test_pins_that_cannot_be_read_stop_rotation(place: Path) -> None:
    """A directory in their place is no pins at all, and not none."""
    filled = fill(place / "whole", random.Random(SEED))
    directory = filled.volume.directory
    (directory / PINS).unlink()
    (directory / PINS).mkdir()
    with opened(directory) as seline:
        assert not _pins_hold_or_nothing_is_rotated(seline, None, {})


def test_verify_mends_what_memory_still_holds_before_a_restart_needs_it(place: Path) -> None:
    filled = fill(place / "whole", random.Random(SEED))
    directory = filled.volume.directory
    broken = [TOKENS, *filled.volume.backups_of(TOKENS), PINS, *filled.volume.backups_of(PINS)]
    with opened(directory) as seline:
        run_without_loop(_tokens(seline).load())
        for path in broken:
            rot(directory, path, "a flipped bit", random.Random(path))
        seline.data.verify()
        health = seline.data.health()
    with opened(directory) as seline:
        left = filled.volume.files
        assert not _only_who_may_comes_in(seline, filled, left[TOKENS], ())
        assert not _pins_hold_or_nothing_is_rotated(seline, left[PINS], {})
    assert "tokens.json" in str(health["checks"])


async def test_rotten_tokens_let_nobody_in_and_keep_no_document_back(place: Path) -> None:
    """The first token has no backup yet; one flipped bit must not keep a bot from its data."""
    async with open_seline(place, lock_wait_s=0) as seline:
        await seline.data.save_json("profile.json", {"n": 1})
        stolen = (await _tokens_of(seline).create()).secret
    rot(place, TOKENS, "a flipped bit", random.Random(SEED))
    async with serving(settings_for(place)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        for token, status in ((stolen, 401), (ADMIN, 200)):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(f"{running.address}{PREFIX}/health", headers=headers) as got:
                assert got.status == status
                health = await got.text()
        assert "tokens.json" in health
        assert await running.data.load_json("profile.json") == {"n": 1}
        assert running.tokens.admit(
            (await running.tokens.create()).secret, client="", needs="admin"
        )


def _tokens_of(seline: AwaitedSeline) -> Tokens:
    return Tokens(seline.data, admin_token=None, clock=seline.data.clock)
