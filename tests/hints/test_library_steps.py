"""The next steps that a bot's author reads in a traceback: following them makes the call work."""

import asyncio
import errno
import importlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypedDict

import pytest

import seline as awaited
from seline import blocking, errors
from seline.blocking import Seline, open_seline
from seline.library import load
from seline.manager import transfer
from seline.server import alone, serving
from seline.storage.volume import batches, files, reopen, writer
from tests.faults.test_slow_disk import SyncGate
from tests.hints.following import Step

NAME: Final = "user_profile.json"
OTHER: Final = "other.json"
HALF_A_MINUTE_S: Final = 30
Follow = Callable[[str], Step]


@pytest.fixture
def seline(tmp_path: Path) -> Any:
    with open_seline(tmp_path / "data", lock_wait_s=0, storage__settle_s=0) as opened:
        opened.data.save_json(NAME, {"n": 1})
        yield opened


def hint_of(kind: type[errors.SelineError], act: Callable[[], object]) -> str:
    """Return the next step of the error that a call raises."""
    with pytest.raises(kind) as raised:
        act()
    assert raised.value.__notes__ == [f"Next: {raised.value.hint}"]
    return raised.value.hint


# names and values


@pytest.mark.prove
@pytest.mark.follows("error:invalid_document_name", "domain/document:_bot_document")
def test_a_name_of_the_named_characters_is_valid(seline: Seline, follow: Follow) -> None:
    refused = (errors.InvalidDocumentName, lambda: seline.data.save_json("my profile", {}))
    step = follow(hint_of(*refused))
    step.asks("letters, digits", "at most 100 characters", "ending in `.json`")
    *characters, ending = step.quoted
    stem = "Az09" + "".join(characters)

    seline.data.save_json(stem.ljust(100 - len(ending), "a") + ending, {})

    own = follow(
        hint_of(
            errors.InvalidDocumentName, lambda: seline.data.save_json("metadata.json", {"mine": 1})
        )
    )
    own.asks("Choose another name")
    seline.data.save_json("my_metadata.json", {"mine": 1})


@pytest.mark.follows("manager/changes:_with_item")
def test_an_item_is_appended_at_the_list_that_is_named(seline: Seline, follow: Follow) -> None:
    append = seline.data.append_item
    append(OTHER, "/items", {"n": 0})
    step = follow(hint_of(errors.PathNotFound, lambda: append(OTHER, "/items/0", {"n": 1})))
    step.asks("Name the list")

    [path] = step.quoted
    append(OTHER, path, {"n": 1})

    assert seline.data.load_json(OTHER) == {"items": [{"n": 0}, {"n": 1}]}


@pytest.mark.follows("error:not_an_object")
def test_a_list_is_changed_by_what_is_named(seline: Seline, follow: Follow) -> None:
    seline.data.save_json(OTHER, [1])
    step = follow(hint_of(errors.NotAnObject, lambda: seline.data.update_field(OTHER, "a", 1)))

    edit, save = (getattr(seline.data, name) for name in step.quoted)
    with edit(OTHER) as value:
        value.append(2)
    save(OTHER, [*seline.data.load_json(OTHER), 3])

    assert seline.data.load_json(OTHER) == [1, 2, 3]


class _Profile(TypedDict):
    n: int


@pytest.mark.follows("error:wrong_shape")
def test_a_document_of_another_shape_is_corrected(seline: Seline, follow: Follow) -> None:
    seline.data.save_json(NAME, {"n": "one"})
    step = follow(hint_of(errors.WrongShape, lambda: seline.data.load_json(NAME, type=_Profile)))
    step.asks("Load it without `type`", "correct the type or the document")

    value = seline.data.load_json(NAME)
    seline.data.save_json(NAME, {**value, "n": 1})

    assert seline.data.load_json(NAME, type=_Profile) == {"n": 1}


