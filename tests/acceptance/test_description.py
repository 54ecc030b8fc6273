"""Send what the OpenAPI description allows, and what it does not, to a real server."""

import asyncio
from pathlib import Path

import pytest

from seline.access import tokens
from seline.http import PREFIX
from seline.server import serving
from tests.acceptance.s3_services import python_with
from tests.http_client import ADMIN, NAME, settings_for

SCHEMATHESIS = "schemathesis==4.32.5"
CONFIG = """
hooks = "hooks"

[parameters]
"path.name" = "{name}"
"path.backup" = "{backup}"
"path.destination" = "nas"
"path.job" = "usage"

[checks.positive_data_acceptance]
# A schema does not say which document, backup or revision there is, nor that two headers exclude
# each other: 404, 409, 412 and 422 are answers to a request of the right shape.
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422]
"""
HOOKS = """
import schemathesis

@schemathesis.serializer("application/x-tar")
def tar(context, value):
    return value if isinstance(value, bytes) else b""
"""


NOT_CHECKED = "use_after_free"
"""A preview deletes nothing, and a deleted document keeps its backups, which can be compared."""


@pytest.mark.prove
async def test_the_server_answers_as_its_description_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run every check of schemathesis: no 5xx, no status, type or field that is not described."""
    python = python_with(SCHEMATHESIS)
    monkeypatch.setattr(tokens, "CLIENT_FAILURES_MAX", 1 << 20)  # else 429 in place of 401
    monkeypatch.setattr(tokens, "TOTAL_FAILURES_MAX", 1 << 20)
    (tmp_path / "hooks.py").write_text(HOOKS)
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "both"}
    settings = settings_for(tmp_path / "data", exports__destinations=[nas])
    async with serving(settings) as server:
        await server.acquired()
        for number in range(3):
            await server.data.save_json(NAME, {"n": number})
        backup = (await server.data.backups(NAME))[0].name
        config = CONFIG.format(name=NAME, backup=backup)
        (tmp_path / "schemathesis.toml").write_text(config)
        checking = await asyncio.create_subprocess_exec(
            "nice", "-n", "19", python, "-m", "schemathesis.cli", "run",
            server.address + PREFIX + "/openapi.json",
            "--header", f"Authorization: Bearer {ADMIN}",
            "--checks", "all", "--exclude-checks", NOT_CHECKED,
            "--max-examples", "25", "--seed", "1", "--continue-on-failure",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        report, _ = await checking.communicate()

    assert checking.returncode == 0, report.decode()
