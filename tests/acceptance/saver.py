"""Saves without end and prints what was acknowledged; it is there to be killed.

`python saver.py DATA_DIR ROUND`: each line on stdout is `document revision-number`, written only
after the save returned. Documents count upwards; `left.json` and `right.json` move together.
"""

from __future__ import annotations

import asyncio
import os
import sys

from seline import open_seline
from seline.library import Seline

DOCUMENTS = 4


def say(document: str, number: int) -> None:
    os.write(1, f"{document} {number}\n".encode())


async def save(seline: Seline, document: str, number: int) -> None:
    while True:
        number += 1
        await seline.data.save_json(document, {"n": number, "filler": "x" * (number * 37 % 3000)})
        say(document, number)


async def move(seline: Seline, number: int) -> None:
    while True:
        number += 1
        async with seline.data.transaction("left.json", "right.json") as change:
            change["left.json"] = {"n": number}
            change["right.json"] = {"n": number}
        say("left.json", number)


async def main() -> None:
    async with open_seline(sys.argv[1], lock_wait_s=10) as seline:
        start = int(sys.argv[2])
        os.write(1, b"ready 0\n")
        await asyncio.gather(
            *(save(seline, f"d{number}.json", start) for number in range(DOCUMENTS)),
            move(seline, start),
        )


if __name__ == "__main__":
    asyncio.run(main())