@pytest.mark.follows("domain/lesson:_refusal")
def test_lessons_that_are_none_are_restored(seline: Seline, follow: Follow) -> None:
    seline.lessons.add_lesson("a", "b", "c")
    seline.data.save_json("lessons_learned.json", {"lessons": "none"}, shrink=True)
    step = follow(hint_of(errors.NotAnObject, seline.lessons.get_lessons))
    step.asks("restore it from a backup", "Mend the document by hand")

    seline.data.restore("lessons_learned.json")

    assert len(seline.lessons.get_lessons()) == 1


@pytest.mark.follows("error:document_too_large")
def test_a_large_document_is_saved_in_parts_or_under_a_higher_limit(
    tmp_path: Path, follow: Follow
) -> None:
    value = {str(number): "x" * 100 for number in range(16)}
    with open_seline(tmp_path, storage__document_bytes_max=1024) as seline:
        refused = (errors.DocumentTooLarge, lambda: seline.data.save_json(NAME, value))
        step = follow(hint_of(*refused))
        step.asks("Split it into several documents", "raise")
        for key, part in value.items():
            seline.data.save_json(f"part-{key}.json", {key: part})
    [setting] = step.quoted

    higher: dict[str, Any] = {setting.replace(".", "__"): 4096}
    with open_seline(tmp_path, **higher) as seline:
        seline.data.save_json(NAME, value)


# locks


@pytest.mark.follows("error:nested_edit")
def test_the_value_of_the_block_is_changed(seline: Seline, follow: Follow) -> None:
    with seline.data.edit(NAME) as value:
        step = follow(hint_of(errors.NestedEdit, lambda: seline.data.save_json(NAME, {"n": 2})))
        step.asks("Change the value that the `edit` or `transaction` block gave you")
        value["n"] = 2

    assert seline.data.load_json(NAME) == {"n": 2}


@pytest.mark.follows("ports/futures:refuse_in_turn")
def test_what_a_function_needs_is_read_before_it(seline: Seline, follow: Follow) -> None:
    def nested(value: Any) -> Any:
        seline.data.save_json(OTHER, {})
        return value

    step = follow(hint_of(errors.NestedEdit, lambda: seline.data.update_json(NAME, nested)))
    step.asks("Read before `update_json` what its function needs")
    needed = seline.data.load_json(OTHER)
    seline.data.update_json(NAME, lambda value: {**value, "other": needed})
    for way in step.quoted[1:]:
        with getattr(seline.data, way)(NAME) as value:
            (value[NAME] if way == "transaction" else value)["n"] = way

    assert seline.data.load_json(NAME)["n"] == "transaction"


@pytest.mark.follows("error:document_busy")
def test_a_change_works_once_the_block_is_left(tmp_path: Path, follow: Follow) -> None:
    inside, leave = threading.Event(), threading.Event()
    with open_seline(tmp_path, storage__edit_wait_s=0.1) as seline:

        def hold() -> None:
            with seline.data.edit(NAME):
                inside.set()
                leave.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(30)
        try:
            step = follow(
                hint_of(errors.DocumentBusy, lambda: seline.data.save_json(NAME, {"n": 2}))
            )
        finally:
            leave.set()
            holder.join()
        step.asks("Keep `edit` and `transaction` blocks short; try again")
        seline.data.save_json(NAME, {"n": 2})


@pytest.mark.follows("manager/locks:_lost")
def test_a_block_that_lost_its_lock_works_again_when_it_is_short(
    tmp_path: Path, follow: Follow
) -> None:
    with open_seline(tmp_path, storage__edit_limit_s=1, storage__edit_wait_s=5) as seline:
        seline.data.save_json(NAME, {"n": 1})

        def too_long() -> None:
            with seline.data.edit(NAME) as value:
                saver = threading.Thread(target=seline.data.save_json, args=(NAME, {"n": 5}))
                saver.start()
                saver.join()  # after `edit_limit_s` it takes the lock
                value["n"] += 1

        follow(hint_of(errors.RevisionMismatch, too_long)).asks(
            "Read again and try again", "keep `edit` and `transaction` blocks short"
        )
        with seline.data.edit(NAME) as value:
            value["n"] += 1

        assert seline.data.load_json(NAME) == {"n": 6}


