"""The core of the chat: buttons that expire, errors, alerts, and what is loaded."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from msgspec.structs import replace

from seline import open_seline
from seline.access import audit
from seline.chat import core as core_module
from seline.chat.buttons import LASTING_FOR, SETS_MAX, VALID_FOR, SentButtons
from seline.chat.core import ACTS, VIEWS, ChatCore, wording
from seline.chat.messages import LIMITS, ChatAction, ChatReply, ChatRequest, fitted, label
from seline.clock import Clock
from seline.domain.texts import LANGUAGES, fields_of, load_tables
from seline.errors import VolumeBusy
from seline.library import Seline
from seline.ports.alerts import CHATS
from seline.server import serving
from tests.chat.screen import ALERT
from tests.clocks import FakeClock
from tests.docs.blocks import ROOT, run_python
from tests.http_client import settings_for

NAME = "a.json"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sent(word: str = "", **values: Any) -> ChatRequest:
    """Return a command of the owner."""
    known: dict[str, Any] = {"service": "telegram", "user": "7", "chat": "7", "is_private": True}
    return ChatRequest(**{**known, "word": word, **values})


def buttons_of(reply: ChatReply) -> dict[str, str]:
    return {button.label: button.data for row in reply.rows for button in row}


async def answered(core: ChatCore, request: ChatRequest) -> ChatReply:
    reply = await core.handle(request)
    assert reply is not None
    return reply


async def pressed(core: ChatCore, reply: ChatReply, words: str, **values: Any) -> ChatReply:
    """Press the first button whose label has the words."""
    data = next(data for text, data in buttons_of(reply).items() if words in text)
    return await answered(core, sent(button=data, message="1", **values))


@pytest.fixture
async def core(seline: Seline) -> AsyncIterator[ChatCore]:
    made = ChatCore(seline)
    yield made
    made.close()


def test_a_button_expires_and_is_bound_to_person_chat_and_message() -> None:
    """Accept a press of the person, in the chat, under the message, in time, and once."""
    buttons = SentButtons()
    action = ChatAction("home")
    [data] = buttons.offer("telegram:7", "7", "1", [action], NOW)
    right = sent(button=data, message="1")

    for wrong in ({"user": "8"}, {"chat": "8"}, {"message": "2"}, {"service": "discord"}):
        assert buttons.press(sent(**{"button": data, "message": "1", **wrong}), NOW) is None
    assert buttons.press(right, NOW + VALID_FOR - timedelta(seconds=1)) == (action, False)
    assert buttons.press(right, NOW) is None

    [data] = buttons.offer("telegram:7", "7", "", [action], NOW)
    assert buttons.press(sent(button=data, message="1"), NOW + VALID_FOR) is None


def test_a_lasting_button_stays_under_the_message_of_its_first_press() -> None:
    """Accept it again, not under another message, and not for ever."""
    buttons = SentButtons()
    [data] = buttons.offer("telegram:7", "7", "", [ChatAction("home")], NOW, is_lasting=True)
    first, other = sent(button=data, message="1"), sent(button=data, message="2")

    assert buttons.press(first, NOW) == (ChatAction("home"), True)
    assert buttons.press(other, NOW) is None
    assert buttons.press(first, NOW) is not None
    assert buttons.press(first, NOW + LASTING_FOR) is None


def test_the_oldest_buttons_are_forgotten() -> None:
    """Keep a bounded number."""
    buttons = SentButtons()
    offered = [buttons.offer("telegram:7", "7", "1", [ChatAction("home")], NOW)[0]
               for _ in range(SETS_MAX + 1)]  # fmt: skip
    assert buttons.press(sent(button=offered[0], message="1"), NOW) is None
    assert buttons.press(sent(button=offered[1], message="1"), NOW) is not None


async def test_an_expired_button_changes_nothing(seline: Seline, core: ChatCore) -> None:
    """Answer a press after half an hour with a hint."""
    await seline.data.save_json(NAME, 1)
    await seline.data.save_json(NAME, 2)
    clock = FakeClock()
    clock.instant = Clock().now()
    seline.store.clock = clock
    reply = await pressed(core, await answered(core, sent(NAME)), "1. 20")
    clock.advance(VALID_FOR.total_seconds())
    late = await pressed(core, reply, "Restore this one")

    assert (late.kind, late.rows) == ("notice", ())
    assert len(late.text) <= 200
    assert await seline.data.load_json(NAME) == 2


async def test_the_log_names_a_stranger_once(
    seline: Seline, core: ChatCore, caplog: pytest.LogCaptureFixture
) -> None:
    """Let the owner find the number for `chat.owners` in the log."""
    caplog.set_level("INFO")
    for _ in range(3):
        assert await core.handle(sent(user="12345")) is None
    lines = [record.getMessage() for record in caplog.records if record.name == "seline.chat"]
    assert lines == ["no answer for telegram:12345, which `chat.owners` does not name"]


async def test_a_search_lists_what_has_the_word(seline: Seline, core: ChatCore) -> None:
    """Show the only document with the word at once, else a list."""
    for name in ("user_1.json", "user_2.json", "other.json"):
        await seline.data.save_json(name, {})
    many = await answered(core, sent("USER_"))
    assert "2 documents have “USER_”" in many.text
    assert "other.json" not in many.text
    one = await answered(core, sent("othe"))
    assert one.text.startswith("other.json\n")
    none = await answered(core, sent("nothing <b>_*"))
    assert "0 documents have “nothing <b>_*”" in none.text


async def test_an_error_and_a_defect_are_explained(
    seline: Seline, core: ChatCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show the next step of an error, and no detail of a defect."""

    async def fail(_turn: object) -> Any:
        raise errors.pop()

    long = VolumeBusy("x" * 9000, hint="y" * 9000)
    errors: list[Exception] = [long, ValueError("secret"), VolumeBusy("x" * 9000)]
    monkeypatch.setattr(core_module, "VIEWS", {**VIEWS, "home": fail})
    busy = await answered(core, sent())
    assert VolumeBusy.hint in busy.text
    defect = await answered(core, sent())
    assert "unexpected" in defect.text
    assert "secret" not in defect.text
    assert buttons_of(defect)
    assert len((await answered(core, sent())).text) == 4096


