"""Saves without end and says what was acknowledged; it is there to be killed.

Each message is `document number`, sent only after the save returned. Documents count upwards;
`left.json` and `right.json` move together.
"""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from seline import open_seline
from seline.library import Seline

DOCUMENTS = 4


def run(data_dir: str, start: int, told: Connection) -> None:
    """Open the volume, say `ready 0`, and save until killed."""
    asyncio.run(_run(data_dir, start, told))


async def _run(data_dir: str, start: int, told: Connection) -> None:
    async with open_seline(data_dir, lock_wait_s=10) as seline:
        told.send(("ready", 0))
        await asyncio.gather(
            *(_save(seline, f"d{number}.json", start, told) for number in range(DOCUMENTS)),
            _move(seline, start, told),
        )


async def _save(seline: Seline, document: str, number: int, told: Connection) -> None:
    while True:
        number += 1
        await seline.data.save_json(document, {"n": number, "filler": "x" * (number * 37 % 3000)})
        told.send((document, number))


async def _move(seline: Seline, number: int, told: Connection) -> None:
    while True:
        number += 1
        async with seline.data.transaction("left.json", "right.json") as change:
            change["left.json"] = {"n": number}
            change["right.json"] = {"n": number}
        told.send(("left.json", number))
