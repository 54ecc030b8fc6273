"""Every error of the operating system has its cause, and a next step that works when followed.

A row makes the situation, sees the error, runs the commands of its hint as root, and sees the
situation end. Errors that cannot be made here (a failing disk, a quota) are injected: their hint
must name the right thing, and they alone count as errors of the disk where that is so.
"""

import errno
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from seline.access.audit import AuditLog
from seline.blocking import Seline, open_seline
from seline.errors import (
    BackupNotFound,
    DocumentUnreadable,
    SelineError,
    UnsupportedFormat,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
)
from seline.storage.volume import files
from tests.faults.injection import A, B, failing_call, incident_kinds
from tests.faults.small_filesystem import Unavailable, run
from tests.hints.following import NEXT, Step, shell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
Follow = Callable[[str], Step]
NOBODY: Final = 65534
COMMANDS: Final = ("chattr", "chmod", "chown", "cp", "mkdir", "mount", "mv", "rm", "umount")


@contextmanager
def user(number: int) -> Iterator[None]:
    """Be another user, in every thread, until the block ends."""
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def run_as_root(step: Step) -> None:
    """Run the commands of a next step as root, in the order in which it names them."""
    commands = [text for text in step.quoted if text.startswith(COMMANDS)]
    assert commands, step
    for command in commands:
        subprocess.run(command, shell=True, check=True, timeout=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a data directory with two documents that NOBODY owns, with a space in its path."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    directory = tmp_path / "a bot" / "data"
    directory.mkdir(parents=True)
    with open_seline(directory) as seline:
        for number in range(2):
            seline.data.save_json(A, {"n": number})
            seline.data.save_json(B, {"n": number})
    load(directory)  # imports what another user may not read
    give(directory)
    return directory


def give(directory: Path, owner: int = NOBODY) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, owner, owner)


def save(directory: Path) -> None:
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0) as seline:
        seline.data.save_json(A, {"n": 7})
        assert seline.data.load_json(A) == {"n": 7}


def load(directory: Path) -> None:
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0) as seline:
        assert seline.data.load_json(A) == {"n": 1}


def bind(source: Path, target: Path, options: str = "rw") -> None:
    try:
        run("mount", "--bind", "-o", options, str(source), str(target))
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def undone(place: Path) -> Iterator[None]:
    """Undo what a test that failed left: an immutable directory, and mounts."""
    yield
    with ExitStack() as stack:
        stack.callback(
            subprocess.run, ["chattr", "-i", place / "backups"], capture_output=True, check=False
        )
        for name in ("backups", A, "."):
            stack.callback(
                subprocess.run, ["umount", place / name], capture_output=True, check=False
            )


# the rows: what happens, the error, what its message names, and what the owner does then


def root_owns(name: str) -> Callable[[Path], None]:
    return lambda place: give(place / name, 0)


def without_rights(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).chmod(0)


def immutable(place: Path) -> None:
    if subprocess.run(["chattr", "+i", place / "backups"], check=False).returncode:
        pytest.skip("this file system has no immutable files")


def linked(place: Path) -> None:
    (place / A).rename(place.parent / "elsewhere.json")
    (place / A).symlink_to("../elsewhere.json")


def of_another_user(place: Path) -> None:
    give(place, 1234)
    place.chmod(0o700)


def mounted(name: str) -> Callable[[Path], None]:
    """Mount a copy of a part of the data directory over it."""

    def mount(place: Path) -> None:
        bind(place / name, place / name)

    return mount


def of_a_newer_format(place: Path) -> None:
    (place / ".seline" / "format").write_text("3\n")


