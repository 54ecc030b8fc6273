"""Test that what a destination gives back can be damaged or forged, and harms nothing."""

import asyncio
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seline import open_seline
from seline.clock import parse_instant
from seline.domain import mirror
from seline.domain.manifest import FileEntry, PackedDocument
from seline.domain.mirror import StoredObject
from seline.errors import ExportDamaged, ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.mirror_store import MirrorStore, mirrored_volumes
from seline.operations.packs import file_entry, members_of, packed, unpacked, unpacked_digest
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import ObjectTooLarge, Target
from seline.ports.sealing import UNSEALED
from seline.server.serving import serving
from tests.command_line import line_at
from tests.integration.test_coming_back import at, mirrored, restored_from, settings
from tests.mirrored_bot import HOUR_S, Bot, folder, heads


def forge_proof(place: Path, **changed: object) -> None:
    """Store a proof of the newest head that says something else."""
    name = heads(place)[0].name
    proof = {"head": name, "at": "2025-01-06T14:30:22Z", "by": "x", "decrypted": True, "objects": 1}
    path = folder(place) / "proofs" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(proof | changed))


@pytest.mark.parametrize("volume", ["", "..", "\x1b[2Jabcdefg", "ABCDEF01"])
async def test_a_claim_of_no_volume_is_damaged(bot: Bot, place: Path, volume: str) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    (place / mirror.CLAIM).write_text(json.dumps({"volume": volume}))

    with pytest.raises(ExportDamaged, match="names no volume"):
        await Copies(Folder("bucket", str(place)), UNSEALED).find()