@pytest.mark.follows("manager/blocks:__getitem__")
def test_a_document_is_named_when_the_transaction_opens(seline: Seline, follow: Follow) -> None:
    def unnamed() -> None:
        with seline.data.transaction(OTHER) as change:
            change[NAME]["n"] = 2

    step = follow(hint_of(errors.DocumentNotFound, unnamed))
    [opened] = step.quoted
    step.asks("or assign a whole value")
    documents = {OTHER: "other.json"}
    name = opened.partition(", ")[2].strip("')")
    with seline.data.transaction(*documents, name) as change:
        change[name]["n"] = 2
    with seline.data.transaction(OTHER) as change:
        change[NAME] = {"n": 3}

    assert seline.data.load_json(NAME) == {"n": 3}


@pytest.mark.follows("error:revision_mismatch")
def test_a_change_is_applied_to_what_is_there_now(seline: Seline, follow: Follow) -> None:
    stale = seline.data.read(NAME)
    seline.data.save_json(NAME, {"n": 2})
    step = follow(
        hint_of(
            errors.RevisionMismatch,
            lambda: seline.data.save_json(NAME, {"n": 9}, if_match=stale.revision),
        )
    )
    step.asks("Read it again", "apply your change to what is there now", "with that revision")

    now = seline.data.read(NAME)
    seline.data.save_json(NAME, {**now.value, "mine": 1}, if_match=now.revision)

    assert seline.data.load_json(NAME) == {"n": 2, "mine": 1}


@pytest.mark.follows("manager/changes:reset")
def test_a_sound_document_is_deleted_or_restored(seline: Seline, follow: Follow) -> None:
    seline.data.save_json(NAME, {"n": 2})
    step = follow(hint_of(errors.InvalidRequest, lambda: seline.data.reset(NAME)))
    delete, restore = (getattr(seline.data, quoted) for quoted in step.quoted[-2:])

    restore(NAME)
    assert seline.data.load_json(NAME) == {"n": 1}
    delete(NAME)
    assert seline.data.load_json(NAME) == {}


# the store


@pytest.mark.follows("error:store_closed")
def test_a_closed_store_is_opened_again(tmp_path: Path, follow: Follow) -> None:
    with open_seline(tmp_path) as seline:
        pass
    step = follow(hint_of(errors.StoreClosed, lambda: seline.data.load_json(NAME)))
    step.asks("keep it open while your bot runs")

    with getattr(blocking, step.quoted[0])(tmp_path) as again:
        assert again.data.load_json(NAME) == {}


@pytest.mark.follows("storage/volume/lock:_refusal")
def test_the_open_instance_is_the_one_of_get_data_manager(seline: Seline, follow: Follow) -> None:
    data_dir = str(seline.health()["mount_path"])

    def open_twice() -> None:
        with open_seline(data_dir, lock_wait_s=0):
            pass

    follow(hint_of(errors.VolumeLocked, open_twice)).asks("Use get_data_manager()")

    assert blocking.get_data_manager().load_json(NAME) == {"n": 1}


@pytest.mark.follows("library:_refuse_beside_another")
@pytest.mark.parametrize("cure", ["order", "setting"])
def test_no_second_directory_is_opened_beside_the_one_of_get_data_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow, cure: str
) -> None:
    """A module's `data = get_data_manager()` would write to ./data, and the bot to ./bot."""
    monkeypatch.chdir(tmp_path)
    early = blocking.get_data_manager()
    early.load_json(NAME)
    with pytest.raises(errors.SettingsError) as refused:
        open_seline("bot")
    assert str(tmp_path / "data") in refused.value.message
    assert str(tmp_path / "bot") in refused.value.message
    assert not (tmp_path / "bot").exists()
    blocking.get_seline().close()
    first, variable = follow(refused.value.hint).quoted

    if cure == "setting":
        monkeypatch.setenv(*variable.split("=", 1))
        blocking.get_data_manager().save_json(NAME, {"n": 1})
        blocking.get_seline().close()
    with getattr(blocking, first)("bot") as opened:
        blocking.get_data_manager().update_field(NAME, "m", 2)
        assert opened.data.load_json(NAME)["m"] == 2


