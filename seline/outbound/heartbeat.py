"""The heartbeat: a GET request to a monitoring address after each successful integrity check.

The monitor raises the alarm if the request stays away, so a dead process is noticed as well.
"""

import asyncio
from typing import Final

import aiohttp

from seline.outbound.http_client import HttpRequest, deliver
from seline.ports.alerts import Delivery

ATTEMPTS: Final = 3
PAUSE_S: Final = 2.0


async def send_heartbeat(session: aiohttp.ClientSession, url: str) -> Delivery:
    """Send one heartbeat, in up to three attempts. Raises nothing.

    The address is a secret: who knows it can fake a heartbeat.
    """
    request = HttpRequest(url=url, secrets=(url,))
    delivery = await deliver(session, request, sink="heartbeat", kind="heartbeat")
    for failures in range(1, ATTEMPTS):
        if delivery.delivered:
            break
        await asyncio.sleep(PAUSE_S * failures)
        delivery = await deliver(session, request, sink="heartbeat", kind="heartbeat")
    return delivery
