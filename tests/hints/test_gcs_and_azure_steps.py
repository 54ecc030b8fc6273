"""The next steps of `gs://` and `az://` destinations: each is done as it is printed."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import bucket as bucket_module
from tests.azure_server import ACCOUNT, KEY, AzureServer, azure_server
from tests.azure_server import refused as azure_refused
from tests.destinations.kinds import azure_table, gcs_table
from tests.gcs_server import GcsServer, gcs_server, service_account
from tests.hints.following import Step
from tests.hints.test_bucket_steps import failing, store_of
from tests.s3_server import refused as gcs_refused

Follow = Callable[[str], Step]
NOWHERE = "http://seline.invalid"


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)


@pytest.fixture
async def google() -> AsyncIterator[GcsServer]:
    async with gcs_server() as running:
        yield running


@pytest.fixture
async def azure() -> AsyncIterator[AzureServer]:
    async with azure_server() as running:
        yield running


async def refuse(answer: web.Response, _: web.Request) -> web.Response:
    return answer


async def hint_of(server: GcsServer | AzureServer, answer: web.Response) -> str:
    """Return the next step after an answer, and answer as before from then on."""
    is_google = isinstance(server, GcsServer)
    table = gcs_table(server.url) if is_google else azure_table(server.url)
    server.fault = partial(refuse, answer)
    hint = await failing(store_of(**table))
    server.fault = None
    await store_of(**table).put("a", b"1")
    return hint


def refused_step(follow: Follow, **table: Any) -> Step:
    with pytest.raises(SettingsError) as raised:
        store_of(**table)
    assert KEY not in raised.value.message + raised.value.hint
    return follow(raised.value.hint)


@pytest.mark.follows("outbound/destinations/gcs:*")
async def test_what_google_refuses_works_once_it_is_mended(
    google: GcsServer, follow: Follow, tmp_path: Path
) -> None:
    step = follow(await hint_of(google, gcs_refused(403, "AccessDenied")))
    step.asks("role Storage Object User", "on this bucket")
    follow(await hint_of(google, gcs_refused(404, ""))).asks("Remove `endpoint`, or set it")
    wrong = store_of(**gcs_table(google.url, url="gs://another"))
    follow(await failing(wrong)).asks("Correct the name of the bucket", "`url`")
    step = follow(await failing(store_of(**gcs_table(NOWHERE, allow_http=True, timeout_s=30))))
    step.asks("Check the network, and the `endpoint`")
    wrong = store_of(**gcs_table(google.url, service_account=service_account(1)))
    step = follow(await failing(wrong))
    step.asks("Set `service_account`", "to a key that the service account still has", "clock")
    await store_of(**gcs_table(google.url)).put("a", b"1")


@pytest.mark.follows("outbound/destinations/gcs:*")
async def test_the_settings_of_google_are_completed(
    google: GcsServer, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = gcs_table(google.url, service_account=None)
    step = refused_step(follow, **table)
    step.asks("`service_account`", "the path of a key in JSON, or to its text")
    path = tmp_path / "key.json"
    refused_step(follow, **{**table, "service_account": str(path)}).asks("path of the key")
    path.write_text(json.dumps({"type": "authorized_user"}))
    refused_step(follow, **{**table, "service_account": str(path)}).asks("of the type JSON")
    path.write_text(service_account())
    for variable in ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_BEARER_TOKEN"):
        monkeypatch.setenv(variable, str(path))
        step = refused_step(follow, **{**table, "service_account": str(path)})
        step.asks(f"Remove {variable} from the environment")
        monkeypatch.delenv(variable)
    for given in (str(path), path.read_text()):
        await store_of({"GOOGLE_SERVICE_ACCOUNT_KEY": given}, **table).put("a", b"1")


@pytest.mark.follows("outbound/destinations/azure:*")
async def test_what_azure_refuses_works_once_it_is_mended(
    azure: AzureServer, follow: Follow
) -> None:
    step = follow(await hint_of(azure, azure_refused(403, "AuthorizationPermissionMismatch")))
    step.asks("read, add, create, write, delete and list (`racwdl`)")
    step = follow(await hint_of(azure, azure_refused(403, "KeyBasedAuthenticationNotPermitted")))
    step.asks("Allow access by storage account keys")
    step = follow(await hint_of(azure, azure_refused(404, "")))
    step.asks("Correct `account`", "remove `endpoint` or set it")
    wrong = store_of(**azure_table(azure.url, url="az://another"))
    follow(await failing(wrong)).asks("Correct the name of the container", "`url`")
    step = follow(await failing(store_of(**azure_table(NOWHERE, allow_http=True, timeout_s=30))))
    step.asks("`account` and `endpoint`")
    step = follow(await failing(store_of(**azure_table(azure.url, account_key=KEY.swapcase()))))
    step.asks("Correct `account_key` or `sas_token`", "clock", "network rules")
    await store_of(**azure_table(azure.url)).put("a", b"1")


@pytest.mark.prove
@pytest.mark.follows("outbound/destinations/azure:*")
async def test_the_settings_of_azure_are_completed(azure: AzureServer, follow: Follow) -> None:
    table = azure_table(azure.url)
    refused_step(follow, **{**table, "account": None}).asks("`account`", "AZURE_STORAGE_ACCOUNT")
    for key, token in ((None, None), (KEY, "sig=x")):
        step = refused_step(follow, **{**table, "account_key": key, "sas_token": token})
        step.asks("either `account_key`", "AZURE_STORAGE_KEY", "or `sas_token`")
    step = refused_step(follow, **{**table, "account_key": None, "sas_token": "sv=2021-12-02"})
    step.asks("the whole token")
    refused_step(follow, **{**table, "account_key": "a key"}).asks("the whole key")

    variables = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY}
    completed: dict[str, Any] = {**table, "account": None, "account_key": None}
    await store_of(variables, **completed).put("a", b"1")
    completed |= {"account": ACCOUNT, "sas_token": "sv=2021-12-02&sig=x"}
    store_of(**completed)
    with pytest.raises(ExportFailed):
        await store_of(**azure_table(azure.url, account="another")).put("a", b"1")