@pytest.mark.follows("operations/mirror_store:read_claim")
async def test_a_login_page_instead_of_the_claim_is_named_and_the_next_step_works(
    bot: Bot, place: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    (place / mirror.CLAIM).write_text("<!doctype html><title>Sign in</title>")
    copies = Copies(Folder("bucket", str(place)), UNSEALED)

    with pytest.raises(ExportDamaged, match="is not whole") as refused:
        await copies.find()
    assert f"If a login page or another service answers at {place}" in refused.value.hint
    (place / mirror.CLAIM).unlink()
    bot.clock.advance(HOUR_S)
    await bot.mirrored()
    assert (place / mirror.CLAIM).exists()
    assert (await copies.find()).documents


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../a.json"},
        {"name": "\x1b[2J.json"},
        {"backups": (FileEntry(name="../../a_20240101_000000.json", size_bytes=1, sha256=""),)},
    ],
    ids=["outside", "escape", "backup"],
)
async def test_a_copy_with_names_that_no_volume_holds_is_not_opened(
    bot: Bot, place: Path, changed: dict[str, object]
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    [head] = heads(place)
    at = MirrorStore(Folder("bucket", str(place)), UNSEALED, head.volume)
    manifest = await at.manifest(head)
    renamed = msgspec.structs.replace(manifest.documents[0], **changed)
    forged = msgspec.structs.replace(manifest, documents=(renamed,))
    entry = await at.put_manifest(head.name, forged)
    await at.put_head(msgspec.structs.replace(head, manifest=entry))

    with pytest.raises(ExportDamaged, match="names what no volume holds"):
        await Copies(Folder("bucket", str(place)), UNSEALED).find()


async def test_a_file_of_two_gigabytes_is_not_read(bot: Bot, place: Path) -> None:
    """A head, a proof, a manifest, an object and the claim have each their own limit."""
    for number in range(2):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
        bot.clock.advance(HOUR_S)
    older = heads(place)[-1].name
    copies = Copies(Folder("bucket", str(place)), UNSEALED)
    newest = (await copies.find()).name
    for kind in ("heads", "manifests"):
        [large] = (folder(place) / kind).glob(f"{newest}.json*")
        stored = large.read_bytes()
        os.truncate(large, 2 << 30)
        tracemalloc.start()
        assert (await copies.find()).name == older, "the copy before is whole"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 48 << 20
        large.write_bytes(stored)
    for large in (*(folder(place) / "objects").iterdir(), place / mirror.CLAIM):
        os.truncate(large, 2 << 30)
    with pytest.raises(ObjectTooLarge, match=mirror.CLAIM):
        await copies.find()
    (place / mirror.CLAIM).unlink()
    copy = await copies.find()
    with pytest.raises(ObjectTooLarge, match="objects/"):
        await copy.fetch(copy.documents[0].sha256)
    with pytest.raises(ExportFailed):
        await bot.operations.drill()


async def test_a_folder_that_is_no_volume_is_left_out(bot: Bot, place: Path) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    (place / mirror.CLAIM).unlink()
    mine = folder(place)
    shutil.copytree(mine, mine.with_name("\x1b[2Jours"))

    assert await mirrored_volumes(Folder("bucket", str(place))) == {mine.name}
    assert (await Copies(Folder("bucket", str(place)), UNSEALED).find()).documents


@pytest.mark.prove
async def test_a_forged_list_of_objects_is_not_unpacked_to_more_than_digests_could(
    bot: Bot, place: Path
) -> None:
    """A few stored bytes would be 200 MiB in memory, and many times that once decoded."""
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    [head] = heads(place)
    at = MirrorStore(Folder("bucket", str(place)), UNSEALED, head.volume)
    stored = packed(b"[" + b" " * (200 << 20) + b"]")
    entry = StoredObject(
        key=head.name, size_bytes=len(stored), sha256=hashlib.sha256(stored).hexdigest()
    )
    (folder(place) / "manifests" / f"{head.name}.objects.json.zst").write_bytes(stored)
    await at.put_head(msgspec.structs.replace(head, objects=(), listed=entry))
    tracemalloc.start()
    with pytest.raises(ExportDamaged, match=r"objects\.json\.zst has more than the"):
        await Copies(Folder("bucket", str(place)), UNSEALED).find()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


FORGED = [{"at": "yesterday"}, {"head": "20250106T143022Z-00000099"}]


@pytest.mark.parametrize("changed", FORGED)
async def test_a_proof_that_is_not_one_stops_no_restore_and_no_run(
    bot: Bot, place: Path, changed: dict[str, object]
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    forge_proof(place, **changed)
    [info] = await Copies(Folder("bucket", str(place)), UNSEALED).listed()
    assert info.proven_at is None
    assert (await Copies(Folder("bucket", str(place)), UNSEALED).find()).documents
    bot.clock.advance(2 * HOUR_S)
    await bot.data.save_json("a.json", {"n": 2})
    assert "1 document" in await bot.mirrored()
    assert bot.operations.exports.destinations.record("bucket").proven_at is None


async def test_a_proof_of_the_future_counts_as_one_of_now(bot: Bot, place: Path) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    forge_proof(place, at="2999-01-01T00:00:00Z")
    bot.clock.advance(2 * HOUR_S)
    await bot.mirrored()
    proven_at = bot.operations.exports.destinations.record("bucket").proven_at
    assert proven_at is not None
    assert proven_at <= bot.clock.now()


async def test_no_text_of_a_copy_reaches_a_terminal_as_a_command(bot: Bot, place: Path) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    forge_proof(place, by="\x1b[31myou\n\u202e")
    [path] = (folder(place) / "heads").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "doubt": "\x1b]0;" + "x" * 9999}))
    [info] = await Copies(Folder("bucket", str(place)), UNSEALED).listed()
    assert info.proven_by == "?[31myou??"
    assert (info.doubt[:5], len(info.doubt)) == ("?]0;x", 1000)


class Broken(Folder):
    """A folder with a defect."""

    async def list(self, folder: str):  # type: ignore[no-untyped-def]
        raise LookupError(f"a defect at {folder}")


@pytest.mark.parametrize("job", ["mirror", "export"])
async def test_a_defect_at_one_destination_loses_no_outcome_of_another(
    bot: Bot, tmp_path: Path, job: str
) -> None:
    broken = Broken("broken", str(tmp_path / "broken"))
    well = Folder("well", str(tmp_path / "well"))
    targets = [Target(store, 3, same_disk=True, mode="both") for store in (broken, well)]
    operations = Operations(bot.store, targets, version="test")
    await bot.data.save_json("a.json", {"n": 1})
    run = operations.mirrors.run if job == "mirror" else operations.exports.run
    with pytest.raises(ExportFailed, match=r"broken: LookupError: a defect at .*well: "):
        await run()
    await operations.mirrors.close()


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,0"}


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (tarfile.SYMTYPE, {}),
        (tarfile.LNKTYPE, {}),
        (tarfile.DIRTYPE, {}),
        (tarfile.REGTYPE, SPARSE),
    ],
)
@pytest.mark.parametrize("target", ["a", "missing"])
def test_a_pack_that_holds_anything_but_files_is_damaged(
    kind: bytes, headers: dict[str, str], target: str
) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as writing:
        member = tarfile.TarInfo("a")
        member.type, member.linkname, member.pax_headers = kind, target, headers
        writing.addfile(member)
    pack = packed(tar.getvalue())
    with pytest.raises(ExportDamaged, match="'a', which is no file"):
        list(members_of(file_entry("pack-0001.tar.zst", pack), pack))


