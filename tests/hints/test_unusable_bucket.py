"""The next steps of a bucket of Railway that lacks a variable or the extra `s3`."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seline import open_seline
from seline.errors import ExportFailed
from seline.server.serving import serving
from seline.settings import Settings, load_settings
from tests.hints.following import Step

Follow = Callable[[str], Step]

RAILWAY = {
    "RAILWAY_ENVIRONMENT": "production",
    "SELINE_STORAGE__REQUIRE_MOUNT": "false",
    "BUCKET": "copies",
    "ENDPOINT": "https://s3.example.org",
    "ACCESS_KEY_ID": "key",
    "SECRET_ACCESS_KEY": "secret",
}


@pytest.mark.one_in(2)
@pytest.mark.follows("settings/bucket:bucket_of_environment")
@pytest.mark.parametrize("lacks", ["SECRET_ACCESS_KEY", "s3"])
async def test_a_bucket_that_cannot_be_used_keeps_an_empty_volume_from_beginning(
    tmp_path: Path, lacks: str, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    def load(**more: str) -> Settings:
        environ = {**RAILWAY, "SELINE_DATA_DIR": str(tmp_path / "data"), **more}
        return load_settings(environ=environ)

    changed = {lacks: ""} if lacks != "s3" else {}
    if lacks == "s3":
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ExportFailed, match=r"BUCKET names a bucket, but .* is missing") as refused:
        await open_seline(settings=load(**changed))
    step = follow(refused.value.hint)
    step.asks("pip install 'seline[s3]'" if lacks == "s3" else "Set SECRET_ACCESS_KEY")
    [given] = [text for text in step.quoted if text.startswith("SELINE_")]
    for begins in (dict([given.split("=")]), {"SELINE_EXPORTS__RESTORE_FROM": "off"}):
        async with open_seline(settings=load(**changed, **begins)) as seline:
            await seline.data.save_json("a.json", {"n": 1})
            await seline.data.delete("a.json", purge=True)
        shutil.rmtree(tmp_path / "data")

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_text("{}")
    async with serving(load(**changed), http=False) as server:
        await server.acquired()
        checks = {check["name"]: check for check in (await server.operations.health())["checks"]}
        assert checks["exports"]["status"] == "warning"
        assert "but " in checks["exports"]["detail"]
        assert checks["exports"]["fix"] == refused.value.hint
        while not server.alerts.log.listing():
            await asyncio.sleep(0.01)
        [alert] = server.alerts.log.listing()
        assert (alert.type, alert.fix) == ("copy_at_risk", refused.value.hint)
