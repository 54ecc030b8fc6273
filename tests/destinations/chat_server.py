"""A stand-in for the APIs of Telegram and Discord: it refuses what they refuse.

Telegram: files of more than 50 MB to send (413) and of more than 20 MB to fetch, empty files, long
captions, deletions after 48 hours, a wrong token, an unknown chat, and a group's old id. Discord:
files of more than 10 MiB, addresses of files that have expired, flags in an edit, bots that do not
name themselves as such.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

BOT: Final = "123456"
TELEGRAM_TOKEN: Final = f"{BOT}:a-token-of-telegram"
DISCORD_TOKEN: Final = "a.token-of.discord"
CHAT: Final = "-1001234567890"
SEND_BYTES_MAX: Final = 50_000_000
FETCH_BYTES_MAX: Final = 20_000_000
DISCORD_BYTES_MAX: Final = 10 << 20
DELETE_S_MAX: Final = 48 * 3600
Fault = Callable[[str], Awaitable[web.Response | None] | web.Response | None]


Service = Callable[["ChatServer", web.Request], Awaitable[web.Response]]


@dataclass(kw_only=True)
class Message:
    """A message with one file."""

    id: int
    author: str
    file: str
    name: str
    data: bytes
    text: str
    sent_at: float
    pinned_at: float = 0.0


@dataclass(kw_only=True)
class ChatServer:
    """One chat, as both services show it; `fault` answers a method in their place."""

    url: str = ""
    messages: dict[int, Message] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fault: Fault | None = None
    loses: str = ""
    """The method whose next answer is lost, after it was carried out."""
    chat: str = CHAT
    was: str = ""
    """The id of the group that has become this supergroup."""
    can_pin: bool = True
    is_member: bool = True
    now: float = 1_736_173_822.0
    count: int = 0
    valid: set[str] = field(default_factory=set)
    """The addresses of Discord's files that have not expired."""

    def add(self, author: str, name: str, data: bytes, text: str) -> Message:
        self.count += 1
        message = Message(
            id=self.count, author=author, file=f"file-{self.count}-{self.count}", name=name,
            data=data, text=text, sent_at=self.now,
        )  # fmt: skip
        self.messages[message.id] = message
        return message

    def pin_by_a_person(self) -> Message:
        """Have a person pin a message, which is newer than all others."""
        message = self.add("a person", "rules.pdf", b"rules", "Our rules")
        message.pinned_at = self.now = self.now + 1
        return message

    @property
    def names(self) -> list[str]:
        return [message.name for message in self.messages.values()]

    async def faulty(self, method: str) -> web.Response | None:
        self.requests.append(method)
        answer = self.fault(method) if self.fault else None
        return await answer if isinstance(answer, Awaitable) else answer


# Telegram


