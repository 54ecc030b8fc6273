"""Test an empty volume whose copy cannot be taken: the start waits, and commands write nothing."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.errors import ExportFailed
from seline.server.serving import serving
from seline.settings import Settings, load_settings
from tests.command_line import Line, Ran, line_at
from tests.faults.forms import chosen

RESTORE_WITH_KEY = "seline exports restore bucket --identity key.txt --yes"


def at(tmp_path: Path) -> list[dict[str, Any]]:
    url = f"file://{tmp_path}/bucket"
    return [{"name": "bucket", "url": url, "mode": "mirror", "same_disk": True}]


def settings(tmp_path: Path, **more: Any) -> Settings:
    arguments = {"storage.data_dir": str(tmp_path / "data"), "exports.destinations": at(tmp_path)}
    return load_settings(environ=chosen(), arguments={**arguments, **more})


def line_of(tmp_path: Path, **environ: str) -> Line:
    return line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps(at(tmp_path)), **environ)


@pytest.fixture
async def lost(tmp_path: Path) -> None:
    """Mirror a volume with one document, then delete it."""
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        await server.data.save_json("a.json", {"n": 1})
        await server.operations.mirrors.run()
    shutil.rmtree(tmp_path / "data")


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def hide(tmp_path: Path) -> Callable[[], object]:
    """Damage the copy; return what mends it."""
    [head] = (tmp_path / "bucket" / "seline-mirror").glob("*/heads/*")
    whole = head.read_bytes()
    head.write_bytes(b"{")
    return lambda: head.write_bytes(whole)


async def ran(line: Line, *arguments: str, stdin: str = "", **environ: str) -> Ran:
    return await asyncio.to_thread(lambda: line(*arguments, stdin=stdin, **environ))


@pytest.mark.prove
@pytest.mark.follows("error:restore_pending")
async def test_beside_a_server_that_waits_commands_say_so_and_write_nothing(
    tmp_path: Path, lost: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.library.ASK_AGAIN_S", 0.2)
    mend, line = hide(tmp_path), line_of(tmp_path)
    async with serving(settings(tmp_path), http=False) as server:
        await until(lambda: "cannot be taken" in str(server._failure))
        status = await ran(line, "status")
        assert (status.code, "HEALTHY" in status.out) == (1, False)
        assert "the copy at bucket cannot be taken" in status.out
        assert "a server may be waiting for it" in status.out
        assert "no process holds it" not in status.out
        for refused in (await ran(line, "alerts"), await ran(line, "token", "create")):
            assert refused.code == 7
            assert "only `seline status` and `seline exports` answer" in refused.err
        saved = await ran(line, "save", "b.json", stdin="{}")
        assert (saved.code, "A restore is pending" in saved.err) == (7, True)
        assert "`exports.restore_from = off`" in saved.err
        assert not list((tmp_path / "data").glob("*.json"))
        mend()
        await server.acquired()
        assert await server.data.load_json("a.json") == {"n": 1}
    assert (await ran(line, "save", "b.json", stdin="{}")).code == 0


async def test_a_command_that_is_to_begin_empty_does(tmp_path: Path, lost: None) -> None:
    hide(tmp_path)
    line = line_of(tmp_path)
    async with serving(settings(tmp_path), http=False) as server:
        await until(lambda: "cannot be taken" in str(server._failure))
    assert (await ran(line, "save", "b.json", stdin="{}")).code == 7
    assert (
        await ran(line, "save", "b.json", stdin="{}", SELINE_EXPORTS__RESTORE_FROM="off")
    ).code == 0
    assert (await ran(line, "save", "c.json", stdin="{}")).code == 0, "the volume has begun"


async def test_chosen_documents_do_not_end_the_wait_for_the_whole(
    tmp_path: Path, lost: None
) -> None:
    mend, line = hide(tmp_path), line_of(tmp_path)
    async with serving(settings(tmp_path), http=False) as server:
        await until(lambda: "cannot be taken" in str(server._failure))
    mend()
    chosen = ["exports", "restore", "bucket", "--only", "a.json", "--yes"]
    refused = await ran(line, *chosen)
    assert (refused.code, "waits for a whole copy" in refused.err) == (7, True)
    assert "`exports.restore_from = off`" in refused.err
    assert not list((tmp_path / "data").glob("*.json"))
    assert (await ran(line, "save", "b.json", stdin="{}")).code == 7, "it still waits"

    begun = await ran(line, *chosen, SELINE_EXPORTS__RESTORE_FROM="off")
    assert begun.code == 0, begun.err


@pytest.mark.follows("operations/returning:refusal", "operations/returning:refusal#2")
async def test_a_restore_with_the_key_ends_the_wait_and_the_mirror_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.library.ASK_AGAIN_S", 0.2)
    line = line_of(tmp_path)
    made = await ran(line, "key", "new", "--output", "key.txt")
    [recipient] = [word for word in (made.out + made.err).split() if word.startswith("age1")][:1]
    sealed = settings(tmp_path, **{"exports.encrypt_to": [recipient]})
    async with serving(sealed, http=False) as server:
        await server.acquired()
        await server.data.save_json("a.json", {"n": 1})
        await server.operations.mirrors.run()
        volume = await server.operations.exports.volume_id()
    shutil.rmtree(tmp_path / "data")
    line = line_of(tmp_path, SELINE_EXPORTS__ENCRYPT_TO=recipient)
    async with serving(sealed, http=False) as server:
        await until(lambda: "cannot be taken" in str(server._failure))
        assert server._failure is not None
        [command] = [
            text for text in server._failure.hint.split("`") if text.startswith("seline exports")
        ]
        assert command == RESTORE_WITH_KEY
        restored = await ran(line, *command.split()[1:])
        assert (restored.code, "ANOTHER" in restored.err) == (0, False), restored.err
        assert "Restored 1 document" in restored.err
        await server.acquired()
        assert await server.data.load_json("a.json") == {"n": 1}
        assert await server.operations.exports.volume_id() == volume
        await server.data.save_json("b.json", {})
        await server.operations.mirrors.run()


@pytest.mark.prove
@pytest.mark.follows("operations/returning:refusal#2")
async def test_a_copy_of_the_passphrase_before_is_restored_with_that(tmp_path: Path) -> None:
    """The passphrase was changed, and the volume was lost before the next copy."""
    before = settings(tmp_path, **{"exports.passphrase": "the passphrase before"})
    async with serving(before, http=False) as server:
        await server.acquired()
        await server.data.save_json("a.json", {"n": 1})
        await server.operations.mirrors.run()
    shutil.rmtree(tmp_path / "data")
    changed = settings(tmp_path, **{"exports.passphrase": "another passphrase"})

    with pytest.raises(ExportFailed, match="cannot be taken") as refused:
        await open_seline(settings=changed)

    assert "set `exports.passphrase` to the passphrase that the copy" in refused.value.hint
    async with open_seline(settings=before) as seline:
        assert await seline.data.load_json("a.json") == {"n": 1}


async def test_a_start_that_waits_for_a_copy_is_alerted_until_it_goes_on(
    tmp_path: Path, lost: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.library.ASK_AGAIN_S", 0.2)
    monkeypatch.setattr("seline.alerts.process.EVALUATE_EVERY_S", 0.02)
    monkeypatch.setattr("seline.alerts.process.COPY_WAIT_S", 0.3)
    mend = hide(tmp_path)
    async with serving(settings(tmp_path), http=False) as server:
        await until(lambda: "cannot be taken" in str(server._failure))
        await server.alerts.evaluate()
        assert not server.alerts.log.listing(), "the destination may be restarting"
        await until(server.alerts.log.listing)
        [alert] = server.alerts.log.listing()
        assert (alert.type, alert.severity, alert.state) == ("writes_refused", "critical", "open")
        assert "the copy at bucket cannot be taken" in alert.summary
        assert "`exports.restore_from = off`" in alert.summary
        mend()
        await server.acquired()
        await until(
            lambda: [
                found
                for found in server.alerts.log.listing()
                if (found.type, found.state) == ("writes_refused", "resolved")
            ]
        )