@pytest.mark.follows("library:get_seline")
def test_get_data_manager_chooses_none_of_two_open_directories(
    seline: Seline, tmp_path: Path, follow: Follow
) -> None:
    with open_seline(tmp_path / "other", lock_wait_s=0) as other:
        with pytest.raises(errors.SettingsError) as refused:
            blocking.get_data_manager()
        assert f"{tmp_path / 'data'} and {tmp_path / 'other'}" in refused.value.message
        assert follow(refused.value.hint).quoted == ["open_seline"]
        assert other.data.load_json(NAME) == {}

    assert blocking.get_data_manager().load_json(NAME) == {"n": 1}


@pytest.mark.follows("error:called_in_event_loop")
async def test_a_coroutine_uses_the_awaited_names(tmp_path: Path, follow: Follow) -> None:
    step = follow(hint_of(errors.CalledInEventLoop, lambda: open_seline(tmp_path).__enter__()))
    assert step.quoted == [awaited.__name__]

    async with awaited.open_seline(tmp_path) as opened:
        assert await opened.data.load_json(NAME) == {}


@pytest.mark.follows("domain/report:nothing_runs#2")
async def test_a_bot_that_serves_runs_jobs_and_sends_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    """Its other command, `seline serve`, is compared by the tests beside a server."""
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path))
    async with awaited.open_seline() as opened:
        fixes = await _fixes(opened)
    call, module, _, command = follow(fixes["jobs"]).quoted
    assert command == "seline serve"

    async with eval(call, vars(importlib.import_module(module))) as running:
        await running.acquired()
        assert "jobs" not in await _fixes(running.operations)


@pytest.mark.follows("domain/report:nothing_runs")
async def test_where_no_process_serves_one_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    """A command that opens the store itself must not speak of the bot's code: the bot is down."""
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path))
    settings = load()
    async with alone(settings) as command:
        step = follow((await _fixes(command.operations))["jobs"])
    step.asks("Start the bot")
    assert step.quoted == ["seline serve"]

    async with serving(settings, http=False) as bot:
        await bot.acquired()
        assert "jobs" not in await _fixes(bot.operations)


async def _fixes(opened: awaited.Seline) -> dict[str, str]:
    health: Any = await opened.health()
    return {check["name"]: check["fix"] for check in health["checks"]}


