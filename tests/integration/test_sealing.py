"""Test encryption: what was sealed is opened by its key alone, by Seline and by the program age."""

import itertools
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seline.domain.manifest import KEY_NAME
from seline.errors import ExportDamaged, KeyMissing, SelineError, SettingsError
from seline.outbound.passphrase_key import identity_of
from seline.outbound.sealing import AgeSealer, identities_in, new_key, sealer_of

PASSPHRASE = "correct horse battery staple"
TRIES = 5
DATA = os.urandom(200_000)
"""Four of age's chunks."""


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_a_sealed_file_is_opened_by_its_identity(data: bytes) -> None:
    key = new_key()
    sealed = AgeSealer([key.recipient]).seal(data)

    assert sealed.startswith(b"age-encryption.org/v1\n")
    assert AgeSealer(identities=[key.identity]).open(sealed) == data


def test_a_sealed_file_is_opened_by_each_of_its_keys() -> None:
    first, second = new_key(), new_key()
    sealer = AgeSealer([first.recipient, second.recipient], PASSPHRASE)
    sealed = sealer.seal(DATA)

    assert sealer.open(sealed) == DATA
    assert AgeSealer(passphrase=PASSPHRASE).open(sealed) == DATA
    for key in (first, second):
        assert AgeSealer(identities=[new_key().identity, key.identity]).open(sealed) == DATA


def test_another_key_opens_nothing() -> None:
    sealed = AgeSealer([new_key().recipient], PASSPHRASE).seal(DATA)
    others = [
        AgeSealer([new_key().recipient]),
        AgeSealer(identities=[new_key().identity]),
        AgeSealer(passphrase=f"{PASSPHRASE}."),
    ]

    assert [other.can_open for other in others] == [False, True, True]
    for other in others:
        with pytest.raises(KeyMissing):
            other.open(sealed)


@pytest.mark.parametrize("size_bytes", [0, 5, 150, 300, 70_000, len(DATA)])
def test_a_file_that_was_cut_off_is_damaged(size_bytes: int) -> None:
    sealer = AgeSealer(passphrase=PASSPHRASE)

    with pytest.raises(ExportDamaged):
        sealer.open(sealer.seal(DATA)[:size_bytes])


def test_a_file_with_another_byte_is_never_opened() -> None:
    sealer = AgeSealer(passphrase=PASSPHRASE)
    sealed = sealer.seal(DATA)

    for place in (0, 30, 60, 150, 200, 1000, 70_000, len(sealed) - 1):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises((ExportDamaged, KeyMissing)):
            sealer.open(bytes(altered))


def test_without_a_key_in_the_settings_nothing_is_changed() -> None:
    sealer = sealer_of((), "")

    assert (sealer.suffix, sealer.can_open, sealer.key_file()) == ("", True, b"")
    assert sealer.open(sealer.seal(DATA)) == DATA
    assert sealer.seal(DATA) == DATA


def test_a_passphrase_gives_the_same_identity_in_every_version() -> None:
    """What older versions have encrypted depends on it: it must never change."""
    assert identity_of(PASSPHRASE) == (
        "AGE-SECRET-KEY-1FSPA4ZJMHPMFDVV2UXPF7CMRX47JLQ6SXVLWWEQHTZ2AGK7S09NQXQG7GG"
    )


def test_the_key_file_gives_the_identity_for_the_passphrase_alone() -> None:
    import pyrage

    sealer = AgeSealer([new_key().recipient], PASSPHRASE)
    key = sealer.key_file()

    identity = pyrage.passphrase.decrypt(key, PASSPHRASE).decode()
    assert AgeSealer(identities=[identity.strip()]).open(sealer.seal(DATA)) == DATA
    with pytest.raises(pyrage.DecryptError):
        pyrage.passphrase.decrypt(key, f"{PASSPHRASE}.")
    assert AgeSealer([new_key().recipient]).key_file() == b""


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)

    with pytest.raises(SettingsError, match="pyrage is not installed") as raised:
        sealer_of((), PASSPHRASE)

    assert "pip install 'seline[age]'" in raised.value.hint


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "key.txt").write_text("my own words")
    errors: list[SelineError] = []
    for attempt in (
        lambda: AgeSealer([key.identity]),
        lambda: AgeSealer(identities=[key.identity[:-1]]),
        lambda: AgeSealer(passphrase=PASSPHRASE).open(b"my own words"),
        lambda: identities_in(str(tmp_path / "key.txt")),
    ):
        with pytest.raises(SelineError) as raised:
            attempt()
        errors.append(raised.value)

    texts = " ".join(f"{error.message} {error.hint}" for error in errors)
    assert not [secret for secret in (key.identity[20:], PASSPHRASE, "my own") if secret in texts]


