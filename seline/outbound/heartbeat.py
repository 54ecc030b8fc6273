"""The heartbeat: a GET request to a monitoring address after each successful integrity check.

The monitor raises the alarm if the request stays away, so a dead process is noticed as well.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from seline.outbound.http_client import HttpRequest, deliver
from seline.ports.alerts import Delivery

ATTEMPTS: Final = 3
PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Sends heartbeats. The address is a secret: who knows it can fake a heartbeat."""

    session: aiohttp.ClientSession = field(repr=False)
    url: str = field(repr=False)
    pause_s: float = PAUSE_S

    async def send(self) -> Delivery:
        """Send one heartbeat, in up to three attempts. Raises nothing."""
        delivery = await self._attempt()
        for number in range(1, ATTEMPTS):
            if delivery.delivered:
                break
            await asyncio.sleep(self.pause_s * number)
            delivery = await self._attempt()
        return delivery

    async def _attempt(self) -> Delivery:
        request = HttpRequest(url=self.url, secrets=(self.url,))
        return await deliver(self.session, request, sink="heartbeat", kind="heartbeat")
