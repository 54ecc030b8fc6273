"""What the chat changes: restore, undo, and the export into the chat. Each returns a card."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial

from seline.chat.messages import LIMITS, Card, CardButton, SentFile
from seline.chat.views import Turn, preview
from seline.domain.undo import DeleteAgain, RestoreBack
from seline.errors import RevisionMismatch
from seline.manager.call_record import current_record
from seline.spool import Spool


async def restore(turn: Turn) -> Card:
    """Go back to a backup; if the document has changed since the preview, show another one."""
    return await _restore(turn, "chat.restored")


async def undo(turn: Turn) -> Card:
    """Go back to the content before a restore or a deletion, as `restore` does."""
    return await _restore(turn, "chat.undone")


async def _restore(turn: Turn, done: str) -> Card:
    _, name, backup, revision, *_ = turn.action
    info = await turn.find(name)
    current = (info.revision if info is not None else None) or ""
    if current != revision:
        card = await preview(turn, turn.texts("chat.changed_since"))
        return Card(text=card.text, buttons=card.buttons, outcome=RevisionMismatch.code)
    restored = await turn.seline.data.restore(name, backup)
    text = turn.texts(done, document=name, at=turn.instant(restored.taken_at))
    show = turn.button("chat.show", "contents", document=name)
    return Card(text=text, buttons=[*_undo_buttons(turn), show, turn.home])


def _undo_buttons(turn: Turn) -> Iterator[CardButton]:
    """Yield the button that takes back what this act has done; none if nothing can."""
    record = current_record()
    for way in () if record is None else record.undo():
        if isinstance(way, RestoreBack):
            document, backup, revision = way
            yield turn.button(
                "chat.undo", "undo", document=document, backup=backup, revision=revision or ""
            )
        elif isinstance(way, DeleteAgain):
            document, revision = way
            yield turn.button("chat.undo", "delete_again", document=document, revision=revision)


async def delete_again(turn: Turn) -> Card:
    """Delete a document that a restore brought back, unless it has changed since."""
    name = turn.action.document
    await turn.seline.data.delete(name, if_match=turn.action.revision)
    text = turn.texts("chat.deleted_again", document=name)
    return Card(text=text, buttons=[*_undo_buttons(turn), turn.home])


async def export_now(turn: Turn) -> Card:
    """Send every document and backup as one .tar, encrypted as other exports are."""
    t, limit = turn.texts, LIMITS[turn.request.service].file_bytes_max
    exports = turn.seline.exports
    data, name = io.BytesIO(), ""
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        async with aclosing(exports.files(exports.sealer)) as files:
            async for folder, file, spool in files:
                name = f"{folder}.tar"
                if data.tell() + spool.size_bytes > limit - 2 * tarfile.RECORDSIZE:
                    text = t("chat.too_large", limit=t.size(limit))
                    return Card(text=text, buttons=[turn.home], outcome="too_large")
                info = tarfile.TarInfo(f"{folder}/{file}")
                info.size, info.mode = spool.size_bytes, 0o600
                tar.addfile(info, io.BytesIO(await _read(turn, spool)))
    sent = SentFile(name, data.getvalue())
    text = t("chat.exported", file=name, size=t.size(len(sent.data)))
    return Card(text=text, buttons=[turn.home], file=sent)


async def _read(turn: Turn, spool: Spool) -> bytes:
    data = await turn.seline.store.reading(partial(spool.read, 0, spool.size_bytes))
    spool.close()
    return data
