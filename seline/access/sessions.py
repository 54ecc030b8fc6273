"""Sessions of the page: kept as digests, bound to the token that they were made from.

The cookie has a secret of 256 bits; only its SHA-256 is stored, in `.seline/sessions.json`. So a
restart keeps the sessions, and who reads the file cannot use one. A session ends with its token,
after IDLE_MAX without use, after AGE_MAX in any case, and when a person ends it.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from seline.access.tokens import Grant, Scope, Tokens, digest_of
from seline.clock import Clock
from seline.domain.stored import Stored
from seline.errors import SelineError
from seline.manager import ManagedStore
from seline.manager.state import State

IDLE_MAX: Final = timedelta(hours=12)
AGE_MAX: Final = timedelta(days=7)
SESSIONS_MAX: Final = 50
USE_STORED_AFTER: Final = timedelta(minutes=10)
"""How old the stored instant of the last use may be: not every request writes to the disk."""
ONCE_VALID: Final = timedelta(minutes=15)
ONE_TIME_LINK: Final = "one-time link"
_log = logging.getLogger("seline.access")
_Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Session(Stored, frozen=True, kw_only=True):
    """A stored session. `digest` is of the cookie's secret, which is not stored.

    `source` names the token that it was made from; `binding` is a digest of both secrets, so a
    token of the same name with another secret does not keep the session.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    digest: _Digest
    binding: _Digest
    source: str
    scope: Scope
    created_at: datetime
    used_at: datetime


_Kept: TypeAlias = tuple[Session, ...]


class Sessions:
    """The sessions of one store."""

    def __init__(self, store: ManagedStore, tokens: Tokens) -> None:
        """Keep the sessions in `store`. Until `load` there is none."""
        self._tokens = tokens
        self._clock = store.clock
        self._state: State[_Kept] = store.state(
            "sessions.json", _Kept, tuple, field="sessions", entry=Session
        )
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read the stored sessions. This never raises for what cannot be read."""
        await self._state.load()

    @property
    def has_any(self) -> bool:
        """Whether a session is valid."""
        return bool(self.listed())

    def listed(self) -> Sequence[Session]:
        """Return the sessions that are valid, the one that was used last first."""
        now = self._clock.now()
        valid = [session for session in self._state.value if self._lasts(session, now)]
        return sorted(valid, key=lambda session: session.used_at, reverse=True)

    async def create(self, grant: Grant) -> tuple[Session, str]:
        """Start a session; return it with the secret for its cookie.

        Where nothing can be written, it lasts until the process ends.
        """
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        session = Session(
            id=secrets.token_hex(4),
            digest=digest_of(secret),
            binding=_binding(secret, grant),
            source=grant.name,
            scope=grant.scope,
            created_at=now,
            used_at=now,
        )
        await self._update(lambda kept: (*kept, session))
        return session, secret

    async def find(self, secret: str, *, is_use: bool = True) -> Session | None:
        """Return the session of a cookie, None if it is not valid (any more).

        `is_use`: note this as its last use, and as one of its token.
        """
        now, digest = self._clock.now(), digest_of(secret)
        found = None
        for session in self._state.value:
            if hmac.compare_digest(session.digest, digest) and self._lasts(session, now):
                found = session
        if found is None:
            return None
        grant = self._grant_of(found)
        if grant is None or not hmac.compare_digest(found.binding, _binding(secret, grant)):
            return None
        if is_use:
            self._tokens.note_use(grant)
        if is_use and now - found.used_at > USE_STORED_AFTER:
            used = found = replace(found, used_at=now)
            await self._update(
                lambda kept: tuple(used if each.id == used.id else each for each in kept)
            )
        return found if found.scope == grant.scope else replace(found, scope=grant.scope)

    async def end(self, identifier: str) -> None:
        """End a session; do nothing if it has ended."""
        await self._update(lambda kept: tuple(each for each in kept if each.id != identifier))

    def _lasts(self, session: Session, now: datetime) -> bool:
        is_young = now - session.created_at < AGE_MAX and now - session.used_at < IDLE_MAX
        return is_young and self._grant_of(session) is not None

    def _grant_of(self, session: Session) -> Grant | None:
        if session.source == ONE_TIME_LINK:
            return _ONCE
        return self._tokens.granted(session.source)

    async def _update(self, function: Callable[[_Kept], _Kept]) -> None:
        """Apply a function, and remove what has ended and what is over SESSIONS_MAX."""

        def bounded(kept: _Kept) -> _Kept:
            now = self._clock.now()
            valid = [each for each in function(kept) if self._lasts(each, now)]
            newest = sorted(valid, key=lambda each: each.used_at)[-SESSIONS_MAX:]
            return tuple(newest)

        async with self._lock:
            try:
                await self._state.update(bounded, always=True)
            except SelineError as error:
                self._state.value = bounded(self._state.value)
                _log.warning(
                    "the sessions of the page are kept in memory only, until the process ends: %s",
                    error.message,
                )


_ONCE: Final = Grant(name=ONE_TIME_LINK, scope="admin", digest="")
"""What a one-time link gives access to."""


class OneTimeLink:
    """The code of one link that signs in once, within ONCE_VALID. It is kept in memory only."""

    def __init__(self, clock: Clock) -> None:
        """Make no code yet."""
        self._clock = clock
        self._digest = ""
        self._valid_until_s = 0.0

    def make(self) -> str:
        """Return a new code; an older one is not valid any more."""
        code = secrets.token_urlsafe(32)
        self._digest = digest_of(code)
        self._valid_until_s = self._clock.monotonic() + ONCE_VALID.total_seconds()
        return code

    def use(self, code: str) -> Grant | None:
        """Return what the code gives access to, once; None for any other code."""
        is_right = hmac.compare_digest(digest_of(code), self._digest)
        if not is_right or self._clock.monotonic() >= self._valid_until_s:
            return None
        self._digest = ""
        return _ONCE


def _binding(secret: str, grant: Grant) -> str:
    return hmac.new(secret.encode(), grant.digest.encode(), hashlib.sha256).hexdigest()
