"""Test the index of backups: what needs every backup holds up no change."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from seline.domain.document import BOT, bot_document
from seline.pacing import DOCUMENTS
from seline.storage.volume import backup_index
from tests.contract.saving import put
from tests.stores import open_store

SOON_S = 10.0


def test_a_change_does_not_wait_until_every_backup_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bot_document(f"{number}.json") for number in range(3)]
    store = open_store(tmp_path)
    for key in (*keys, *keys):
        put(store, key, "text")
        put(store, key, "another")
    store.close()
    store = open_store(tmp_path)

    def paced(documents: Iterable[str], every: int) -> Iterator[str]:
        for document in documents:
            yield document
            changing = threading.Thread(target=put, args=(store, keys[0], document))
            changing.start()
            changing.join(SOON_S)
            assert not changing.is_alive()
            done.append(every)

    done: list[int] = []
    monkeypatch.setattr(backup_index, "paced", paced)
    try:
        assert store.current_documents.backup_index(BOT).foreign_count() == 0
        assert done == [DOCUMENTS] * len(keys)
    finally:
        store.close()
