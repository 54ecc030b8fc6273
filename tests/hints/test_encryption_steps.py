"""The next steps of encryption: each is done as it is printed, and then the file is read."""

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from seline.errors import KeyMissing, SettingsError
from seline.outbound.sealing import AgeSealer, identities_in, new_key, sealer_of
from tests.command_line import Line
from tests.docs.blocks import ROOT
from tests.hints.following import Step

Follow = Callable[[str], Step]
PASSPHRASE = "correct horse battery staple"


@pytest.mark.follows("outbound/extra:_missing")
def test_a_missing_library_comes_with_the_extra_that_is_named(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(SettingsError) as raised:
        sealer_of([new_key.__name__], "")
    [install] = follow(raised.value.hint).quoted

    extra = re.fullmatch(r"pip install 'seline\[(\w+)\]'", install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra is not None
    libraries = project["optional-dependencies"][extra[1]]
    assert raised.value.message.partition(" ")[0] in " ".join(libraries)


@pytest.mark.follows("error:key_missing")
def test_an_encrypted_copy_is_opened_with_the_key_that_is_asked_for(
    follow: Follow, tmp_path: Path
) -> None:
    key = new_key()
    (tmp_path / "key.txt").write_text(f"{key.identity}\n")
    sealed = AgeSealer([key.recipient], PASSPHRASE).seal(b"{}")
    with pytest.raises(KeyMissing) as raised:
        AgeSealer([key.recipient]).open(sealed)
    step = follow(raised.value.hint)

    step.asks("--identity key.txt", "`exports.passphrase`")
    assert AgeSealer(identities=identities_in(str(tmp_path / "key.txt"))).open(sealed) == b"{}"
    assert AgeSealer(passphrase=PASSPHRASE).open(sealed) == b"{}"


@pytest.mark.follows(
    "outbound/sealing:_recipient",
    "outbound/sealing:_identity",
    "outbound/sealing:identities_in",
    "outbound/sealing:identities_in#2",
)
def test_a_wrong_key_is_replaced_by_the_one_that_is_asked_for(
    follow: Follow, tmp_path: Path
) -> None:
    key, file = new_key(), tmp_path / "key.txt"
    with pytest.raises(SettingsError) as raised:
        AgeSealer([key.recipient[:-1]])
    follow(raised.value.hint).asks("the recipient age1…")
    AgeSealer([key.recipient])

    with pytest.raises(SettingsError) as raised:
        AgeSealer(identities=[key.identity[:-1]])
    follow(raised.value.hint).asks("the whole line that begins with AGE-SECRET-KEY-1")
    AgeSealer(identities=[key.identity])

    file.write_text(key.recipient)
    with pytest.raises(SettingsError) as raised:
        identities_in(str(file))
    follow(raised.value.hint).asks("`seline key new`")
    file.write_text(f"# public key: {key.recipient}\n{key.identity}\n")
    assert identities_in(str(file)) == [key.identity]

    file.write_bytes(AgeSealer(passphrase=PASSPHRASE).key_file())
    with pytest.raises(SettingsError) as raised:
        identities_in(str(file))
    [command] = follow(raised.value.hint).quoted
    assert command.split() == ["age", "-d", "-o", "key.txt", str(file)]


@pytest.mark.follows("cli/keys:new")
def test_a_new_key_is_set_as_it_is_printed_and_then_reads_the_export(
    line: Line, follow: Follow
) -> None:
    made = line("key", "new", "--output", "key.txt")
    setting = follow(next_of_notice(made.err)).settings()
    nas = [{"name": "nas", "url": f"file://{line.folder}/nas", "same_disk": True}]
    to_nas = {"SELINE_EXPORTS__DESTINATIONS": json.dumps(nas)}
    line("save", "a.json", stdin="[1]")

    assert line("jobs", "run", "export", **setting, **to_nas).code == 0
    assert line("import", "nas", "--yes").code == 8
    assert line("import", "nas", "--yes", "--identity", "key.txt").code == 0


def next_of_notice(text: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith("Next: ")]
    return found
