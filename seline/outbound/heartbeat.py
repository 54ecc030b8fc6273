"""A sign of life: an address that is asked for after a verified cycle only.

Whoever listens there (a dead man's switch) raises the alarm when the sign stays away: so a process
that is gone, or a check that no longer runs, is noticed too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from seline.outbound.http_client import Recipient, ping
from seline.ports.alerts import Delivery

ATTEMPTS: Final = 3
PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Gives signs of life. The address is a secret: who knows it can pretend."""

    session: aiohttp.ClientSession = field(repr=False)
    url: str = field(repr=False)
    pause_s: float = PAUSE_S

    async def beat(self) -> Delivery:
        """Give one sign, in up to three attempts. Raises nothing."""
        delivery = await self._attempt()
        for number in range(1, ATTEMPTS):
            if delivery.delivered:
                break
            await asyncio.sleep(self.pause_s * number)
            delivery = await self._attempt()
        return delivery

    async def _attempt(self) -> Delivery:
        envelope = Recipient(sink="heartbeat", kind="heartbeat", secrets=(self.url,))
        return await ping(self.session, self.url, envelope)
