"""Access tokens: stored as hashes, compared in constant time, with a limit on failed attempts.

A token is `sel_<8 id>_<43 base64url>`. Only its SHA-256 is stored. Without a token, and without an
admin token in the settings, every network caller is refused.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from seline.clock import Clock
from seline.domain.plural import counted
from seline.domain.stored import Stored
from seline.domain.undo import RevokeAgain
from seline.errors import (
    Forbidden,
    InvalidRequest,
    SelineError,
    StoreClosed,
    TokenNotFound,
    TooManyRequests,
    Unauthorized,
)
from seline.manager import ManagedStore
from seline.manager.call_record import note_undo
from seline.ports.futures import in_loop

Scope: TypeAlias = Literal["read", "admin"]
SCOPES: Final = ("read", "admin")
ID_CHARACTERS: Final = 8
WINDOW_S: Final = 60.0
CLIENT_FAILURES_MAX: Final = 10
TOTAL_FAILURES_MAX: Final = 200
CLIENTS_MAX: Final = 1_000
USE_STORED_AFTER: Final = timedelta(hours=1)
"""How old the stored instant of a token's last use may be, and the pause after a failed write."""
_log = logging.getLogger("seline.access")
_STORED: Final = re.compile(r"sel_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


class Token(Stored, frozen=True, kw_only=True):
    """A stored token. `digest` is the SHA-256 of the secret, which is not stored.

    `used_at` is when it last gave access, None if it never did.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scope: Scope
    label: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token gives access to. `name` is for the audit log; `digest` is of the secret."""

    name: str
    scope: Scope
    digest: str


class Tokens:
    """The tokens of one store, and the admin token of the settings."""

    def __init__(self, store: ManagedStore, *, admin_token: str | None) -> None:
        """Keep the tokens in `store`. Until `load`, only the admin token is valid."""
        self._state = store.state(
            "tokens.json", tuple[Token, ...], tuple[Token, ...], field="tokens", entry=Token
        )
        self._clock = store.clock
        self._admin = (
            None
            if admin_token is None
            else Grant(name="SELINE_ADMIN_TOKEN", scope="admin", digest=digest_of(admin_token))
        )
        self._built = _Table.of(self._state.value, self._admin)
        self.failures = Failures(store.clock)
        self._is_loaded = False
        self._used: dict[str, datetime] = {}
        """When each token was last used in this process, by its id."""
        self._storing: asyncio.Task[None] | None = None
        self._no_store_before_s = 0.0

    async def load(self) -> None:
        """Read the stored tokens; one that cannot be read is not valid. This never raises.

        The store must open without them, so that its documents can be reached.
        """
        stored = await self._state.load()
        repeated = len(stored) - len(_distinct(stored))
        if repeated:
            _log.warning(
                "%s in tokens.json repeats the id of another one and is not valid; make a new one "
                "with `seline token create`",
                counted(repeated, "token"),
            )
        self._is_loaded = True

    @property
    def has_any(self) -> bool:
        """Whether there is a token that gives access."""
        return self._admin is not None or bool(self._state.value)

    def authenticate(self, secret: str | None, *, client: str, needs: Scope) -> str:
        """Return the name of the caller with this token, as `grant` does."""
        return self.grant(secret, client=client, needs=needs).name

    def grant(self, secret: str | None, *, client: str, needs: Scope) -> Grant:
        """Return what this token gives access to.

        Raises Unauthorized, Forbidden (the token's scope is too small) or TooManyRequests (too many
        failures of this client; a valid token is accepted nevertheless). Until `load`, StoreClosed
        for what may be a stored token; it does not count as a failure.
        """
        found = None if secret is None else self.find(secret)
        if found is None:
            if not self._is_loaded and secret is not None and _STORED.fullmatch(secret):
                raise StoreClosed(
                    "The volume is not open yet, so this token cannot be checked.",
                    hint="Try again in a moment; `/readyz` answers 200 once it is open.",
                )
            self.failures.count(client)
            raise Unauthorized if secret is None else Unauthorized("This token is not known here.")
        if needs == "admin" and found.scope != "admin":
            raise Forbidden
        self.note_use(found)
        return found

    def find(self, secret: str) -> Grant | None:
        """Return what a token gives access to, None if it is not valid; that counts no failure.

        The secret is compared with every token, in constant time.
        """
        digest, found = digest_of(secret), None
        for grant in self._grants():
            if hmac.compare_digest(digest, grant.digest):
                found = grant
        return found

    def note_use(self, grant: Grant) -> None:
        """Note that a token gave access now; a task stores it, at most once an hour."""
        token = self._table().by_name.get(grant.name)
        if token is None:
            return
        now = self._used[token.id] = self._clock.now()
        is_due = token.used_at is None or abs(now - token.used_at) >= USE_STORED_AFTER
        is_busy = self._storing is not None and not self._storing.done()
        may_store = in_loop() and self._clock.monotonic() >= self._no_store_before_s
        if is_due and not is_busy and may_store:
            self._storing = asyncio.get_running_loop().create_task(self._store_uses())

    async def close(self) -> None:
        """Wait until the last use that is being stored is stored."""
        if self._storing is not None:
            await asyncio.wait({self._storing})

    def granted(self, name: str) -> Grant | None:
        """Return what the token with this name gives access to now, None if it is not valid."""
        return next((grant for grant in self._grants() if grant.name == name), None)

    async def create(
        self, *, scope: str = "admin", label: str = "", expires_at: datetime | None = None
    ) -> tuple[Token, str]:
        """Create a token, store its hash and return it with its secret. Raises InvalidRequest."""
        if scope not in SCOPES:
            raise InvalidRequest(f"{scope!r} is not a scope.", hint="Use `read` or `admin`.")
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidRequest("The expiry is in the past.")
        identifier = secrets.token_hex(ID_CHARACTERS // 2)
        secret = f"sel_{identifier}_{secrets.token_urlsafe(32)}"
        token = Token(
            id=identifier,
            digest=digest_of(secret),
            scope=cast("Scope", scope),
            label=label[:100],
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        await self._state.update(lambda kept: (*kept, token))
        note_undo(RevokeAgain(token.id))
        return token, secret

    async def listed(self) -> Sequence[Token]:
        """Return the tokens, oldest first, each with its last use."""
        return self._with_uses(_distinct(await self._state.load()))

    async def revoke(self, identifier: str, *, dry_run: bool = False) -> Token:
        """Delete a token and return it; `dry_run` only finds it. Raises TokenNotFound."""
        token = next((kept for kept in await self.listed() if kept.id == identifier), None)
        if token is None:
            raise TokenNotFound(f"There is no token {identifier!r}.")
        if not dry_run:
            await self._state.update(
                lambda tokens: tuple(kept for kept in tokens if kept.id != identifier)
            )
        return token

    async def _store_uses(self) -> None:
        """Store the last uses; a failure is logged, and tried again with a use an hour later."""
        try:
            await self._state.update(self._with_uses)
        except SelineError as error:
            pause_s = USE_STORED_AFTER.total_seconds()
            self._no_store_before_s = self._clock.monotonic() + pause_s
            _log.info("the last use of tokens is in memory only: %s", error.message)

    def _with_uses(self, tokens: Sequence[Token]) -> tuple[Token, ...]:
        return tuple(
            token if token.id not in self._used else replace(token, used_at=self._used[token.id])
            for token in tokens
        )

    def _grants(self) -> Sequence[Grant]:
        """Return what each valid token gives access to."""
        now = self._clock.now()
        return [grant for grant, until in self._table().grants if until is None or until > now]

    def _table(self) -> "_Table":
        """Return what follows from the stored tokens, computed once for each state of them."""
        if self._built.tokens is not self._state.value:
            self._built = _Table.of(self._state.value, self._admin)
        return self._built


class _Table(NamedTuple):
    """What follows from the stored tokens and the admin token, without their expiry."""

    tokens: Sequence[Token]
    grants: Sequence[tuple[Grant, datetime | None]]
    """Each with the instant of its expiry."""
    by_name: Mapping[str, Token]

    @classmethod
    def of(cls, tokens: Sequence[Token], admin: Grant | None) -> "_Table":
        distinct = _distinct(tokens)
        grants = [
            (Grant(name=name_of(token), scope=token.scope, digest=token.digest), token.expires_at)
            for token in distinct
        ]
        first = [] if admin is None else [(admin, None)]
        return cls(tokens, (*first, *grants), {name_of(token): token for token in distinct})


class Failures:
    """Counts the failed attempts of the last minute, per client and in total."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_client: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()

    def count(self, client: str) -> None:
        """Count one failure. Raises TooManyRequests over the limits."""
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


def name_of(token: Token) -> str:
    """Return what the audit log and the sessions call a token."""
    return f"token {token.id}"


def _distinct(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the tokens, of those with one id the first: an id names one token."""
    first: dict[str, Token] = {}
    for token in tokens:
        first.setdefault(token.id, token)
    return tuple(first.values())


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