ACCESS: Final = pytest.mark.follows("cure:EACCES")
IMMUTABLE: Final = pytest.mark.follows("cure:EPERM")
LINK: Final = pytest.mark.follows("cure:ELOOP")
MOUNT: Final = pytest.mark.follows("cure:EXDEV")
FORMAT: Final = pytest.mark.follows("storage/volume/directory:_check_format")
ROWS: Final = {
    "backups/ of root": (root_owns("backups"), save, VolumeFailed, "backups", ACCESS),
    ".seline/ of root": (root_owns(".seline"), load, VolumeFailed, ".seline", ACCESS),
    "staging/ of root": (root_owns(".seline/staging"), save, VolumeFailed, "staging", ACCESS),
    "the data directory of another user": (of_another_user, load, VolumeFailed, "1234", ACCESS),
    "the data directory of root": (root_owns("."), load, VolumeFailed, "data", ACCESS),
    "a document of root": (root_owns(A), load, DocumentUnreadable, A, ACCESS),
    "backups/ without rights": (without_rights("backups"), load, VolumeFailed, "backups", ACCESS),
    "a document without rights": (without_rights(A), load, DocumentUnreadable, A, ACCESS),
    "an immutable directory": (immutable, save, VolumeFailed, "backups", IMMUTABLE),
    "a link": (linked, load, DocumentUnreadable, A, LINK),
    "backups/ on a mount of its own": (mounted("backups"), load, VolumeFailed, "backups", MOUNT),
    "a document on a mount of its own": (mounted(A), save, VolumeFailed, A, MOUNT),
    "a format that is too new": (of_a_newer_format, load, UnsupportedFormat, "format", FORMAT),
}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.usefixtures("first_form")
@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize(
    ("make", "attempt", "kind", "named"),
    [pytest.param(*row, marks=mark, id=name) for name, (*row, mark) in ROWS.items()],
)
def test_following_the_hint_ends_what_it_reports(
    place: Path,
    make: Callable[[Path], None],
    attempt: Callable[[Path], None],
    kind: type[SelineError],
    named: str,
    follow: Follow,
) -> None:
    make(place)
    with user(NOBODY), pytest.raises(kind) as raised:
        attempt(place)

    assert f"{place}" in f"{raised.value.message} {raised.value.hint}"
    assert named in raised.value.hint
    assert "export" not in raised.value.hint

    run_as_root(follow(raised.value.hint))
    with user(NOBODY):
        attempt(place)


@pytest.mark.follows("storage/volume/lock:_not_opened", "storage/volume/lock:_not_opened#2")
def test_a_directory_that_cannot_be_reached_is_not_to_be_given_away(
    place: Path, follow: Follow
) -> None:
    """No hint gives a user what lies above the data directory, such as /root or /."""
    place.parent.chmod(0o700)
    os.chown(place.parent, 0, 0)
    with user(NOBODY), pytest.raises(VolumeFailed) as raised:
        load(place)
    assert str(place.parent) in raised.value.message
    assert "chown" not in raised.value.hint
    follow(raised.value.hint).asks("Name another one with --data-dir")
    elsewhere = place.parents[1] / "elsewhere"
    elsewhere.mkdir()
    give(elsewhere)
    with user(NOBODY):
        save(elsewhere)

    place.parent.chmod(0o755)
    missing = place.parent / "missing"
    with user(NOBODY), pytest.raises(VolumeFailed) as raised:
        load(missing)
    run_as_root(follow(raised.value.hint))
    with user(NOBODY):
        save(missing)


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in directory.rglob("*")}


@pytest.mark.parametrize("attempt", [load, save])
def test_what_root_makes_belongs_to_the_owner_of_the_directory(
    place: Path, attempt: Callable[[Path], None]
) -> None:
    give(place / ".seline", 0)  # as an older Seline left it
    for name in (".seline/staging", "quarantine"):
        (place / name).rmdir()
    for path in (place / ".seline").rglob("*"):
        if path.is_file():
            os.chown(path, NOBODY, NOBODY)

    attempt(place)
    with open_seline(place, lock_wait_s=0) as seline:
        seline.data.save_json("new.json", {})
        seline.data.restore_from_backup(B)

    assert owners(place) == {NOBODY}
    with user(NOBODY):
        save(place)


def test_root_may_come_before_the_first_start_of_the_owner(place: Path) -> None:
    empty = place.parent / "empty"
    empty.mkdir()
    os.chown(empty, NOBODY, NOBODY)
    with open_seline(empty) as seline:
        assert seline.data.documents() == []

    assert owners(empty) == {NOBODY}
    with user(NOBODY):
        save(empty)


def test_root_gives_away_what_inherits_the_group_of_the_directory(place: Path) -> None:
    """In a setgid directory the files of root do not have root's group."""
    for directory in (place, *filter(Path.is_dir, place.rglob("*"))):
        directory.chmod(0o2700)

    save(place)
    append(place, 1)

    assert owners(place) == {NOBODY}


def test_root_that_may_not_give_files_away_opens_the_volume(place: Path) -> None:
    """As in a container without CAP_CHOWN."""
    empty = place.parent / "empty"
    empty.mkdir()
    os.chown(empty, NOBODY, NOBODY)
    code = f"""
from seline.blocking import open_seline
with open_seline({str(empty)!r}, lock_wait_s=0) as seline:
    seline.data.save_json({A!r}, {{"n": 1}})
"""
    command = ["setpriv", "--bounding-set=-chown", sys.executable, "-c", code]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr
    load(empty)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EROFS])
