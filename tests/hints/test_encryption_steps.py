"""The next steps of encryption: each is done as it is printed, and then the file is read."""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from seline.errors import KeyMissing, SettingsError
from seline.outbound.sealing import AgeSealer, identities_in, new_key, sealer_of
from tests.docs.blocks import ROOT
from tests.hints.following import Step

Follow = Callable[[str], Step]


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
    sealed = AgeSealer([key.recipient], "correct horse battery staple").seal(b"{}")
    with pytest.raises(KeyMissing) as raised:
        AgeSealer([key.recipient]).open(sealed)
    step = follow(raised.value.hint)

    step.asks("--identity key.txt", "`exports.passphrase`")
    assert AgeSealer(identities=identities_in(str(tmp_path / "key.txt"))).open(sealed) == b"{}"
    assert AgeSealer(passphrase="correct horse battery staple").open(sealed) == b"{}"


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

    file.write_bytes(AgeSealer(passphrase="correct horse battery staple").key_file())
    with pytest.raises(SettingsError) as raised:
        identities_in(str(file))
    [command] = follow(raised.value.hint).quoted
    assert command.split() == ["age", "-d", "-o", "key.txt", str(file)]
