"""Buckets in the environment: Railway's without a setting, and the options of a named one."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from seline.settings import Settings, load_settings, shown

RAILWAY = {
    "RAILWAY_SERVICE_ID": "e",
    "BUCKET": "copies-jdhhd8oe18xi",
    "ENDPOINT": "https://storage.railway.app",
    "ACCESS_KEY_ID": "tid_a",
    "SECRET_ACCESS_KEY": "tsec_a",
    "REGION": "auto",
}
AMAZON = {
    "AWS_S3_BUCKET_NAME": "another",
    "AWS_ENDPOINT_URL": "https://s3.example.org",
    "AWS_ACCESS_KEY_ID": "another-key",
    "AWS_SECRET_ACCESS_KEY": "another-secret",
    "AWS_DEFAULT_REGION": "eu-central-1",
}
ELSEWHERE = {name: text for name, text in RAILWAY.items() if "RAILWAY" not in name}
OPTIONS = {
    "endpoint": "https://storage.railway.app",
    "access_key_id": "tid_a",
    "secret_access_key": "tsec_a",
    "region": "auto",
}
NAS = [{"name": "nas", "url": "file:///mnt/nas"}]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(environ: Mapping[str, str], **arguments: object) -> Settings:
    named = {name.replace("__", "."): value for name, value in arguments.items()}
    return load_settings(environ=environ, arguments=named)


@pytest.mark.parametrize("more", [{}, AMAZON])
def test_the_bucket_of_a_service_on_railway_is_a_destination(more: dict[str, str]) -> None:
    settings = load({**more, **RAILWAY})

    [bucket] = settings.exports.destinations
    assert (bucket.name, bucket.url, bucket.mode) == (
        "bucket",
        f"s3://{RAILWAY['BUCKET']}",
        "mirror",
    )
    assert bucket.options == OPTIONS
    assert settings.origins["exports.destinations"] == "environment BUCKET"
    assert settings.warnings == ()
    [note] = settings.notes
    assert note.endswith(f"which receives copies as the destination bucket: {bucket.url}")
    assert "tsec_a" not in f"{settings}{shown(settings, 'exports.destinations')}"


def test_the_names_that_railway_prints_are_read_as_well() -> None:
    settings = load({"RAILWAY_ENVIRONMENT": "production", **AMAZON, "AWS_S3_URL_STYLE": "path"})

    [bucket] = settings.exports.destinations
    assert bucket.url == "s3://another"
    assert bucket.options == {
        "endpoint": "https://s3.example.org",
        "access_key_id": "another-key",
        "secret_access_key": "another-secret",
        "region": "eu-central-1",
        "path_style": "true",
    }
    assert settings.origins["exports.destinations"] == "environment AWS_S3_BUCKET_NAME"


@pytest.mark.parametrize("named", [NAS, []])
def test_a_named_destination_is_used_instead(named: list[object]) -> None:
    settings = load(RAILWAY, exports__destinations=named)

    assert [given.name for given in settings.exports.destinations] == ["nas"] * len(named)
    assert settings.warnings == ()


def test_the_empty_list_of_the_example_file_leaves_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "seline.toml").write_text("[exports]\ndestinations = []\n")

    settings = load({**RAILWAY, "SELINE_CONFIG": "seline.toml"})

    assert [given.name for given in settings.exports.destinations] == ["bucket"]


@pytest.mark.parametrize("variable", ["ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
def test_a_variable_that_is_missing_is_named(variable: str) -> None:
    settings = load({**RAILWAY, variable: ""})

    assert settings.exports.destinations == ()
    [warning] = settings.warnings
    assert "BUCKET names a bucket" in warning
    assert f"but {variable} is missing" in warning


def test_a_bucket_elsewhere_is_the_bots_own_and_a_warning_names_the_setting_that_uses_it() -> None:
    settings = load({**ELSEWHERE, "RAILWAY_TOKEN": "of-a-developer"})

    assert settings.exports.destinations == ()
    [warning] = settings.warnings
    assert "BUCKET names a bucket, which receives no copies" in warning
    assert "tsec_a" not in warning
    use, leave = re.findall(r"`(SELINE_\w+)=(.*?)`", warning)
    used = load({**ELSEWHERE, use[0]: use[1].replace("KEY_ID", "tid_a").replace("SECRET", "x")})
    [bucket] = used.exports.destinations
    assert (bucket.name, bucket.url) == ("bucket", f"s3://{RAILWAY['BUCKET']}")
    assert bucket.options["endpoint"] == RAILWAY["ENDPOINT"]
    left = load({**ELSEWHERE, leave[0]: leave[1]})
    assert used.warnings == left.warnings == left.exports.destinations == ()


@pytest.mark.parametrize("of_a_bot", [AMAZON, {"BUCKET": "bot"}])
def test_a_bucket_without_railways_variables_is_not_warned_of(of_a_bot: dict[str, str]) -> None:
    assert load(of_a_bot).warnings == ()


@pytest.mark.parametrize("name", ["RAILWAY_ENVIRONMENT_NAME", "RAILWAY_SERVICE_NAME"])
def test_each_name_of_railway_that_the_documents_give_shows_railway(name: str) -> None:
    assert load({**ELSEWHERE, name: "bot"}).exports.destinations


def test_a_named_bucket_takes_from_variables_what_it_lacks() -> None:
    table = {"name": "off-site", "url": "s3://copies/bot", "endpoint": "https://own.example.org"}
    settings = load(AMAZON, exports__destinations=[table, *NAS])

    bucket, nas = settings.exports.destinations
    assert bucket.options == {
        "endpoint": "https://own.example.org",
        "access_key_id": "another-key",
        "secret_access_key": "another-secret",
        "region": "eu-central-1",
    }
    assert nas.options == {}


def test_without_the_library_the_bucket_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    settings = load(RAILWAY)

    assert settings.exports.destinations == ()
    assert "pip install 'seline[s3]'" in settings.warnings[0]


@pytest.mark.parametrize(
    ("environment", "service", "folders"),
    [
        ("production", "bot", "/production/bot"),
        ("pr 12/é", "My bot", "/pr-12/My-bot"),
        ("..", "bot", "/bot"),
        ("", "", ""),
    ],
)
def test_services_and_environments_that_share_a_bucket_have_folders_of_their_own(
    environment: str, service: str, folders: str
) -> None:
    names = {"RAILWAY_ENVIRONMENT_NAME": environment, "RAILWAY_SERVICE_NAME": service}
    [bucket] = load({**RAILWAY, **names}).exports.destinations
    assert bucket.url == f"s3://{RAILWAY['BUCKET']}{folders}"
