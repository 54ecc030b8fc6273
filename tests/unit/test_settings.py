"""Settings: the order of their sources, the origin of each value, and the errors."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from seline.errors import SettingsError
from seline.settings import SECRETS, Settings, load_settings, setting_names, shown
from seline.settings.values import SECTIONS

TOML = Path(__file__).parents[2] / "config" / "seline.toml"


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(environ: Mapping[str, str] | None = None, **arguments: object) -> Settings:
    named = {name.replace("__", "."): value for name, value in arguments.items()}
    return load_settings(environ=environ or {}, arguments=named)


def test_the_defaults_need_no_input() -> None:
    settings = load()
    assert settings.data_dir == "./data"
    assert settings.bind == ("127.0.0.1", 8080)
    assert not settings.bind_is_public
    assert not settings.mount_required
    assert (settings.backups.keep_newest, settings.backups.keep_daily) == (5, 7)
    assert set(settings.origins.values()) == {"default"}


def flat(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the tables with `[jobs.usage]` at the same level as `[storage]`."""
    jobs = {f"jobs.{name}": table for name, table in tables.get("jobs", {}).items()}
    return {name: table for name, table in tables.items() if name != "jobs"} | jobs


def keys_by_section() -> dict[str, list[str]]:
    """Return the keys of each section, in the order of their definition."""
    return {
        section: [item.name for item in fields(default)] for section, default in SECTIONS.items()
    }


def test_the_example_file_has_every_setting_with_its_default() -> None:
    text = TOML.read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    tables = flat(tomllib.loads(uncommented))
    assert {name: list(keys) for name, keys in tables.items()} == keys_by_section()
    for section, table in flat(tomllib.loads(text)).items():
        for key, value in table.items():
            expected = getattr(SECTIONS[section], key)
            assert value == (list(expected) if isinstance(expected, tuple) else expected), key


def test_the_example_file_loads() -> None:
    assert load_settings(config=str(TOML), environ={}).storage == Settings().storage


def test_a_table_at_the_end_of_the_example_file_adds_a_destination_and_a_sink(
    tmp_path: Path,
) -> None:
    """The README has such a table; a list in the file itself would make the file no TOML."""
    file = tmp_path / "own.toml"
    added = '[[exports.destinations]]\nname = "nas"\nurl = "file:///mnt/nas"\n'
    added += '[[alerts.sinks]]\nkind = "log"\n'
    file.write_text(TOML.read_text(encoding="utf-8") + added)

    settings = load_settings(config=str(file), environ={})

    assert [each.name for each in settings.exports.destinations] == ["nas"]
    assert [each.kind for each in settings.alerts.sinks] == ["log"]


def test_later_sources_win_and_are_recorded_as_origins(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[backups]\nkeep_newest = 1\nkeep_daily = 2\nkeep_weekly = 3\n")
    settings = load_settings(
        config=str(file),
        environ={"SELINE_BACKUPS__KEEP_DAILY": "20", "SELINE_BACKUPS__KEEP_WEEKLY": "30"},
        arguments={"backups.keep_weekly": 300},
    )
    kept = settings.backups
    assert (kept.keep_newest, kept.keep_daily, kept.keep_weekly) == (1, 20, 300)
    assert settings.origins["backups.keep_newest"] == f"file {file}"
    assert settings.origins["backups.keep_daily"] == "environment SELINE_BACKUPS__KEEP_DAILY"
    assert settings.origins["backups.keep_weekly"] == "argument"
    assert settings.origins["backups.keep_monthly"] == "default"


def test_config_seline_toml_is_the_default_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "seline.toml").write_text("[log]\nlevel = 'debug'\n")
    (tmp_path / "config" / "bot.toml").write_text("[bot]\ntoken = 'x'\n")
    assert load().log.level == "debug"


@pytest.mark.parametrize("target", ["seline.toml", "n" * 256])
@pytest.mark.parametrize("name", ["config", "config/seline.toml"])
def test_a_default_file_that_cannot_be_looked_at_is_refused(
    tmp_path: Path, name: str, target: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(target if target[0] == "n" else tmp_path / name)

    with pytest.raises(SettingsError, match=r"config/seline\.toml cannot be read: \w+") as refused:
        load()

    assert "--config" in refused.value.hint


@pytest.mark.parametrize("name", ["config", "config/seline.toml/a folder"])
def test_a_default_file_that_is_none_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert load().log.level == "info"


def test_an_empty_variable_counts_as_unset() -> None:
    assert load({"SELINE_BACKUPS__KEEP_NEWEST": "", "PORT": ""}).bind == ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("environ", "data_dir"),
    [
        ({"SELINE_DATA_DIR": "/a"}, "/a"),
        ({"SELINE_STORAGE__DATA_DIR": "/b"}, "/b"),
        ({"RAILWAY_VOLUME_MOUNT_PATH": "/volume"}, "/volume"),
        ({"RAILWAY_VOLUME_MOUNT_PATH": "/volume", "SELINE_DATA_DIR": "/a"}, "/a"),
    ],
)
def test_the_data_directory_comes_from_the_first_source_that_names_it(
    environ: dict[str, str], data_dir: str
) -> None:
    assert load(environ).data_dir == data_dir


