"""The Azure destination against Azurite, which checks the signatures of keys and tokens."""

import base64
from typing import Any

import pytest

from seline.errors import ExportFailed
from seline.outbound.destinations import bucket as bucket_module
from seline.ports.destinations import ObjectForbidden, ObjectMissing
from tests.destinations.azurite import KEY, azurite, sas_token
from tests.destinations.kinds import built

pytestmark = pytest.mark.prove


def with_token(table: dict[str, Any], token: str) -> dict[str, Any]:
    given = {name: value for name, value in table.items() if name != "account_key"}
    return {**given, "sas_token": token}


async def test_a_wrong_key_and_an_expired_token_are_refused() -> None:
    pytest.importorskip("obstore")
    wrong = base64.b64encode(b"another key").decode()
    async with azurite() as table:
        for given in (
            {**table, "account_key": wrong},
            with_token(table, sas_token("racwdl", key=wrong)),
            with_token(table, sas_token("racwdl", hours=-1)),
        ):
            store = built(given)
            for call in (store.list(""), store.put("a", b"1"), store.get("a"), store.remove("a")):
                with pytest.raises(ExportFailed, match="refuses the key or token") as failed:
                    await call
                assert not isinstance(failed.value, ObjectForbidden | ObjectMissing)
                assert "sig=" not in failed.value.message + failed.value.hint


async def test_a_token_that_only_writes_makes_objects_and_reads_none() -> None:
    pytest.importorskip("obstore")
    async with azurite() as table:
        writes = built(with_token(table, sas_token("cw")))
        await writes.put("a", b"first", replace=False)
        await writes.put("a", b"second", replace=False)
        for call in (writes.get("a"), writes.list("")):  # Azurite answers 500 to a removal
            with pytest.raises(ObjectForbidden, match="has no right to do this"):
                await call
        assert await built(with_token(table, f"?{sas_token('r')}")).get("a") == b"first"


async def test_an_object_in_parts_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setattr(bucket_module, "SINGLE_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 1 << 20)
    data = bytes(range(256)) * (10 << 10)
    async with azurite() as table:
        store = built({**table, "account_key": KEY})
        await store.put("a", data)
        assert await store.get("a") == data