def test_a_system_that_changes_no_owner_refuses_no_save(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fchown", failing_call(number))

    save(place)


@pytest.mark.usefixtures("undone")
def test_root_reads_a_read_only_volume_in_which_it_owns_a_directory(place: Path) -> None:
    give(place / ".seline", 0)
    bind(place, place, "ro")

    load(place)


@pytest.mark.parametrize("name", ["audit.jsonl", "lock"])
@pytest.mark.parametrize("put", [os.link, os.rename])
def test_root_gives_away_no_file_that_the_owner_put_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, put: Callable[[Path, Path], None]
) -> None:
    """The owner of the directory may link or rename a file of root into it."""

    def refuse(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # so the lock is a file

    monkeypatch.setattr(fcntl, "flock", refuse)
    secret = place.parent / "secret"
    secret.write_text("{}\n")
    (place / ".seline" / name).unlink(missing_ok=True)
    put(secret, place / ".seline" / name)

    load(place)
    append(place, 1)

    assert (place / ".seline" / name).stat().st_uid == 0


@pytest.mark.parametrize("content", [b"x\n", b"\xb1\n"])
def test_a_damaged_format_file_locks_no_one_out(place: Path, content: bytes) -> None:
    before = (place / ".seline" / "format").read_bytes()
    (place / ".seline" / "format").write_bytes(content)

    load(place)

    assert (place / ".seline" / "format").read_bytes() == before


@ACCESS
@pytest.mark.parametrize("source", ["listing", "verify", "restore"])
def test_a_backup_that_root_copied_is_readable_after_the_step(
    place: Path, follow: Follow, source: str
) -> None:
    [backup] = (path for path in (place / "backups").iterdir() if path.name.startswith(A[:-5]))
    root_owns(f"backups/{backup.name}")(place)

    with user(NOBODY), open_seline(place, lock_wait_s=0) as seline:
        if source == "listing":
            [text] = (found.because for found in seline.data.backups(A))
        elif source == "verify":
            [text] = (found.detail for found in seline.verify().findings)
        else:
            with pytest.raises(BackupNotFound) as raised:
                seline.data.restore(A, backup.name)
            text = raised.value.message

    assert f"chown -R {NOBODY}:{NOBODY} '{backup}'" in text
    run_as_root(follow(text.removesuffix(".") + "."))
    with user(NOBODY), open_seline(place, lock_wait_s=0) as seline:
        assert not seline.verify().findings
        assert seline.data.restore(A)


@pytest.mark.follows("cure:not_regular")
def test_a_directory_in_place_of_the_audit_log_is_named_with_its_cure(
    place: Path, caplog: pytest.LogCaptureFixture, follow: Follow
) -> None:
    path = place / ".seline" / "audit.jsonl"
    path.mkdir()
    for number in range(2):
        append(place, number)
        if number == 0:
            [message] = caplog.messages
            assert str(path) in message
            run_as_root(follow(message[message.index("Move it away") :]))

    assert json.loads(path.read_text())["what"] == "number 1"
    assert path.stat().st_uid == NOBODY


def too_large(place: Path) -> None:
    (place / A).write_text(f'{{"text": "{"x" * 2000}"}}')


@pytest.mark.follows("storage/volume/inspect:_cure")
def test_a_sound_file_that_is_only_too_large_is_not_to_be_given_up(
    place: Path, follow: Follow
) -> None:
    too_large(place)
    size_bytes = (place / A).stat().st_size
    with open_seline(place, storage__document_bytes_max=1024) as seline:
        with pytest.raises(DocumentUnreadable) as raised:
            seline.data.load_json(A)
        [check] = [check for check in seline.health()["checks"] if check["name"] == "documents"]  # type: ignore[index,union-attr,call-overload,misc]
        assert incident_kinds(seline) == []
    assert check["fix"].endswith(f". Next: {raised.value.hint}")  # type: ignore[index]
    [setting] = re.findall(r"`storage\.(\w+ = \d+)`", follow(raised.value.hint).text)
    assert setting == f"document_bytes_max = {size_bytes}"

    with open_seline(place, storage__document_bytes_max=size_bytes) as seline:
        assert "text" in seline.data.load_json(A)  # type: ignore[operator]


def test_a_link_is_no_error_of_the_disk(place: Path) -> None:
    linked(place)
    with open_seline(place, storage__settle_s=0) as seline:
        with pytest.raises(DocumentUnreadable):
            seline.data.load_json(A)
        [finding] = seline.verify().findings
        kinds = [(check["name"], check["status"]) for check in seline.health()["checks"]]  # type: ignore[index,union-attr,call-overload,misc]
    assert finding.outcome == "unreadable"
    assert ("documents", "critical") in kinds
    assert ("disk_error", "warning") not in kinds


def append(directory: Path, number: int) -> None:
    """Write one line into the audit log."""
    log = AuditLog(str(directory))
    log.open()
    log.append(who="a", what=f"number {number}", outcome="200")
    log.close()


@pytest.mark.follows("cure:ENOSPC")
def test_an_audit_log_without_space_is_written_once_space_is_freed(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, follow: Follow
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_call(errno.ENOSPC))
        append(place, 1)
    [message] = caplog.messages
    step = follow(message[message.index("Free space") :])
    assert "Filesystem" in shell(place, step.quoted[0])
    append(place, 2)

    assert "number 2" in (place / ".seline" / "audit.jsonl").read_text()


LIMITS: Final = {
    "open files": ("ulimit -S -n 14", pytest.mark.follows("cure:EMFILE")),
    "the size of a file": ("ulimit -S -f 4", pytest.mark.follows("cure:EFBIG")),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "limit", [pytest.param(row, marks=mark, id=name) for name, (row, mark) in LIMITS.items()]
)
def test_a_limit_of_the_process_is_raised(tmp_path: Path, limit: str, follow: Follow) -> None:
    value = tmp_path / "value.json"
    value.write_text(json.dumps({"text": "x" * 50_000}))
    save = f"seline save {A} {value} --data-dir {tmp_path / 'data'}"
    refused = shell(tmp_path, f"({limit}; {save} 2>&1 || true)")

    raised = follow(refused.partition(NEXT)[2].strip()).quoted[0]

    shell(tmp_path, f"{limit}; {raised}; {save}")


INJECTED: Final = {
    errno.EACCES: (VolumeFailed, "chown", "access_refused"),
    errno.EPERM: (VolumeFailed, "chattr", "access_refused"),
    errno.EXDEV: (VolumeFailed, "mount of its own", "access_refused"),
    errno.EBUSY: (VolumeFailed, "mount of its own", "access_refused"),
    errno.EMFILE: (VolumeFailed, "LimitNOFILE", "access_refused"),
    errno.ENFILE: (VolumeFailed, "LimitNOFILE", "access_refused"),
    errno.ELOOP: (VolumeFailed, "link", "access_refused"),
    errno.EFBIG: (VolumeFailed, "ulimit -f", "access_refused"),
    errno.ENOMEM: (VolumeFailed, "memory", "access_refused"),
    errno.ENOTSUP: (VolumeFailed, "ext4", "access_refused"),
    errno.EROFS: (VolumeReadOnly, "remount,rw", "access_refused"),
    errno.ENOSPC: (VolumeFull, "volume", "no_room"),
    errno.EDQUOT: (VolumeFull, "quota", "no_room"),
    errno.EIO: (VolumeFailed, "dmesg", "disk_error"),
    errno.ESTALE: (VolumeFailed, "findmnt", "disk_error"),
    errno.EUCLEAN: (VolumeFailed, "dmesg", "disk_error"),
}  # fmt: skip


@pytest.mark.usefixtures("first_form")
@pytest.mark.parametrize("number", INJECTED, ids=errno.errorcode.get)
def test_an_error_of_a_save_names_its_cause_and_its_cure(
    seline: Seline, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kind, named, incident = INJECTED[number]
    seline.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(files, "stage", failing_call(number))
        with pytest.raises(kind) as raised:
            seline.data.save_json(A, {"n": 2})

    assert errno.errorcode[number] in raised.value.message
    assert named in raised.value.hint
    assert incident_kinds(seline) in ([incident], [])
    assert incident_kinds(seline) or incident == "no_room"
    seline.data.save_json(A, {"n": 3})


def refused_accesses(seline: Seline) -> list[str]:
    checks: list[dict[str, str]] = seline.health()["checks"]  # type: ignore[assignment]
    return [check["detail"] for check in checks if check["name"] == "access_refused"]


@pytest.mark.usefixtures("first_form")
def test_health_shows_a_refused_directory_until_it_may_be_written(place: Path) -> None:
    with user(NOBODY), open_seline(place, lock_wait_s=0) as seline:
        (place / "backups").chmod(0o500)
        with pytest.raises(VolumeFailed):
            seline.data.save_json(A, {"n": 2})
        seline.data.save_json("first.json", {"n": 1})
        [detail] = refused_accesses(seline)
        assert f"chmod -R u+rwX '{place}/backups'" in detail

        (place / "backups").chmod(0o700)

        assert refused_accesses(seline) == []


@pytest.mark.usefixtures("first_form")
def test_health_shows_a_refused_document_until_it_is_written(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(B, {"n": 0})  # the first write makes the id of the volume, too
    with monkeypatch.context() as patch:
        patch.setattr(files, "stage", failing_call(errno.EPERM))
        with pytest.raises(VolumeFailed):
            seline.data.save_json(A, {"n": 2})
    seline.data.save_json(B, {"n": 1})
    [detail] = refused_accesses(seline)
    assert "Writing a.json: EPERM" in detail

    seline.data.save_json(A, {"n": 2})

    assert refused_accesses(seline) == []