async def test_an_export_that_is_too_large_is_not_sent(
    seline: Seline, core: ChatCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Say what the service takes, and another way."""
    await seline.data.save_json(NAME, {"n": 1})
    small = LIMITS["telegram"]._replace(file_bytes_max=1 << 10)
    monkeypatch.setitem(LIMITS, "telegram", small)  # type: ignore[arg-type]
    reply = await pressed(core, await answered(core, sent()), "Export now")
    done = await pressed(core, reply, "Send the file")
    assert done.file is None
    assert "1.0 KB" in done.text


async def test_an_export_is_encrypted_for_the_recipients(tmp_path: Path) -> None:
    """Send sealed packs where `exports.encrypt_to` names a recipient."""
    from seline.outbound.sealing import new_key

    arguments = {"exports__encrypt_to": [new_key().recipient], "chat__owners": ["telegram:7"]}
    async with open_seline(tmp_path / "data", **arguments) as seline:
        await seline.data.save_json(NAME, {"n": "very secret"})
        core = ChatCore(seline)
        reply = await pressed(core, await answered(core, sent()), "Export now")
        assert "encrypted as your exports are" in reply.text
        done = await pressed(core, reply, "Send the file")
        core.close()
    assert done.file is not None
    assert b"pack-0001.tar.zst.age" in done.file.data
    assert NAME.encode() not in done.file.data


@pytest.mark.usefixtures("files_at_once")
async def test_a_server_shows_its_alerts(tmp_path: Path) -> None:
    """List the open alerts with a button for the document of each."""
    settings = settings_for(tmp_path / "data", storage__settle_s=0, chat__owners=["telegram:7"])
    async with serving(settings, http=False) as running:
        await running.acquired()
        await running.data.save_json(NAME, {"n": 1})
        await running.data.save_json(NAME, {"n": 2})
        (tmp_path / "data" / NAME).write_text('{"n": 2')
        await running.operations.verify()
        await running.alerts.evaluate()
        core = ChatCore()
        home = await answered(core, sent())
        shown = await pressed(core, home, "open alert")
        assert NAME in shown.text
        document = await pressed(core, shown, NAME)
        assert document.text.startswith(NAME)


async def test_a_store_that_is_still_opening_is_reported(
    seline: Seline, core: ChatCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do not wait for minutes."""

    async def opening() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(core_module, "OPENING_S", 0.01)
    monkeypatch.setattr(seline.store, "open", opening)
    assert "still being opened" in (await answered(core, sent())).text


def test_a_text_is_cut_by_what_telegram_counts() -> None:
    """Count a character outside of the basic plane as two, and cut none in half."""
    assert fitted("é" * 10, 10) == "é" * 10
    assert fitted("😀" * 10, 11) == "😀" * 5 + "…"
    assert fitted("😀" * 10, 10) == "😀" * 4 + "…"
    assert fitted("\ud800", 10) == "?"
    assert label("a" * 60 + "1.json").endswith("1.json")
    assert len(label("a" * 60)) <= 40


def test_every_text_is_in_both_languages_with_the_same_fields() -> None:
    """Compare the tables."""
    english, french = (load_tables("seline.chat", language) for language in ("en", "fr"))
    assert english.keys() == french.keys()
    assert not {key for key in english if fields_of(english[key]) != fields_of(french[key])}
    used = "".join(path.read_text("utf-8") for path in (ROOT / "seline/chat").glob("*.py"))
    computed = ("chat.added", "chat.removed", "chat.changed")
    stems = {key.removesuffix("_one").removesuffix("_many") for key in english}
    assert not {
        stem
        for stem in stems
        if not re.search(rf"""["']{stem}["']""", used) and stem not in computed
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_longest_hint_fits_beside_a_button(language: Any) -> None:
    """Telegram takes 200 characters there."""
    assert len(wording(language)("chat.expired")) <= 200


def test_no_view_is_an_act() -> None:
    """An act is in the audit log, a view is not."""
    assert not set(VIEWS) & set(ACTS)


def test_the_core_loads_no_library_of_a_bot(tmp_path: Path) -> None:
    """Import the core alone."""
    code = (
        "import sys, seline.chat.core\n"
        "print(sorted({'aiogram', 'telegram', 'discord', 'jinja2', 'aiohttp'} & set(sys.modules)))"
    )
    assert run_python(tmp_path, "-c", code) == "[]\n"


def test_two_audit_logs_of_a_directory_rotate_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Append from one while the other rotates, as a bot with a server and a chat does."""
    (tmp_path / ".seline").mkdir()
    monkeypatch.setattr(audit, "AUDIT_BYTES_MAX", 2000)
    rotating, replace = Event(), os.replace

    def slow_replace(*names: str, **values: Any) -> None:
        rotating.set()
        time.sleep(0.05)
        replace(*names, **values)

    monkeypatch.setattr(os, "replace", slow_replace)
    first, second = audit.AuditLog(str(tmp_path)), audit.AuditLog(str(tmp_path))
    for number in range(20):
        first.append(who="first", what=f"{number:090}", outcome="done")
    assert rotating.wait(5)
    second.append(who="second", what="", outcome="done")
    first.close()
    second.close()
    files = (tmp_path / ".seline").glob("audit.jsonl*")
    assert sum(file.read_text().count('"second"') for file in files) == 1
    assert not caplog.records


async def test_an_alert_gets_no_buttons_while_it_is_unclear_whose_they_are(
    seline: Seline, tmp_path: Path
) -> None:
    """Send the alert without them if several directories are open, or another one is meant."""
    core = ChatCore()
    core.listens_to("1:a")
    where = {"data_dir": seline.settings.data_dir, "chat": "7"}
    assert [text for text, _ in core.under_alert(ALERT, **where)] == [
        "Show",
        "Restore another backup",
    ]
    everything = replace(ALERT, document=None)
    assert [text for text, _ in core.under_alert(everything, **where)] == ["Status"]
    assert not core.under_alert(ALERT, data_dir=str(tmp_path / "another"), chat="7")
    async with open_seline(tmp_path / "another"):
        assert not core.under_alert(ALERT, **where)
    assert CHATS["1:a"] is core
    core.close()
    assert "1:a" not in CHATS
