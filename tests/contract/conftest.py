"""The stores and the documents of the contract tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from seline.domain.document import BOT, DocumentKey
from seline.ports.store import DocumentStore
from tests.clocks import FakeClock
from tests.contract.memory_store import MemoryStore
from tests.stores import open_store


@pytest.fixture(params=["memory", "volume"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[DocumentStore]:
    opened: DocumentStore
    if request.param == "memory":
        opened = MemoryStore(clock=clock)
    else:
        opened = open_store(tmp_path, clock, strict=True)
    yield opened
    opened.close()


@pytest.fixture(params=[BOT, "alice"], ids=["the bot's space", "a space of its own"])
def key(request: pytest.FixtureRequest) -> DocumentKey:
    return DocumentKey(request.param, "user_profile.json")


@pytest.fixture
def other(key: DocumentKey) -> DocumentKey:
    """A second document of the same space."""
    return key._replace(name="lessons_learned.json")