@pytest.mark.prove
@pytest.mark.follows("error:forked_store")
def test_a_child_opens_the_store_after_the_fork(tmp_path: Path, follow: Follow) -> None:
    def in_child(act: Callable[[], object]) -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, str(act()).encode())
            except errors.SelineError as error:
                os.write(writing, error.hint.encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answer:
            text = answer.read().decode()
        os.waitpid(child, 0)
        return text

    def open_in_child() -> object:
        with open_seline(tmp_path) as seline:
            return seline.data.load_json(NAME)

    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        step = follow(in_child(lambda: seline.data.load_json(NAME)))
    step.asks("Open the store in the child after the fork, never before it")

    assert in_child(open_in_child) == "{'n': 1}"


# the disk


def _defect(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.follows("error:volume_busy")
async def test_a_change_is_taken_once_the_queue_is_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    gate = SyncGate()
    gate.install(monkeypatch)
    async with awaited.open_seline(tmp_path) as opened:
        await opened.data.save_json(NAME, {"n": 0})
        monkeypatch.setattr(writer, "QUEUED_ATOMS_MAX", 1)
        gate.close()
        saves = [asyncio.ensure_future(opened.data.save_json(NAME, {"n": 1}))]
        await asyncio.to_thread(gate.blocked.wait, 10)
        saves.append(asyncio.ensure_future(opened.data.save_json(NAME, {"n": 2})))
        await asyncio.sleep(0)
        with pytest.raises(errors.VolumeBusy) as refused:
            await opened.data.save_json(NAME, {"n": 3})
        gate.open()
        await asyncio.gather(*saves)

        follow(refused.value.hint).asks("Try again in a moment")
        await opened.data.save_json(NAME, {"n": 3})


@pytest.mark.usefixtures("files_at_once")
@pytest.mark.follows("error:outcome_unknown", "storage/volume/commit/overlay:_unknown")
def test_after_an_unknown_outcome_a_read_shows_what_is_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    assert reopen.REOPEN_EVERY_S == HALF_A_MINUTE_S
    for module in (reopen, batches):
        monkeypatch.setattr(module, "REOPEN_EVERY_S", 0.2)
    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(files, "exchange", _defect)
            unknown = hint_of(errors.OutcomeUnknown, lambda: seline.data.save_json(NAME, {"n": 2}))
            waiting = hint_of(errors.VolumeFailed, lambda: seline.data.load_json(NAME))
        follow(unknown).asks("Read the document again: the next read shows which content is")
        follow(waiting).asks("Try again in half a minute")

        current = read_within(10, seline)
        assert json.loads((tmp_path / NAME).read_text()) == current


def read_within(limit_s: float, seline: Seline) -> Any:
    """Return the document as soon as it can be read."""
    ends_at = time.monotonic() + limit_s
    while True:
        try:
            return seline.data.load_json(NAME)
        except errors.VolumeFailed:
            assert time.monotonic() < ends_at
            time.sleep(0.05)


@pytest.mark.follows("storage/volume/batches:_half_purged")
def test_a_purge_that_erased_a_part_is_repeated(
    seline: Seline, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    seline.data.save_json(NAME, {"n": 2})
    with monkeypatch.context() as patch:
        patch.setattr(files, "unlink", failing_first(files.unlink))
        hint = hint_of(errors.OutcomeUnknown, lambda: seline.data.delete(NAME, purge=True))
    [command] = follow(hint).commands()
    assert command == f"seline delete {NAME} --purge"

    seline.data.delete(NAME, purge=True)

    assert not any(copy.document == NAME for copy in seline.all_backups())


def failing_first(remove: Callable[..., None]) -> Callable[..., None]:
    """Return `remove`, whose first removal of a backup fails."""
    failed: list[str] = []

    def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
        if name.startswith("user_profile_") and not failed:
            failed.append(name)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        remove(directory, name, missing_ok=missing_ok)

    return unlink


@pytest.mark.usefixtures("files_at_once")
@pytest.mark.follows("storage/volume/writer:_die")
def test_after_a_defect_of_the_writer_a_restart_shows_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(files, "exchange", die)
            step = follow(
                hint_of(errors.OutcomeUnknown, lambda: seline.data.save_json(NAME, {"n": 2}))
            )
    step.asks("Restart the process", "read the document again")

    with open_seline(tmp_path) as restarted:
        assert restarted.data.load_json(NAME) == {"n": 2}


@pytest.mark.follows("domain/document:check_space_name")
def test_a_space_of_another_name_is_valid(follow: Follow) -> None:
    from seline.domain.document import check_space_name

    follow(hint_of(errors.InvalidDocumentName, lambda: check_space_name("a b"))).asks(
        "Choose another name for the space"
    )
    check_space_name("a_b")


@pytest.mark.follows("manager/transfer:decide")
def test_an_import_is_made_while_nothing_else_creates_documents(
    seline: Seline, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    """Another thread creates a document after each plan of the import."""
    created: list[str] = []
    plan = transfer.plan_import

    def plan_and_create(*arguments: Any, **named: Any) -> Any:
        report = plan(*arguments, **named)
        created.append(f"new-{len(created)}.json")
        saving = threading.Thread(target=seline.data.save_json, args=(created[-1], {}))
        saving.start()
        saving.join()
        return report

    def replace_all() -> object:
        return seline.data.import_data({"files": {NAME: {"n": 2}}}, mode="replace")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "plan_import", plan_and_create)
        step = follow(hint_of(errors.DocumentBusy, replace_all))
    step.asks("Import again while nothing else creates documents")
    replace_all()

    assert [info.name for info in seline.data.documents()] == [NAME]