def _ok(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def refused(status: int, text: str, **parameters: object) -> web.Response:
    """Answer as Telegram does."""
    body = {"ok": False, "error_code": status, "description": text}
    return web.json_response(
        body | ({"parameters": parameters} if parameters else {}), status=status
    )


async def telegram(server: ChatServer, request: web.Request) -> web.Response:
    """Answer `/bot<token>/<method>`."""
    method = request.match_info["method"]
    if request.match_info["token"] != TELEGRAM_TOKEN:
        return refused(401, "Unauthorized")
    if (request.content_length or 0) > SEND_BYTES_MAX + 10_000:
        return refused(413, "Request Entity Too Large")
    given, file, name = await _fields(request)
    answered = await server.faulty(method)
    if answered is not None:
        return answered
    if method == "getFile":
        return _get_file(server, given["file_id"])
    if str(given["chat_id"]) == server.was:
        text = "Bad Request: group chat was upgraded to a supergroup chat"
        return refused(400, text, migrate_to_chat_id=int(server.chat))
    if str(given["chat_id"]) != server.chat:
        return refused(400, "Bad Request: chat not found")
    if not server.is_member:
        return refused(403, "Forbidden: bot was kicked from the supergroup chat")
    return _METHODS[method](server, given, file, name)


async def _fields(request: web.Request) -> tuple[dict[str, Any], bytes, str]:
    if request.content_type == "application/json":
        return await request.json(), b"", ""
    given: dict[str, Any] = {}
    file, name = b"", ""
    async for part in await request.multipart():  # type: ignore[union-attr]
        if part.filename:  # type: ignore[union-attr]
            file, name = bytes(await part.read()), part.filename or ""  # type: ignore[union-attr]
        else:
            given[part.name or ""] = await part.text()  # type: ignore[union-attr]
    return given, file, name


def _get_file(server: ChatServer, file: str) -> web.Response:
    found = [message for message in server.messages.values() if message.file == file]
    if not found:
        return refused(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
    if len(found[0].data) > FETCH_BYTES_MAX:
        return refused(400, "Bad Request: file is too big")
    return _ok({"file_id": file, "file_path": f"documents/{found[0].id}"})


def _shown(message: Message) -> dict[str, Any]:
    document = {
        "file_id": message.file, "file_name": message.name, "file_size": len(message.data),
    }  # fmt: skip
    return {"message_id": message.id, "caption": message.text, "document": document}


def _flaw(server: ChatServer, data: bytes, caption: str) -> web.Response | None:
    if not data:
        return refused(400, "Bad Request: file must be non-empty")
    if len(data) > SEND_BYTES_MAX:
        return refused(413, "Request Entity Too Large")
    if len(caption) > 1024:
        return refused(400, "Bad Request: message caption is too long")
    return None


def _send(server: ChatServer, given: dict[str, Any], file: bytes, name: str) -> web.Response:
    flaw = _flaw(server, file, given["caption"])
    return flaw or _ok(_shown(server.add(BOT, name, file, given["caption"])))


def _edit(server: ChatServer, given: dict[str, Any], file: bytes, name: str) -> web.Response:
    message = server.messages.get(int(given["message_id"]))
    if message is None:
        return refused(400, "Bad Request: message to edit not found")
    if message.author != BOT:
        return refused(400, "Bad Request: message can't be edited")
    caption = json.loads(given["media"])["caption"]
    flaw = _flaw(server, file, caption)
    if flaw is not None:
        return flaw
    server.count += 1
    message.name, message.data, message.text = name, file, caption
    message.file = f"file-{message.id}-{server.count}"
    return _ok(_shown(message))


def _delete(server: ChatServer, given: dict[str, Any], _file: bytes, _name: str) -> web.Response:
    message = server.messages.get(int(given["message_id"]))
    if message is None:
        return refused(400, "Bad Request: message to delete not found")
    if server.now - message.sent_at > DELETE_S_MAX:
        return refused(400, "Bad Request: message can't be deleted for everyone")
    del server.messages[message.id]
    return _ok(True)


def _pin(server: ChatServer, given: dict[str, Any], _file: bytes, _name: str) -> web.Response:
    message = server.messages.get(int(given["message_id"]))
    if message is None:
        return refused(400, "Bad Request: message to pin not found")
    if not server.can_pin:
        return refused(400, "Bad Request: not enough rights to manage pinned messages in the chat")
    message.pinned_at = server.now
    return _ok(True)


def _get_chat(server: ChatServer, _given: dict[str, Any], _file: bytes, _name: str) -> web.Response:
    pinned = [message for message in server.messages.values() if message.pinned_at]
    shown = {"pinned_message": _shown(max(pinned, key=lambda item: item.id))} if pinned else {}
    return _ok({"id": int(server.chat), **shown})


_METHODS: Final = {
    "sendDocument": _send,
    "editMessageMedia": _edit,
    "deleteMessage": _delete,
    "pinChatMessage": _pin,
    "getChat": _get_chat,
}


# Discord


def refused_by_discord(status: int, code: int, text: str) -> web.Response:
    return web.json_response({"message": text, "code": code}, status=status)


async def discord(server: ChatServer, request: web.Request) -> web.Response:
    """Answer `/api/v10/…`."""
    path = request.match_info["path"].split("/")
    given, file, name = await _fields(request) if request.can_read_body else ({}, b"", "")
    if request.headers.get("Authorization") != f"Bot {DISCORD_TOKEN}":
        return refused_by_discord(401, 0, "401: Unauthorized")
    if not request.headers.get("User-Agent", "").startswith("DiscordBot ("):
        return refused_by_discord(403, 40333, "internal network error")
    if request.method == "PATCH" and "flags" in json.loads(given["payload_json"]):
        return refused_by_discord(400, 50035, "Invalid Form Body")
    method = f"{request.method} {path[3] if path[3:4] == ['pins'] else path[-1]}"
    method = f"{request.method} message" if path[3:] and path[3] != "pins" else method
    answered = await server.faulty(method)
    if answered is not None:
        return answered
    if path == ["users", "@me"]:
        return web.json_response({"id": BOT})
    text = json.loads(given["payload_json"]).get("content", "") if given else ""
    flaw = _flaw_for_discord(server, path, file, text)
    if flaw is not None:
        return flaw
    if path[3:4] == ["pins"]:
        return _pins(server, request, path[4:])
    if request.method == "POST":
        return web.json_response(_seen(server, server.add(BOT, name, file, text)))
    return _change(server, request.method, int(path[3]), file)


def _flaw_for_discord(
    server: ChatServer, path: list[str], file: bytes, text: str
) -> web.Response | None:
    if path[1] != server.chat:
        return refused_by_discord(404, 10003, "Unknown Channel")
    if not server.is_member:
        return refused_by_discord(403, 50001, "Missing Access")
    if len(file) > DISCORD_BYTES_MAX:
        return refused_by_discord(413, 40005, "Request entity too large")
    if len(text) > 2000:
        return refused_by_discord(400, 50035, "Invalid Form Body")
    return None


def _change(server: ChatServer, method: str, number: int, file: bytes) -> web.Response:
    message = server.messages.get(number)
    if message is None:
        return refused_by_discord(404, 10008, "Unknown Message")
    if method == "PATCH":
        server.count += 1
        message.data, message.file = file, f"file-{message.id}-{server.count}"
    if method == "DELETE":
        del server.messages[message.id]
        return web.Response(status=204)
    return web.json_response(_seen(server, message))


def _seen(server: ChatServer, message: Message) -> dict[str, Any]:
    """Return a message with a new address of its file; older addresses expire."""
    server.count += 1
    server.valid = {f"{server.count}"}
    attachment = {
        "id": message.file,
        "filename": message.name,
        "size": len(message.data),
        "url": f"{server.url}/cdn/{message.id}?ex={server.count}",
    }
    return {"id": str(message.id), "author": {"id": message.author}, "attachments": [attachment]}


def _pins(server: ChatServer, request: web.Request, rest: list[str]) -> web.Response:
    if request.method == "PUT":
        if not server.can_pin:
            return refused_by_discord(403, 50013, "Missing Permissions")
        server.messages[int(rest[0])].pinned_at = server.now
        return web.Response(status=204)
    before = float(request.query.get("before", "inf"))
    pinned = [item for item in server.messages.values() if 0 < item.pinned_at < before]
    pinned.sort(key=lambda item: item.pinned_at, reverse=True)
    page = pinned[: int(request.query["limit"])]
    items = [{"pinned_at": str(item.pinned_at), "message": _seen(server, item)} for item in page]
    return web.json_response({"items": items, "has_more": len(pinned) > len(page)})


@asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    """Run the stand-in on a free port of 127.0.0.1."""
    server = ChatServer()

    def answering(service: Service) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            made = await service(server, request)
            if server.loses and server.requests[-1] == server.loses:
                server.loses = ""
                assert request.transport is not None
                request.transport.abort()
            return made

        return answer

    async def file(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        if request.path.startswith("/cdn/") and request.query.get("ex") not in server.valid:
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=server.messages[int(request.match_info["id"])].data)

    app = web.Application(client_max_size=100 << 20)
    app.router.add_post("/bot{token}/{method}", answering(telegram))
    app.router.add_get("/file/bot{token}/documents/{id}", file)
    app.router.add_get("/cdn/{id}", file)
    app.router.add_route("*", "/api/v10/{path:.*}", answering(discord))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