@pytest.mark.parametrize("name", ["RAILWAY_ENVIRONMENT", "FLY_APP_NAME", "RENDER"])
def test_platforms_require_a_mount(name: str) -> None:
    assert load({name: "production"}).mount_required
    assert not load({name: "x", "SELINE_STORAGE__REQUIRE_MOUNT": "false"}).mount_required
    assert load(storage__require_mount=True).mount_required


def test_only_a_host_or_the_platforms_port_makes_the_bind_public() -> None:
    assert load(server__port=9000).bind == ("127.0.0.1", 9000)
    assert not load({"SELINE_SERVER__PORT": "9000"}).bind_is_public
    assert load({"SELINE_SERVER__HOST": "0.0.0.0"}).bind_is_public
    assert load({"PORT": "9000"}).bind == (None, 9000)
    assert load({"PORT": "9000"}).bind_is_public
    assert load({"SELINE_SERVER__HOST": "127.0.0.1", "PORT": "9000"}).bind == ("127.0.0.1", 9000)


def test_a_secret_may_be_read_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-long-enough-secret\n")
    for variable in ("SELINE_ADMIN_TOKEN_FILE", "SELINE_SERVER__ADMIN_TOKEN_FILE"):
        settings = load({variable: str(secret)})
        assert settings.server.admin_token == "a-long-enough-secret"
        assert "a-long-enough" not in repr(settings)
        assert shown(settings, "server.admin_token") == "********"
    with pytest.raises(SettingsError):
        load({"SELINE_ADMIN_TOKEN_FILE": str(tmp_path / "none")})


def test_a_short_admin_token_is_refused_without_showing_it() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"SELINE_ADMIN_TOKEN": "short-secret"})
    assert "short-secret" not in refused.value.message
    assert "16" in refused.value.message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SELINE_BACKUPS__KEEP_NEWEST": "many"}, "backups.keep_newest"),
        ({"SELINE_BACKUPS__KEEP_NEWEST": "0"}, "from 1 to"),
        ({"SELINE_BACKUPS__KEEP_NEWST": "5"}, "keep_newest"),
        ({"SELINE_STORAGES__DATA_DIR": "/x"}, "storage.data_dir"),
        ({"SELINE_LOG__LEVEL": "loud"}, "'warning'"),
        ({"SELINE_STORAGE__REQUIRE_MOUNT": "perhaps"}, "true or false"),
        ({"PORT": "99999"}, "environment PORT"),
        ({"PORT": "-1"}, "environment PORT"),
    ],
)
def test_an_invalid_setting_is_refused_by_name(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environ)
    assert expected in refused.value.message


@pytest.mark.parametrize("value", [True, 1.5, "x", None.__class__, [], -3])
def test_an_invalid_argument_is_refused(value: object) -> None:
    with pytest.raises(SettingsError):
        load(backups__keep_newest=value)


def test_an_unknown_variable_warns_with_the_nearest_name() -> None:
    [warning] = load({"SELINE_DATADIR": "/x"}).warnings
    assert "SELINE_DATA_DIR" in warning


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SELINE_STORAGE__SETLE_S", "Did you mean storage.settle_s?"),
        ("SELINE_STORGE__DATA_DIR", "Did you mean storage.data_dir?"),
        ("SELINE_STORAGE__FOO", ""),
        ("SELINE_JOBS__INTEGRITY__FOO", ""),
    ],
)
def test_only_a_similar_setting_is_suggested(variable: str, meant: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={variable: "1"})

    assert refused.value.message.partition(").")[2].strip() == meant
    assert "`seline config show`" in refused.value.hint


def test_an_unknown_variable_without_a_similar_name_points_to_the_list() -> None:
    (warning,) = load_settings(environ={"SELINE_FOO": "1"}).warnings

    assert "did you mean" not in warning
    assert "`seline config show`" in warning


