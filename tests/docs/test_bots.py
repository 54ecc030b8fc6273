"""The handlers of docs/bots.md, each run by its own framework, without a network."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seline import open_seline
from seline.client import connect
from seline.server import serving
from seline_workers import worker
from tests.docs.blocks import blocks

DOCUMENT = "user_7.json"


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def example(framework: str) -> dict[str, Any]:
    """Run an example's code and return what it defines."""
    [code] = [
        code for code in blocks("docs/bots.md", "python") if code.startswith(f"# {framework}\n")
    ]
    defined: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"docs/bots.md ({framework})", "exec"), defined)
    return defined


@pytest.mark.prove
async def test_aiogram(data_dir: Path) -> None:
    aiogram = pytest.importorskip("aiogram", reason="aiogram is not installed")
    from aiogram.client.session.base import BaseSession
    from aiogram.types import Chat, Message, Update, User

    sent: list[str] = []

    class Offline(BaseSession):
        async def close(self) -> None: ...

        async def make_request(self, bot: Any, method: Any, timeout: int | None = None) -> Any:
            sent.append(method.text)
            return Message(message_id=2, date=now, chat=chat)

        async def stream_content(self, *_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
            yield b""

    now = datetime.now(UTC)
    chat = Chat(id=7, type="private")
    user = User(id=7, is_bot=False, first_name="Alex")
    message = Message(message_id=1, date=now, chat=chat, from_user=user, text="/start")
    dispatcher = aiogram.Dispatcher()
    dispatcher.include_router(example("aiogram")["router"])
    bot = aiogram.Bot("7:offline", session=Offline())
    async with open_seline() as seline:
        for number in (1, 2):
            update = Update(update_id=number, message=message)
            await dispatcher.feed_update(bot, update, seline=seline)
        assert await seline.data.load_json(DOCUMENT) == {"visits": 2}
    assert sent == ["Visit number 1", "Visit number 2"]


async def test_python_telegram_bot(data_dir: Path) -> None:
    telegram = pytest.importorskip("telegram", reason="python-telegram-bot is not installed")
    from telegram.ext import ApplicationBuilder, PicklePersistence
    from telegram.request import BaseRequest

    from seline import get_data_manager

    sent: list[bytes] = []

    class Offline(BaseRequest):
        @property
        def read_timeout(self) -> float:
            return 1.0

        async def initialize(self) -> None: ...

        async def shutdown(self) -> None: ...

        async def do_request(
            self, url: str, method: str, request_data: Any = None, **_: Any
        ) -> tuple[int, bytes]:
            if url.endswith("getMe"):
                me = {"id": 7, "is_bot": True, "first_name": "b", "username": "b"}
                return 200, json.dumps({"ok": True, "result": me}).encode()
            sent.append(request_data.json_payload)
            message = {"message_id": 2, "date": 0, "chat": {"id": 7, "type": "private"}}
            return 200, json.dumps({"ok": True, "result": message}).encode()

    builder = ApplicationBuilder().token("7:offline")
    builder = builder.request(Offline()).get_updates_request(Offline())
    builder = builder.persistence(PicklePersistence(data_dir.with_name("persisted")))
    application = example("python-telegram-bot")["build"](builder)
    await application.initialize()
    await application.post_init(application)
    update = {
        "update_id": 1,
        "message": {
            "message_id": 1, "date": 0, "chat": {"id": 7, "type": "private"}, "text": "/start",
            "from": {"id": 7, "is_bot": False, "first_name": "Alex"},
            "entities": [{"type": "bot_command", "offset": 0, "length": 6}],
        },
    }  # fmt: skip
    await application.process_update(telegram.Update.de_json(update, application.bot))
    data = get_data_manager()
    assert await data.load_json(DOCUMENT) == {"visits": 1}
    assert b"Visit number 1" in sent[0]
    await application.update_persistence()
    await application.shutdown()
    await application.post_shutdown(application)
    with pytest.raises(Exception, match="closed"):
        await data.load_json(DOCUMENT)


async def test_discord(data_dir: Path) -> None:
    pytest.importorskip("discord", reason="discord.py is not installed")
    defined = example("discord.py")
    bot = defined["Bot"]()
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    await bot.setup_hook()
    interaction = SimpleNamespace(
        client=bot, user=SimpleNamespace(id=7), response=SimpleNamespace(send_message=send)
    )
    await defined["visit"].callback(interaction)
    assert [command.name for command in bot.tree.get_commands()] == ["visit"]
    assert await bot.seline.data.load_json(DOCUMENT) == {"visits": 1}
    assert sent == ["Visit number 1"]
    data = bot.seline.data
    await bot.close()
    with pytest.raises(Exception, match="closed"):
        await data.load_json(DOCUMENT)


async def test_serving_inside_a_bots_loop(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELINE_SERVER__HOST", "127.0.0.1")
    monkeypatch.setenv("SELINE_SERVER__PORT", "0")
    polled = []

    async def poll(data: Any) -> None:
        polled.append(await data.save_json("polled.json", {"n": 1}))

    await asyncio.wait_for(example("serving")["run"](poll), 10)
    assert polled


@pytest.mark.parametrize("http", [True, False], ids=["a busy port", "no HTTP"])
async def test_a_bot_runs_its_jobs_without_an_address(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, http: bool
) -> None:
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("SELINE_SERVER__PORT", str(other.getsockname()[1]))
        async with serving(http=http) as seline:
            await asyncio.wait_for(seline.acquired(), 10)
            await seline.data.save_json("a.json", {"n": 1})
            async with connect(seline.settings, notify=print) as api:
                jobs = (await api.get("/jobs"))["jobs"]
                about = await api.get("/status")
    assert all(job["next_run"] for job in jobs)
    assert about["address"] is None
    assert f"ready without HTTP, data in {data_dir}" in caplog.text
    assert ("Cannot listen on 127.0.0.1" in caplog.text) == http


async def test_the_log_of_a_bot_shows_what_it_opened_and_no_scheduling(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("SELINE_SERVER__PORT", "0")
    monkeypatch.setenv("SELINE_FOO", "1")
    monkeypatch.setenv("SELINE_JOBS__USAGE__SCHEDULE", "every 1 s")
    monkeypatch.setattr(worker, "CATCH_UP_AFTER", timedelta(seconds=0.1))
    async with open_seline():
        pass
    async with serving() as seline:
        await asyncio.wait_for(seline.acquired(), 10)
        ready = f"ready on {seline.address}, data in {data_dir}; `seline token create`"
        async with asyncio.timeout(20):
            while "job usage" not in caplog.text:
                await asyncio.sleep(0.1)

    messages = [f"{record.name}: {record.getMessage()}" for record in caplog.records]
    assert f"seline: opened {data_dir}" in messages
    assert sum("SELINE_FOO is not a setting" in message for message in messages) == 2
    assert any(ready in message for message in messages)
    assert not [message for message in messages if "Added job" in message or "Running" in message]
    assert not [message for message in messages if message.startswith("apscheduler")]
