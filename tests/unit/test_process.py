"""The end of the server's process."""

import logging
import os

import pytest

from seline.server.process import force_exit
from tests.faults.injection import refuse_threads


def test_the_process_ends_at_once_where_no_thread_can_wait_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    refuse_threads(monkeypatch, "")

    force_exit(0)

    assert codes == [0]