async def test_what_unpacks_to_more_than_it_may_is_refused_before_it_is_in_memory(
    tmp_path: Path,
) -> None:
    bomb = packed(bytes(64 << 20))
    whole = unpacked_digest(bomb, "it", bytes_max=64 << 20)
    assert whole == hashlib.sha256(bytes(64 << 20)).hexdigest()
    with pytest.raises(ExportDamaged, match="more than the 1,000 bytes"):
        unpacked_digest(bomb, "it", bytes_max=1000)
    tracemalloc.start()
    with pytest.raises(ExportDamaged, match="more than the 1,024 bytes"):
        unpacked(bomb, "it", bytes_max=1024)
    with pytest.raises(ExportDamaged, match="more than the"):
        list(members_of(file_entry("pack-0001.tar.zst", bomb), bomb, bytes_max=2 << 20))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    for cut in (bomb[:-1], b"", b"no zstd"):
        with pytest.raises(ExportDamaged, match="cannot be unpacked"):
            unpacked(cut, "it", bytes_max=1 << 30)
    assert unpacked(packed(b"") + packed(b"ab"), "it", bytes_max=2) == b"ab"


async def test_a_content_that_unpacks_to_more_than_is_listed_is_not_restored(
    bot: Bot, place: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    [path] = (folder(place) / "objects").iterdir()
    path.write_bytes(packed(bytes(1 << 20)))
    copy = await Copies(Folder("bucket", str(place)), UNSEALED).find()
    with pytest.raises(ExportDamaged, match="more than the 13 bytes"):
        await copy.fetch(copy.documents[0].sha256)


def forge_head(place: Path, **changed: object) -> str:
    """Store the newest head with other values; return its name."""
    head = msgspec.structs.replace(heads(place)[0], **changed)
    path = folder(place) / "heads" / f"{head.name}.json"
    path.write_bytes(mirror.encode(head))
    return head.name


async def test_a_size_that_a_head_claims_asks_a_drill_for_no_memory(tmp_path: Path) -> None:
    """Without a key nothing else says how large an object may be."""
    bucket = Folder("bucket", str(tmp_path / "bucket"))
    (tmp_path / "bucket").mkdir()
    bot = Bot(tmp_path, bucket, sealer=AgeSealer([new_key().recipient]))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    [entry] = heads(tmp_path / "bucket")[0].objects
    forge_head(tmp_path / "bucket", objects=(msgspec.structs.replace(entry, size_bytes=2 << 30),))
    [path] = (folder(tmp_path / "bucket") / "objects").iterdir()
    os.truncate(path, 2 << 30)
    tracemalloc.start()

    with pytest.raises(ExportFailed, match="larger than the"):
        await bot.operations.drill()

    assert tracemalloc.get_traced_memory()[1] < 128 << 20
    tracemalloc.stop()
    await bot.store.close()


@pytest.mark.parametrize(
    "changed", [{"documents": -1}, {"size_bytes": -5}, {"sequence": 10**18}, {"listed": -2}]
)
async def test_a_head_with_a_number_that_none_has_is_damaged(
    bot: Bot, place: Path, changed: dict[str, Any]
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    if "listed" in changed:
        entry = mirror.StoredObject(key="0" * 64, size_bytes=changed["listed"], sha256="")
        changed = {"listed": entry}
    name = forge_head(place, **changed)

    with pytest.raises(ExportDamaged):
        mirror.decode_head((folder(place) / "heads" / f"{name}.json").read_bytes(), name)


@pytest.mark.follows("operations/mirror_store:check_number")
@pytest.mark.parametrize("number", [10**18 - 1, 10**17])
async def test_a_head_with_a_number_out_of_reach_stops_the_mirror_with_a_reason(
    bot: Bot, place: Path, number: int
) -> None:
    """Else the volume would go on from it, and end with a name that no one takes for a head's."""
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    forge_head(place, sequence=number)
    await bot.operations.mirrors.close()
    again = Operations(bot.store, bot.operations.exports.destinations.targets, version="test")

    with pytest.raises(ExportFailed, match="has not reached") as refused:
        await again.mirrors.run()
    named = re.search(r"remove `([^`]*)`", refused.value.message)
    assert named is not None
    (place / named[1]).unlink()
    assert "1 document" in await again.mirrors.run()


PASSPHRASE = "a passphrase for the tests"


async def forge_copy(place: Path, volume: str, number: int = 99) -> None:
    """Store a copy as one who can write to the destination, and has no key."""
    data = b'{"admin": "intruder"}'
    digest = hashlib.sha256(data).hexdigest()
    at = MirrorStore(Folder("bucket", str(place)), UNSEALED, volume)
    [(entry, stored)] = await at.sealed({digest: data})
    await at.put_object(entry, stored)
    document = PackedDocument(name="owner.json", sha256=digest, size_bytes=len(data))
    name = mirror.head_name(parse_instant("2027-01-06T14:30:22Z"), number)
    manifest = await at.put_manifest(name, mirror.MirrorManifest(documents=(document,)))
    head = mirror.Head(
        volume=volume,
        sequence=number,
        taken_at="2027-01-06T14:30:22Z",
        seline_version="test",
        encrypted=False,
        documents=1,
        size_bytes=len(data),
        manifest=manifest,
        objects=(entry,),
    )
    await at.put_head(head)


@pytest.mark.parametrize("number", [10**12 + 1, 10**18 - 1])
async def test_a_copy_with_a_number_that_none_reaches_is_not_restored(
    tmp_path: Path, number: int
) -> None:
    """The volume would go on from it, until no later copy could have a higher one."""
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        await server.data.save_json("owner.json", {"admin": "owner"})
        await mirrored(server)
        volume = await server.operations.exports.volume_id()
    shutil.rmtree(tmp_path / "data")
    await forge_copy(tmp_path / "bucket", volume, number)
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        assert await server.data.load_json("owner.json") == {"admin": "owner"}
        assert f"has the number {number}, which no copy reaches" in restored_from(server)
        with pytest.raises(ExportFailed, match="has not reached") as refused:
            await server.operations.mirrors.run()
        named = re.search(r"remove `([^`]*)`", refused.value.message)
        assert named is not None
        (tmp_path / "bucket" / named[1]).unlink()
        await mirrored(server)
        assert heads(tmp_path / "bucket")[0].sequence == 2


@pytest.mark.prove
async def test_a_copy_that_is_not_encrypted_is_refused_where_encryption_is_set(
    tmp_path: Path,
) -> None:
    encrypted = settings(tmp_path, **{"exports.passphrase": PASSPHRASE})
    async with serving(encrypted, http=False) as server:
        await server.acquired()
        await server.data.save_json("owner.json", {"admin": "owner"})
        await mirrored(server)
        volume = await server.operations.exports.volume_id()
    shutil.rmtree(tmp_path / "data")
    await forge_copy(tmp_path / "bucket", volume)
    copies = Copies(Folder("bucket", str(tmp_path / "bucket")), AgeSealer(passphrase=PASSPHRASE))
    assert next(info.name for info in await copies.listed()).endswith("-00000099")
    assert not (await copies.find()).name.endswith("-00000099")
    async with serving(encrypted, http=False) as server:
        await server.acquired()
        assert await server.data.load_json("owner.json") == {"admin": "owner"}
        assert "is not encrypted, and encryption is set" in restored_from(server)


@pytest.mark.parametrize("mode", ["mirror", "export"])
@pytest.mark.follows("operations/copies:_check_plain", "error:copy_not_encrypted")
async def test_the_only_copies_of_the_time_before_encryption_are_taken_by_hand(
    tmp_path: Path, mode: str
) -> None:
    places = [at(tmp_path, "bucket", mode)]
    async with serving(settings(tmp_path, **{"exports.destinations": places}), http=False) as old:
        await old.acquired()
        await old.data.save_json("a.json", {"n": 1})
        await (mirrored(old) if mode == "mirror" else old.operations.exports.run())
    shutil.rmtree(tmp_path / "data")
    more = {"exports.destinations": places, "exports.passphrase": PASSPHRASE}
    with pytest.raises(ExportFailed, match="is not encrypted") as refused:
        await open_seline(settings=settings(tmp_path, **more))
    [step] = re.findall(r"`(seline exports restore [^`]*)`", refused.value.hint)
    variables = {
        "SELINE_EXPORTS__DESTINATIONS": json.dumps(places),
        "SELINE_EXPORTS_PASSPHRASE": PASSPHRASE,
    }
    line = line_at(tmp_path, **variables)
    ran = await asyncio.to_thread(line, *step.split()[1:], "--yes")
    assert "Restored 1 document" in ran.err
    assert (await asyncio.to_thread(line, "load", "a.json")).value() == {"n": 1}
