"""Requests to the API of a chat: it may ask for a wait, and its refusals have a reason.

Addresses and headers hold the token, so no error contains one.
"""

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import aiohttp

from seline.outbound.http_client import open_session, proxy_for, read_bounded

BACKOFF_S: Final = 0.5
REPEATS_MAX: Final = 3
"""How often a request is repeated that the service fails to answer (5xx)."""
ANSWER_BYTES_MAX: Final = 4 << 20
_REASON_CHARACTERS_MAX: Final = 200


class ChatRefusal(Exception):
    """The service refuses a request; `answer` is its JSON."""

    def __init__(self, status: int, reason: str, answer: Mapping[str, Any]) -> None:
        super().__init__(f"it answered {status}{f' ({reason})' if reason else ''}")
        self.status = status
        self.reason = reason
        self.answer = answer


class Upload(NamedTuple):
    """A file of a form, and the form's other fields."""

    field: str
    file: str
    data: bytes
    fields: Mapping[str, str]

    def form(self) -> aiohttp.FormData:
        """Return the form anew, as each attempt reads it to its end."""
        form = aiohttp.FormData(self.fields)
        form.add_field(
            self.field,
            io.BytesIO(self.data),
            filename=self.file,
            content_type="application/octet-stream",
        )
        return form


class ChatRequests:
    """The requests of one destination, in the session of the running event loop."""

    def __init__(self, *, wait_s_max: float, headers: Mapping[str, str] | None = None) -> None:
        """Obey a wait of at most `wait_s_max`; send `headers` to the API."""
        self._wait_s_max = wait_s_max
        self._headers = headers or {}
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(
        self, method: str, url: str, content: Upload | Mapping[str, Any] | None = None
    ) -> Any:
        """Send a form or JSON; return the JSON of the answer. Raises ChatRefusal."""
        repeats = 0
        while True:
            form = content.form() if isinstance(content, Upload) else None
            payload = None if isinstance(content, Upload) else content
            async with self._open_session().request(
                method,
                url,
                data=form,
                json=payload,
                headers=self._headers,
                proxy=proxy_for(url),
                allow_redirects=False,
            ) as response:
                status, answer = (
                    response.status,
                    _parsed(await read_bounded(response, ANSWER_BYTES_MAX)),
                )
                header = response.headers.get("Retry-After", "")
            if status == 429:
                await self._wait(status, answer, header)
            elif status >= 500 and repeats < REPEATS_MAX:
                await asyncio.sleep(BACKOFF_S * 2**repeats)
                repeats += 1
            elif status in range(200, 300):
                return answer
            else:
                raise ChatRefusal(status, _reason(answer), _members(answer))

    async def download(self, url: str, bytes_max: int) -> bytes:
        """Return a file of at most `bytes_max` from an address that the API gave.

        Raises ChatRefusal, and AnswerTooLong.
        """
        async with self._open_session().get(
            url, proxy=proxy_for(url), allow_redirects=False
        ) as response:
            if response.status != 200:
                raise ChatRefusal(response.status, "", {})
            return await read_bounded(response, bytes_max)

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _wait(self, status: int, answer: Any, header: str) -> None:
        """Wait as long as the service asks. Raises ChatRefusal if that is too long."""
        members = _members(answer)
        asked: object = _members(members.get("parameters")).get("retry_after")
        if asked is None:
            asked = members.get("retry_after", header)
        try:
            wait_s = float(cast("Any", asked))
        except (TypeError, ValueError):
            wait_s = 1.0
        if wait_s > self._wait_s_max:
            raise ChatRefusal(status, f"it asks to wait {wait_s:.0f} s", members)
        await asyncio.sleep(wait_s)

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._session, self._loop = open_session(aiohttp.ClientTimeout(total=None)), loop
        return self._session


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _members(answer: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else {}


def _reason(answer: object) -> str:
    """Return the service's own text: Telegram calls it `description`, Discord `message`."""
    members = _members(answer)
    text = " ".join(str(members.get("description") or members.get("message") or "").split())
    return text[:_REASON_CHARACTERS_MAX]


def unlike(service: str, read: Callable[[], Any]) -> Any:
    """Return what `read` finds in an answer. Raises ChatRefusal if the answer is another one."""
    try:
        return read()
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise ChatRefusal(200, f"an answer that is not {service}'s", {}) from error
