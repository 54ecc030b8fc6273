"""Sinks in the settings: every kind and every mistake, and never a secret in an error text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from seline.domain.alerts.lifecycle import Severity
from seline.domain.alerts.sink_spec import (
    FIELDS_OF,
    NAME_CHARACTERS_MAX,
    SinkSpec,
    is_web_address,
    read_sinks,
)
from seline.errors import SettingsError
from seline.outbound.alert_sinks import ENCODERS
from seline.settings import Settings, load_settings, setting_names, shown

SECRET = "s3cret-0123456789"
URL = f"https://hooks.example/{SECRET}"
CHAT = "-1001234567890"
VALID: Mapping[str, dict[str, object]] = {
    "log": {"kind": "log"},
    "webhook": {"kind": "webhook", "url": URL, "token": SECRET},
    "telegram": {"kind": "telegram", "token": SECRET, "chat_id": CHAT},
    "discord": {"kind": "discord", "url": URL},
    "ntfy": {"kind": "ntfy", "url": URL, "token": SECRET},
}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_sink(kind: str, **fields: object) -> dict[str, object]:
    """Return a valid sink of a kind with some fields replaced; `...` removes one."""
    table = {**VALID[kind], **fields}
    return {key: value for key, value in table.items() if value is not ...}


def refusal(value: object) -> str:
    """Return the error text for invalid sinks; check that it contains no secret."""
    with pytest.raises(ValueError) as refused:
        read_sinks(value)
    text = str(refused.value)
    assert SECRET not in text
    assert CHAT not in text
    return text


# valid sinks


def test_every_kind_can_be_read_and_sent_to() -> None:
    assert set(VALID) == set(FIELDS_OF) == {"log", *ENCODERS}
    sinks = read_sinks(list(VALID.values()))
    assert [(sink.kind, sink.name) for sink in sinks] == [(kind, kind) for kind in VALID]
    assert {sink.min_severity for sink in sinks} == {Severity.INFO}


def test_a_sink_has_the_given_fields() -> None:
    [sink] = read_sinks([a_sink("webhook", name=" phone ", min_severity="Critical")])

    assert sink == SinkSpec(
        kind="webhook", name="phone", min_severity=Severity.CRITICAL, url=URL, token=SECRET
    )


@pytest.mark.parametrize("given", [CHAT, int(CHAT), f" {CHAT} ", "@my_channel"])
def test_a_chat_id_is_text_or_a_number(given: object) -> None:
    [sink] = read_sinks([a_sink("telegram", chat_id=given)])

    assert sink.chat_id == str(given).strip()


def test_json_text_and_tables_are_read_alike() -> None:
    tables = list(VALID.values())

    assert read_sinks(json.dumps(tables)) == read_sinks(tables) == read_sinks(read_sinks(tables))
    assert read_sinks("[]") == read_sinks([]) == ()


def test_null_is_the_same_as_a_missing_field() -> None:
    nothing = {"name": None, "min_severity": None, "token": None}

    assert read_sinks([a_sink("ntfy", **nothing)]) == read_sinks([a_sink("ntfy", token=...)])


def test_two_sinks_of_one_kind_need_different_names() -> None:
    assert "two sinks are called webhook" in refusal([a_sink("webhook"), a_sink("webhook")])
    assert "`name`" in refusal([a_sink("log", name="a"), a_sink("ntfy", name="a")])
    assert len(read_sinks([a_sink("webhook"), a_sink("webhook", name="second")])) == 2


# invalid sinks


@pytest.mark.parametrize("value", [None, 3, {"kind": "log"}, True, '{"kind": "log"}', "3"])
def test_a_value_that_is_no_list_is_refused(value: object) -> None:
    assert "no list of tables" in refusal(value)


@pytest.mark.parametrize("text", ["", "log", f"[{{{SECRET}", f'["{SECRET}"'])
def test_a_text_that_is_no_json_is_refused_without_repeating_it(text: str) -> None:
    assert refusal(text) == "it is no JSON list"


@pytest.mark.parametrize("item", [SECRET, None, 3, [], [SECRET]])
def test_an_item_that_is_no_table_is_named_by_its_number(item: object) -> None:
    assert refusal([VALID["log"], item]) == "sink 2 is no table"


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        (kind, field)
        for kind, fields in FIELDS_OF.items()
        for field in sorted(fields)
        if fields[field]
    ],
)
def test_a_missing_field_is_named(kind: str, missing: str) -> None:
    for absent in (..., None):
        text = refusal([VALID["log"], a_sink(kind, **{missing: absent})])
        assert text == f"sink 2: a {kind} sink needs {missing}"


@pytest.mark.parametrize("kind", FIELDS_OF)
def test_an_unknown_field_is_named(kind: str) -> None:
    assert refusal([a_sink(kind, tokn=SECRET)]) == f"sink 1: a {kind} sink does not know tokn"


@pytest.mark.parametrize("kind", FIELDS_OF)
def test_every_field_of_a_kind_is_accepted_and_every_other_refused(kind: str) -> None:
    for field in ("url", "token", "chat_id"):
        table = a_sink(kind, **{field: URL if field == "url" else SECRET})
        if field in FIELDS_OF[kind]:
            assert getattr(read_sinks([table])[0], field)
        else:
            assert f"does not know {field}" in refusal([table])


@pytest.mark.parametrize("kind", [None, "", "  ", "email", True, [], {}])
def test_an_unknown_kind_is_refused_with_the_known_kinds(kind: object) -> None:
    text = refusal([{"kind": kind, "url": URL}])

    assert text.startswith("sink 1: ")
    assert "`kind` is text" in text or all(known in text for known in FIELDS_OF)


@pytest.mark.parametrize("severity", ["loud", "", 3, True, []])
def test_a_wrong_severity_is_refused_with_the_known_ones(severity: object) -> None:
    text = refusal([a_sink("log", min_severity=severity)])

    assert text == "sink 1: `min_severity` is one of info, warning, critical"


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"hooks.example/{SECRET}",
        f"ftp://hooks.example/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"https://hooks.example:0/{SECRET}",
        f"https://hooks.example:99999/{SECRET}",
        f"https://[hooks/{SECRET}",
        f"https://hooks.example/{SECRET} x",
        f"https://hooks.example/{SECRET}\nx",
        f"https://hooks.example/\x00{SECRET}",
    ],
)
def test_a_wrong_address_is_refused_with_how_one_begins(url: str) -> None:
    assert not is_web_address(url)
    text = refusal([VALID["log"], a_sink("discord", url=url)])

    assert text == "sink 2: `url` is an address that begins with https:// or http://"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "https://user:pass@hooks.example", "http://[::1]:80/a?b=c#d"]
)
def test_a_valid_address_is_kept_as_it_is(url: str) -> None:
    assert read_sinks([a_sink("webhook", url=url)])[0].url == url


@pytest.mark.parametrize("field", ["token", "chat_id"])
@pytest.mark.parametrize("value", [f"{SECRET} x", f"{SECRET}\nx", f"é{SECRET}", f"{SECRET}/x"])
def test_a_secret_with_impossible_characters_is_named_and_not_shown(field: str, value: str) -> None:
    text = refusal([a_sink("telegram", **{field: value})])

    assert text == f"sink 1: `{field}` holds characters that none has"


@pytest.mark.parametrize("field", ["url", "token", "chat_id", "name"])
@pytest.mark.parametrize("value", ["", "  ", True, 1.5, [SECRET], {"a": SECRET}])
def test_a_value_that_is_no_text_is_named_and_not_shown(field: str, value: object) -> None:
    table = a_sink("telegram", **{field: value})

    assert refusal([table]) == f"sink 1: `{field}` is text"


@pytest.mark.parametrize("name", ["x" * (NAME_CHARACTERS_MAX + 1), "a\nb", "a\x00b"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    assert "`name` is up to 40 plain characters" in refusal([a_sink("log", name=name)])


def test_the_text_of_a_sink_contains_no_secret() -> None:
    for sink in read_sinks(list(VALID.values())):
        for shown_sink in (str(sink), repr(sink)):
            assert SECRET not in shown_sink
            assert CHAT not in shown_sink
        assert str(sink) == f"{sink.name} ({sink.kind}, from info)"


# through the settings


def load(**environ: str) -> Settings:
    return load_settings(environ={f"SELINE_ALERTS__{name}": text for name, text in environ.items()})


def settings_refusal(**environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load(**environ)
    error = refused.value
    for text in (error.message, error.hint, str(error), repr(error.details)):
        assert SECRET not in text
    return error


def everywhere(settings: Settings) -> str:
    """Return everything that the settings show."""
    return repr(settings) + repr([shown(settings, name) for name in setting_names()])


def test_the_default_is_no_sinks() -> None:
    alerts = load().alerts

    assert (alerts.sinks, alerts.heartbeat_url) == ((), None)


def test_the_environment_gives_sinks_as_json() -> None:
    settings = load(SINKS=json.dumps(list(VALID.values())))

    assert settings.alerts.sinks == read_sinks(list(VALID.values()))
    assert settings.origins["alerts.sinks"] == "environment SELINE_ALERTS__SINKS"


def test_a_file_gives_sinks_as_tables(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        f'[[alerts.sinks]]\nkind = "telegram"\ntoken = "{SECRET}"\nchat_id = {CHAT}\n'
        '[[alerts.sinks]]\nkind = "log"\nmin_severity = "warning"\n'
    )

    sinks = load_settings(config=str(file), environ={}).alerts.sinks

    assert [str(sink) for sink in sinks] == [
        "telegram (telegram, from info)", "log (log, from warning)"
    ]  # fmt: skip
    assert sinks[0].chat_id == CHAT


def test_sinks_and_the_heartbeat_can_come_from_files(tmp_path: Path) -> None:
    sinks, heartbeat = tmp_path / "sinks.json", tmp_path / "heartbeat"
    sinks.write_text(json.dumps([VALID["discord"]]) + "\n")
    heartbeat.write_text(URL + "\n")

    settings = load(SINKS_FILE=str(sinks), HEARTBEAT_URL_FILE=str(heartbeat))

    assert settings.alerts.sinks == read_sinks([VALID["discord"]])
    assert settings.alerts.heartbeat_url == URL
    assert settings.origins["alerts.sinks"] == "environment SELINE_ALERTS__SINKS_FILE"


def test_secrets_are_never_shown() -> None:
    settings = load(SINKS=json.dumps(list(VALID.values())), HEARTBEAT_URL=URL)

    assert SECRET not in everywhere(settings)
    assert CHAT not in everywhere(settings)
    assert shown(settings, "alerts.heartbeat_url") == "********"
    assert shown(settings, "alerts.sinks") == tuple(f"{kind} ({kind}, from info)" for kind in VALID)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (a_sink("webhook", url=f"hooks.example/{SECRET}"), "sink 1: `url` is an address"),
        (a_sink("telegram", chat_id=...), "sink 1: a telegram sink needs chat_id"),
        (a_sink("telegram", token=f"{SECRET} "), ""),
        (a_sink("ntfy", chat_id=SECRET), "sink 1: a ntfy sink does not know chat_id"),
        ({"kind": "email", "url": URL}, "sink 1: there is no kind 'email'"),
    ],
)
def test_an_invalid_sink_is_refused_at_the_start_with_the_reason(
    table: dict[str, Any], why: str
) -> None:
    text = json.dumps([table])
    if not why:
        assert load(SINKS=text).alerts.sinks[0].token == SECRET
        return

    error = settings_refusal(SINKS=text)

    assert why in error.message
    assert "environment SELINE_ALERTS__SINKS" in error.message
    assert all(kind in error.hint for kind in FIELDS_OF)


@pytest.mark.parametrize("text", [f"[{{{SECRET}", SECRET, json.dumps({"kind": "log", "a": SECRET})])
def test_an_invalid_list_is_not_repeated(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sinks.json"
    file.write_text(text)

    for error in (settings_refusal(SINKS=text), settings_refusal(SINKS_FILE=str(file))):
        assert "the value given" in error.message
        assert error.details["field"] == "alerts.sinks"


def test_a_missing_file_of_sinks_is_named(tmp_path: Path) -> None:
    error = settings_refusal(SINKS_FILE=str(tmp_path / "none.json"))

    assert "none.json" in error.message


@pytest.mark.parametrize("address", [SECRET, f"ping.example/{SECRET}", f"ftp://ping/{SECRET}"])
def test_an_invalid_heartbeat_is_refused_without_showing_it(address: str) -> None:
    error = settings_refusal(HEARTBEAT_URL=address)

    assert "alerts.heartbeat_url" in error.message
    assert "https://" in error.hint


@pytest.mark.parametrize(
    ("name", "text", "cure"),
    [("LANGUAGE", "de", "'fr'"), ("RENOTIFY_H", "0", "from 0.1"), ("RENOTIFY_H", "often", "hours")],
)
def test_the_other_alert_settings_are_refused_with_what_is_allowed(
    name: str, text: str, cure: str
) -> None:
    assert cure in settings_refusal(**{name: text}).message
