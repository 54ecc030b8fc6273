"""Who may come in: tokens kept hashed, checked in constant time, failures slowed down.

A token is `sel_<8 id>_<43 base64url>`. Only its SHA-256 is stored. Closed by default: no token
and no admin token in the settings means that nobody comes in over the network.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, cast

from seline.clock import Clock, instant_text, parse_instant
from seline.domain.document import Json
from seline.errors import Forbidden, InvalidRequest, TokenNotFound, TooManyRequests, Unauthorized
from seline.manager import DataManager
from seline.manager.state import remembered

Scope: TypeAlias = Literal["read", "admin"]
SCOPES: Final = ("read", "admin")
TOKENS_NAME: Final = "tokens.json"
ID_CHARACTERS: Final = 8
WINDOW_S: Final = 60.0
CLIENT_FAILURES_MAX: Final = 10
TOTAL_FAILURES_MAX: Final = 200
CLIENTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is kept; the secret is known to its bearer alone."""

    id: str
    digest: str
    scope: Scope
    label: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who was let in, for the audit log, and how far."""

    who: str
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token just made; `secret` is shown this once."""

    token: Token
    secret: str


class Tokens:
    """The tokens of one store, and the admin token of the settings."""

    def __init__(self, data: DataManager, *, admin_token: str | None, clock: Clock) -> None:
        """Work over a store that may not be open yet: until then the admin token alone admits."""
        self._data = data
        self._clock = clock
        self._admin_digest = None if admin_token is None else _digest(admin_token)
        self._failures = _Failures(clock)
        self._kept: tuple[Token, ...] | None = None

    async def load(self) -> None:
        """Read the stored tokens; those that are broken, or cannot be read, let nobody in.

        The store opens all the same: its documents must not be out of reach for their sake.
        """
        self._kept = tuple(_read_all(await remembered(self._data, TOKENS_NAME, {})))

    @property
    def any_known(self) -> bool:
        """Whether anybody could come in."""
        return self._admin_digest is not None or bool(self._kept)

    def admit(self, secret: str | None, *, client: str, needs: Scope) -> Caller:
        """Return who bears this token.

        Raises Unauthorized, Forbidden (a read token for an admin's call), TooManyRequests (after
        too many failures; a right token is let in all the same).
        """
        admission = None if secret is None else self._known(secret)
        if admission is None:
            self._failures.note(client)
            raise Unauthorized if secret is None else Unauthorized("This token is not known here.")
        if needs == "admin" and admission.scope != "admin":
            raise Forbidden
        return admission

    async def create(
        self, *, scope: str = "admin", label: str = "", expires_at: datetime | None = None
    ) -> NewToken:
        """Make a token and keep its hash."""
        if scope not in SCOPES:
            raise InvalidRequest(f"{scope!r} is not a scope.", hint="Use `read` or `admin`.")
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidRequest("The expiry lies in the past.")
        identifier = secrets.token_hex(ID_CHARACTERS // 2)
        secret = f"sel_{identifier}_{secrets.token_urlsafe(32)}"
        token = Token(
            id=identifier,
            digest=_digest(secret),
            scope=cast("Scope", scope),
            label=label[:100],
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        await self._change(lambda kept: (*kept, token))
        return NewToken(token=token, secret=secret)

    async def listed(self) -> list[Token]:
        """Return the tokens, oldest first."""
        await self.load()
        return list(self._kept or ())

    async def revoke(self, identifier: str) -> Token:
        """Take a token back. Raises TokenNotFound."""
        await self.load()
        for token in self._kept or ():
            if token.id == identifier:
                await self._change(lambda kept: tuple(t for t in kept if t.id != identifier))
                return token
        raise TokenNotFound(f"There is no token {identifier!r}.")

    async def _change(self, function: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
        def change(value: Json | None) -> Json:
            return _write_all(function(tuple(_read_all({} if value is None else value))))

        self._kept = tuple(_read_all(await self._data.update_state(TOKENS_NAME, change)))

    def _known(self, secret: str) -> Caller | None:
        """Compare with every token, so that time tells nothing."""
        digest = _digest(secret)
        found: Caller | None = None
        if self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest):
            found = Caller(who="SELINE_ADMIN_TOKEN", scope="admin")
        for token in self._kept or ():
            if hmac.compare_digest(digest, token.digest) and self._holds(token):
                found = Caller(who=f"token {token.id}", scope=token.scope)
        return found

    def _holds(self, token: Token) -> bool:
        return token.expires_at is None or token.expires_at > self._clock.now()


class _Failures:
    """Counts failures per client and in total, and forgets them after a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_client: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()

    def note(self, client: str) -> None:
        """Count one more. Raises TooManyRequests beyond the bounds."""
        now = self._clock.monotonic()
        own = self._by_client.setdefault(client, deque())
        self._by_client.move_to_end(client)
        while len(self._by_client) > CLIENTS_MAX:
            self._by_client.popitem(last=False)
        for failures in (own, self._all):
            while failures and now - failures[0] > WINDOW_S:
                failures.popleft()
        if len(own) >= CLIENT_FAILURES_MAX or len(self._all) >= TOTAL_FAILURES_MAX:
            oldest = own[0] if own else self._all[0]
            raise TooManyRequests(retry_after_s=int(WINDOW_S - (now - oldest)) + 1)
        own.append(now)
        self._all.append(now)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _read_all(value: Json) -> Iterator[Token]:
    listed = value.get("tokens", []) if isinstance(value, dict) else []
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict):
            expires = item.get("expires_at")
            yield Token(
                id=str(item["id"]),
                digest=str(item["digest"]),
                scope="admin" if item.get("scope") == "admin" else "read",
                label=str(item.get("label", "")),
                created_at=parse_instant(str(item["created_at"])),
                expires_at=None if expires is None else parse_instant(str(expires)),
            )


def _write_all(tokens: tuple[Token, ...]) -> Json:
    return {
        "tokens": [
            {
                "id": token.id,
                "digest": token.digest,
                "scope": token.scope,
                "label": token.label,
                "created_at": instant_text(token.created_at),
                "expires_at": None if token.expires_at is None else instant_text(token.expires_at),
            }
            for token in tokens
        ]
    }