def longest_pause(work: Callable[[], object]) -> float:
    """Return for which share of a call another thread ran no Python at most.

    It is the least of several tries: on a busy machine the other thread may get no processor.
    """
    return min(_longest_pause(work) for _ in range(TRIES))


def _longest_pause(work: Callable[[], object]) -> float:
    turns: list[float] = []
    is_done = False

    def count() -> None:
        while not is_done:
            turns.append(time.perf_counter())
            time.sleep(0)

    other = threading.Thread(target=count)
    other.start()
    began = time.perf_counter()
    work()
    ended, is_done = time.perf_counter(), True
    other.join()
    during = [began, *(turn for turn in turns if began < turn < ended), ended]
    return max(later - turn for turn, later in itertools.pairwise(during)) / (ended - began)


def test_other_threads_run_while_a_file_is_sealed_and_opened() -> None:
    """pyrage holds the interpreter from the beginning of a file to its end."""
    import pyrage

    data = bytes(8 << 20)
    key = new_key()
    sealer = AgeSealer([key.recipient], identities=[key.identity])
    sealed = sealer.seal(data)
    recipient = pyrage.x25519.Recipient.from_str(key.recipient)

    assert longest_pause(lambda: sealer.seal(data)) < 0.5
    assert longest_pause(lambda: sealer.open(sealed)) < 0.5
    assert longest_pause(lambda: pyrage.encrypt(data, [recipient])) > 0.5


@pytest.mark.prove
def test_300_mb_are_sealed_and_opened_in_bounded_memory() -> None:
    """Seal and open packs of 16 MiB in a process of its own; print the longest wait beside it."""
    code = """
import os, re, threading, time
from seline.outbound.sealing import AgeSealer
waits, is_done = [], False
def kib(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", open("/proc/self/status").read())[1])
def beat():
    while not is_done:
        before = time.perf_counter()
        time.sleep(0.001)
        waits.append(time.perf_counter() - before)
sealer, pack = AgeSealer(passphrase="correct horse battery staple"), os.urandom(16 << 20)
before = kib("VmRSS")
other = threading.Thread(target=beat)
other.start()
for _ in range(19):
    assert sealer.open(sealer.seal(pack)) == pack
is_done = True
other.join()
print(kib("VmHWM") - before, max(waits) * 1000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )

    kib, longest_ms = map(float, done.stdout.split())
    print(f"sealing and opening 300 MB: {kib / 1024:.0f} MiB, longest wait {longest_ms:.0f} ms")
    assert kib <= 96 << 10


# the program age


def age(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        ["age", *arguments], input=stdin, capture_output=True, check=True, timeout=60
    ).stdout


@pytest.mark.prove
@pytest.mark.usefixtures("installed")
def test_the_program_age_opens_what_seline_sealed_and_the_reverse(tmp_path: Path) -> None:
    key = new_key()
    file = tmp_path / "key.txt"
    file.write_text(f"# created by a test\n{key.identity}\n")
    sealer = AgeSealer([key.recipient], identities=identities_in(str(file)))

    assert age("-d", "-i", str(file), stdin=sealer.seal(DATA)) == DATA
    assert sealer.open(age("-r", key.recipient, stdin=DATA)) == DATA


@pytest.mark.prove
@pytest.mark.usefixtures("installed")
def test_the_key_of_age_keygen_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", str(file)], check=True, timeout=60, capture_output=True)
    [identity] = identities_in(str(file))
    recipient = re.search(r"age1\w+", file.read_text())
    assert recipient is not None

    assert AgeSealer(identities=[identity]).open(AgeSealer([recipient[0]]).seal(DATA)) == DATA


@pytest.mark.prove
@pytest.mark.usefixtures("installed")
def test_the_program_age_opens_the_key_file_with_the_passphrase(tmp_path: Path) -> None:
    sealer = AgeSealer(passphrase=PASSPHRASE)
    (tmp_path / KEY_NAME).write_bytes(sealer.key_file())

    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execvp("age", ["age", "-d", "-o", "key.txt", KEY_NAME])
    assert b"passphrase" in os.read(terminal, 1000)
    os.write(terminal, PASSPHRASE.encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert status == 0
    assert age("-d", "-i", str(tmp_path / "key.txt"), stdin=sealer.seal(DATA)) == DATA