def test_a_broken_or_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[storage\n")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(config=str(broken), environ={})
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings(environ={"SELINE_CONFIG": str(tmp_path / "none.toml")})
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("[storag]\ndata_dir = 'x'\n")
    with pytest.raises(SettingsError, match="storage"):
        load_settings(config=str(unknown), environ={})


def test_every_setting_has_a_rule_and_every_secret_is_a_setting() -> None:
    listed = {f"{section}.{key}" for section, keys in keys_by_section().items() for key in keys}
    assert listed == set(setting_names())
    assert set(setting_names()) >= SECRETS


# text as people write it

TOKEN = "a-long-enough-secret"


@pytest.mark.parametrize("around", ['"{}"', "'{}'", "{} ", "{}\n", "\t{}\r\n", ' "{}" '])
def test_space_and_quotes_around_a_variable_are_removed(
    around: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/bot")
    (tmp_path / "own.toml").write_text("[log]\nlevel = 'debug'\n")
    (tmp_path / "secret").write_text(around.format(TOKEN))
    plain = {
        "SELINE_CONFIG": "own.toml",
        "SELINE_DATA_DIR": "~/x",
        "SELINE_ADMIN_TOKEN_FILE": "secret",
        "SELINE_TOKEN": TOKEN,
        "SELINE_URL": "http://bot:80",
        "SELINE_STRICT": "true",
        "SELINE_SERVER__HOST": "::1",
        "SELINE_STORAGE__REQUIRE_MOUNT": "false",
        "SELINE_BACKUPS__KEEP_NEWEST": "9",
        "SELINE_BACKUPS__BLANK_GUARD_EXCEPT": '["a.json"]',
        "SELINE_ALERTS__SINKS": '[{"kind": "ntfy", "url": "https://ntfy.sh/x"}]',
        "SELINE_ALERTS__HEARTBEAT_URL": "https://hc.example/1",
        "SELINE_EXPORTS__DESTINATIONS": '[{"name": "nas", "url": "file:///nas"}]',
        "SELINE_JOBS__USAGE__SCHEDULE": "every 2 min",
        "PORT": "9000",
    }

    found = load({name: around.format(text) for name, text in plain.items()})

    assert found == load(plain)
    assert (found.data_dir, found.log.level, found.server.port) == ("/home/bot/x", "debug", 9000)
    assert found.server.admin_token == TOKEN


def test_quoted_names_and_empty_quotes() -> None:
    names = '"a.json", "b.json"'
    assert load({"SELINE_BACKUPS__BLANK_GUARD_EXCEPT": names}).backups.blank_guard_except == (
        "a.json",
        "b.json",
    )
    assert load({"SELINE_DATA_DIR": '""'}).data_dir == "./data"


@pytest.mark.parametrize(
    ("environ", "arguments", "named"),
    [
        ({"SELINE_DATA_DIR": '"/srv/data'}, {}, "begins with a quotation mark (U+0022)"),
        ({"SELINE_DATA_DIR": "/srv\n/data"}, {}, "character 5 is a line break (U+000A)"),
        ({"SELINE_DATA_DIR": "\u202a/srv"}, {}, "left-to-right embedding (U+202A)"),
        ({"RAILWAY_VOLUME_MOUNT_PATH": "\ufeff/srv"}, {}, "(U+FEFF)"),
        ({"SELINE_DATA_DIR": "~no-such-user/x"}, {}, "~no-such-user has no home directory"),
        ({"SELINE_CONFIG": "a\tb"}, {}, "character 2 is a tab (U+0009)"),
        ({"SELINE_URL": "http://a\u200b"}, {}, "(U+200B)"),
        ({"SELINE_STRICT": "perhaps"}, {}, "true or false"),
        ({"SELINE_TOKEN": f"{TOKEN}\nx"}, {}, "character 21 is a line break (U+000A)"),
        ({"SELINE_ADMIN_TOKEN": f"{TOKEN}\nx"}, {}, "character 21 is a line break (U+000A)"),
        ({"SELINE_ADMIN_TOKEN": f"{TOKEN} x"}, {}, "a space (U+0020)"),
        ({"SELINE_ADMIN_TOKEN": f"“{TOKEN}”"}, {}, "left double quotation mark (U+201C)"),
        ({"SELINE_ADMIN_TOKEN": f"{TOKEN}é"}, {}, "(U+00E9)"),
        ({"SELINE_SERVER__HOST": "127.0.0.1\x7f"}, {}, "(U+007F)"),
        ({"SELINE_ALERTS__HEARTBEAT_URL": "https://a\x00"}, {}, "a NUL (U+0000)"),
        ({}, {"storage__data_dir": "data "}, "ends with a space (U+0020)"),
        ({}, {"storage__data_dir": "'data'"}, "begins with a quotation mark (U+0027)"),
        ({}, {"server__admin_token": f"{TOKEN}\n"}, "ends with a line break (U+000A)"),
        ({}, {"exports__destinations": [{"name": "n", "url": "file:///a "}]}, "ends with a space"),
        ({}, {"exports__destinations": [{"name": "n", "url": "file:///a%0A"}]}, "a line break"),
        ({}, {"exports__destinations": [{"name": "n", "url": "file:///~/a"}]}, "~ is not"),
        ({}, {"exports__destinations": [{"name": "n", "url": "file:///a", "kep": 1}]}, "kep"),
    ],
)
def test_text_that_no_person_means_is_refused_by_its_character(
    environ: dict[str, str], arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environ, **arguments)

    assert named in refused.value.message
    assert TOKEN not in refused.value.message


@pytest.mark.parametrize(
    "text", ["/srv/données", "/srv/user data", "./~x", "/srv/می‌خواهم", "/srv/it's"]
)
def test_ordinary_paths_stay_as_they_are(text: str) -> None:
    assert load({"SELINE_DATA_DIR": text}).data_dir == text


@pytest.mark.parametrize("given", ['"store"', "store ", "~/store"])
def test_the_folder_of_an_older_version_is_not_left_behind(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    literal = tmp_path / given
    literal.mkdir(parents=True)

    with pytest.raises(SettingsError, match="older version") as refused:
        load({"SELINE_DATA_DIR": given})

    assert repr(str(literal)) in refused.value.hint
    literal.rename(tmp_path / "renamed")
    assert Path(load({"SELINE_DATA_DIR": given}).data_dir).name == "store"
