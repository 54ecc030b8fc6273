"""Google Cloud Storage and Azure against services on loopback that check keys, refuse or hang."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from seline.errors import ExportFailed, SettingsError
from seline.operations.copies import Copies
from seline.outbound.destinations import bucket as bucket_module
from seline.outbound.destinations.table import build_targets
from seline.ports.destinations import ObjectForbidden, ObjectMissing, ObjectStore
from seline.ports.sealing import UNSEALED
from seline.settings import load_settings
from tests.azure_server import ACCOUNT, KEY, AzureServer, azure_server
from tests.azure_server import refused as azure_refused
from tests.destinations.kinds import azure_table, gcs_table
from tests.gcs_server import GcsServer, gcs_server, service_account
from tests.mirrored_bot import Bot
from tests.s3_server import refused as gcs_refused

Server = GcsServer | AzureServer


class Service(NamedTuple):
    serve: Callable[[], AbstractAsyncContextManager[Server]]
    table: Callable[..., dict[str, Any]]
    refused: Callable[[int, str], web.Response]
    wrong: dict[str, Any]


SERVICES = {
    "gcs": Service(
        gcs_server, gcs_table, gcs_refused, {"service_account": lambda: service_account(1)}
    ),
    "azure": Service(
        azure_server, azure_table, azure_refused, {"account_key": lambda: KEY.swapcase()}
    ),
}
REFUSALS = [
    ("gcs", 403, "AccessDenied", "has no right to do this"),
    ("gcs", 403, "", "has no right to do this"),
    ("gcs", 401, "AuthenticationRequired", "does not accept the key of the service account"),
    ("gcs", 404, "NoSuchBucket", "no such bucket"),
    ("gcs", 404, "", "not one of Google Cloud Storage"),
    ("gcs", 403, "UserProjectAccountProblem", r"answered 403 \(UserProjectAccountProblem\)"),
    ("azure", 403, "AuthenticationFailed", "refuses the key or token"),
    ("azure", 403, "AuthorizationFailure", "refuses the key or token"),
    ("azure", 403, "AuthorizationPermissionMismatch", "has no right to do this"),
    ("azure", 403, "KeyBasedAuthenticationNotPermitted", "takes no keys"),
    ("azure", 404, "ContainerNotFound", "no such container"),
    ("azure", 404, "", "not one of Azure Blob Storage"),
    ("azure", 409, "AccountIsDisabled", r"answered 409 \(AccountIsDisabled\)"),
]


class Running(NamedTuple):
    service: Service
    server: Server

    def store(self, environ: dict[str, str] | None = None, **options: Any) -> ObjectStore:
        """Return the store of a table; an option that is None is left out."""
        table = self.service.table(self.server.url, **options)
        given = {name: value for name, value in table.items() if value is not None}
        arguments = {"exports.destinations": [given]}
        settings = load_settings(environ=environ or {}, arguments=arguments)
        return build_targets(settings)[0].destination


@pytest.fixture(params=SERVICES)
async def running(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    pytest.importorskip("obstore")
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    service = SERVICES[request.param]
    async with service.serve() as server:
        yield Running(service, server)


def calls(store: ObjectStore) -> list[Awaitable[object]]:
    return [store.list("a"), store.put("a/b", b"new"), store.get("a/b"), store.remove("a/b")]


async def failures(store: ObjectStore) -> list[ExportFailed]:
    """Return the error of each call; none repeats what is secret or what the service wrote."""
    errors: list[ExportFailed] = []
    for call in calls(store):
        with pytest.raises(ExportFailed) as failed:
            await call
        error = failed.value
        assert not isinstance(error, ObjectMissing)
        assert error.hint
        text = f"{error.message}{error.hint}{error.__notes__}"
        assert not any(secret in text for secret in (KEY, "PRIVATE KEY", "signed with", "eyJ"))
        errors.append(error)
    return errors


async def test_a_wrong_key_is_refused_and_named(running: Running) -> None:
    wrong = {option: make() for option, make in running.service.wrong.items()}

    for error in await failures(running.store(**wrong)):
        assert "key" in error.message
        assert f"`{next(iter(wrong))}`" in error.hint
        assert not isinstance(error, ObjectForbidden)
    assert running.server.objects == {}


@pytest.mark.parametrize(("running", "status", "code", "said"), REFUSALS, indirect=["running"])
async def test_a_refusal_is_named_with_a_next_step_and_no_secret(
    running: Running, status: int, code: str, said: str
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return running.service.refused(status, code)

    running.server.fault = refuse
    for error in await failures(running.store()):
        assert error.message.count("\n") == 0
        assert isinstance(error, ObjectForbidden) is ("no right" in said)
        with pytest.raises(ExportFailed, match=said):
            raise error


async def test_a_container_that_does_not_exist_is_named(running: Running) -> None:
    scheme = running.service.table("")["url"].partition(":")[0]
    for error in await failures(running.store(url=f"{scheme}://another/prefix")):
        assert "there is no such" in error.message
        assert "a new one has no copy" in error.hint


async def test_a_service_that_hangs_is_given_up(running: Running) -> None:
    async def hang(_: web.Request) -> None:
        await asyncio.Event().wait()

    running.server.fault = hang
    bucket_store = running.store(timeout_s=1)
    with pytest.raises(ExportFailed, match="did not answer"):
        await bucket_store.get("a")


async def test_a_page_of_another_service_is_no_empty_listing(running: Running) -> None:
    async def welcome(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    running.server.fault = welcome
    with pytest.raises(ExportFailed, match="the answer is not one of") as failed:
        await running.store().list("")
    assert "`endpoint`" in failed.value.hint


async def test_an_upload_on_request_replaces_nothing_that_came_between(running: Running) -> None:
    async def come_between(request: web.Request) -> None:
        if request.method == "PUT":
            running.server.objects["prefix/a"] = b"another's"

    running.server.fault = come_between
    await running.store().put("a", b"own", replace=False)
    assert running.server.objects == {"prefix/a": b"another's"}


async def test_a_conflict_is_no_object_that_exists() -> None:
    """obstore takes each answer 409 for an object that exists."""

    async def refuse(request: web.Request) -> web.Response | None:
        is_upload = request.method == "PUT"
        return azure_refused(409, "ContainerBeingDeleted") if is_upload else None

    async with azure_server() as server:
        server.fault = refuse
        with pytest.raises(ExportFailed, match="no such container"):
            await built(azure_table(server.url)).put("a", b"1", replace=False)


async def test_the_mirror_needs_only_the_right_to_write(running: Running, tmp_path: Path) -> None:
    codes = {"gcs": "AccessDenied", "azure": "AuthorizationPermissionMismatch"}
    code = codes["gcs" if isinstance(running.server, GcsServer) else "azure"]

    async def only_write(request: web.Request) -> web.Response | None:
        return None if request.method == "PUT" else running.service.refused(403, code)

    running.server.fault = only_write
    bot = Bot(tmp_path, running.store())
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    await bot.operations.mirrors.close()
    await bot.store.close()

    running.server.fault = None
    copy = await Copies(running.store(), UNSEALED).find()
    assert [document.name for document in copy.documents] == ["a.json"]


INSTEAD = {
    "GOOGLE_BASE_URL": "http://127.0.0.1:9",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "{}",
    "GOOGLE_SKIP_SIGNATURE": "true",
    "GOOGLE_BUCKET": "another",
    "GOOGLE_APPLICATION_CREDENTIALS": "/none",
    "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9",
    "AZURE_ENDPOINT": "http://127.0.0.1:9",
    "AZURE_STORAGE_ACCOUNT_NAME": "another",
    "AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI=",
    "AZURE_STORAGE_SAS_TOKEN": "sig=another",
    "AZURE_STORAGE_TOKEN": "another",
    "AZURE_STORAGE_USE_EMULATOR": "true",
    "AZURE_SKIP_SIGNATURE": "true",
    "AZURE_CREDENTIAL_TYPE": "bearer_token",
    "AZURE_USE_FABRIC_ENDPOINT": "true",
    "AZURE_CONTAINER_NAME": "another",
}


async def test_variables_replace_nothing_that_is_given(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in INSTEAD.items():
        monkeypatch.setenv(name, text)
    await running.store(INSTEAD).put("a", b"1")

    assert running.server.objects == {"prefix/a": b"1"}


@pytest.mark.parametrize(
    "variable", ["GOOGLE_BEARER_TOKEN", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"]
)
def test_a_variable_that_would_be_used_instead_of_the_key_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/key.json")
    with pytest.raises(SettingsError, match=variable) as refused:
        built(gcs_table("https://storage.example.org"))
    assert variable in refused.value.hint


def built(table: dict[str, Any], environ: dict[str, str] | None = None) -> ObjectStore:
    settings = load_settings(environ=environ or {}, arguments={"exports.destinations": [table]})
    return build_targets(settings)[0].destination


@pytest.mark.parametrize("form", ["path", "text", "table", "variable", "variable with a path"])
async def test_the_key_of_a_service_account_is_a_path_or_its_text(
    form: str, tmp_path: Path
) -> None:
    pytest.importorskip("obstore")
    path, text = tmp_path / "key.json", service_account()
    path.write_text(json.dumps({**json.loads(text), "gcs_base_url": "http://127.0.0.1:9"}))
    given: object = {"path": str(path), "text": text, "table": json.loads(text)}.get(form)
    environ = {
        "variable": {"GOOGLE_SERVICE_ACCOUNT_KEY": text},
        "variable with a path": {"GOOGLE_APPLICATION_CREDENTIALS": str(path)},
    }.get(form, {})
    async with gcs_server() as server:
        table = {**gcs_table(server.url), "service_account": given}
        table = {name: value for name, value in table.items() if value is not None}
        await built(table, environ).put("a", b"1")
        assert server.objects == {"prefix/a": b"1"}


async def test_a_private_key_that_is_broken_is_named() -> None:
    pytest.importorskip("obstore")
    broken = json.dumps({**json.loads(service_account()), "private_key": "-----BEGIN"})
    for error in await failures(built(gcs_table("http://127.0.0.1:9", service_account=broken))):
        assert "the private key of the service account is broken" in error.message


async def test_a_login_for_azure_comes_from_variables() -> None:
    pytest.importorskip("obstore")
    for names in (
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"),
    ):
        async with azure_server() as server:
            table = azure_table(server.url)
            del table["account"], table["account_key"]
            await built(table, dict(zip(names, (ACCOUNT, KEY), strict=True))).put("a", b"1")
            assert server.objects == {"prefix/a": b"1"}


def test_the_address_of_a_destination_has_no_secret() -> None:
    stores: list[ObjectStore] = []
    for table in (gcs_table(""), azure_table("")):
        del table["endpoint"]
        stores.append(built(table))
    assert [store.where for store in stores] == [
        "gs://copies/prefix at storage.googleapis.com",
        "az://copies/prefix at seline.blob.core.windows.net",
    ]
