"""The next steps that commands print: each is run as it is printed, and then the command works."""

import contextlib
import io
import json
import os
import pty
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import click
import pytest

from seline import bit_flip, errors, settings
from seline.cli.errors import exit_on_error
from seline.client import connect
from seline.settings import load_settings
from tests.command_line import Line, line_at, served
from tests.faults.forms import chosen
from tests.hints.following import Step, next_of, run, shell
from tests.integration.test_cli_with_server import held

NAME: Final = "user_profile.json"
Follow = Callable[[str], Step]


def saved(line: Line, name: str = NAME, *values: object) -> None:
    """Save a document once for each value."""
    for value in values or ({"n": 1}, {"n": 2}):
        done = line("save", name, stdin=json.dumps(value))
        assert done.code == 0, done.err


def broken(line: Line, name: str = NAME) -> None:
    """Save a document without a backup, and break it as a disk does."""
    saved(line, name, {"n": 1})
    damage(line.data / name)


def damage(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def printed(text: str, start: str) -> str:
    """Return the printed line that holds `start`."""
    [found] = [line for line in text.splitlines() if start in line]
    return found


# documents and backups


@pytest.mark.follows("error:document_not_found", "cli/terminal:notice_undo")
def test_a_deleted_document_is_found_and_restored(line: Line, follow: Follow) -> None:
    saved(line)
    line("delete", NAME, "--yes")
    step = follow(next_of(line("load", NAME)))
    listing, restoring = step.commands(NAME=NAME)
    assert run(line, listing).code == 0
    assert run(line, restoring).code == 0
    assert line("load", NAME).value() == {"n": 2}

    deleted = line("delete", NAME, "--yes")
    [undo] = follow(printed(deleted.err, "To undo")).commands()
    assert run(line, undo).code == 0
    assert line("load", NAME).value() == {"n": 2}


@pytest.mark.follows("cli/terminal:notice_undo")
def test_a_restore_is_undone_by_the_printed_command(line: Line, follow: Follow) -> None:
    saved(line)
    restored = line("restore", NAME, "--yes")
    assert line("load", NAME).value() == {"n": 1}

    [undo] = follow(printed(restored.err, "To undo")).commands()

    assert run(line, undo).code == 0
    assert line("load", NAME).value() == {"n": 2}


@pytest.mark.follows("manager/changes:_nothing_of")
def test_a_restore_of_an_unknown_name_leads_to_the_names(line: Line, follow: Follow) -> None:
    saved(line)
    for backup in ((), ("user_profile_20010101_000000.json",)):
        refused = line("restore", "usr_profile.json", *backup, "--yes")
        assert refused.code == 4
        [listing] = follow(next_of(refused)).commands()
        assert NAME in run(line, listing).out


@pytest.mark.prove
@pytest.mark.follows("error:backup_not_found", "ports/medium:not_in_quarantine")
def test_a_backup_and_a_quarantined_item_are_found_in_their_lists(
    line: Line, follow: Follow
) -> None:
    saved(line)
    step = follow(next_of(line("load", NAME, "--backup", "user_profile_20010101_000000.json")))
    [listing] = step.commands(NAME=NAME)
    backup = run(line, f"{listing} --json").value()["backups"][0]["name"]
    assert line("load", NAME, "--backup", backup).value() == {"n": 1}

    damage(line.data / NAME)
    line("load", NAME)
    step = follow(next_of(line("quarantine", "none_20010101_000000.json")))
    [listing] = step.commands()
    item = run(line, f"{listing} --json").value()["quarantine"][0]["name"]
    assert line("quarantine", item).code == 0


@pytest.mark.prove
@pytest.mark.follows("error:document_unrecoverable", "cli/documents:delete", "cli/damage:reset")
def test_a_document_that_is_beyond_recovery_is_given_up_or_imported(
    line: Line, follow: Follow
) -> None:
    broken(line)
    step = follow(next_of(line("load", NAME)))
    step.asks("its bytes go to quarantine")
    values = {"NAME": NAME, "EXPORT": "export.json"}
    (line.folder / "export.json").write_text(json.dumps({"files": {NAME: {"n": 7}}}))
    imports, resets = step.commands(**values)
    assert run(line, imports).code == 0
    assert line("load", NAME).value() == {"n": 7}
    line("delete", NAME, "--yes", "--purge")
    broken(line)
    assert run(line, resets).code == 0
    assert line("load", NAME).code == 4

    broken(line)
    reset = line("reset", NAME, "--yes")
    broken(line)
    deleted = line("delete", NAME, "--yes")
    for done in (reset, deleted):
        [listing] = follow(printed(done.err, "To see")).commands()
        assert NAME in run(line, listing).out


@pytest.mark.follows("storage/volume/inspect:_cure_of_edit")
@pytest.mark.parametrize("text", ['{"n": 1,}', '{"n": "é"}'])
def test_a_hand_edit_without_an_earlier_content_is_corrected(
    line: Line, follow: Follow, text: str
) -> None:
    line.data.mkdir()
    path = line.data / NAME
    path.write_text(text, encoding="utf-16-le" if "é" in text else "utf-8")
    os.utime(path, (1, 1))
    given = next_of(line("load", NAME, SELINE_STORAGE__SETTLE_S="0"))
    correction, _, others = given.partition(" Otherwise: ")
    assert f"`seline reset {NAME}`" in others
    checks = line("status", "--json").value()["checks"]
    [fix] = [check["fix"] for check in checks if check["name"] == "documents"]
    assert fix.startswith(f"{NAME}: ")
    assert fix.endswith(f". Next: {given}")

    step = follow(correction)
    if "é" in text:
        shell(line.folder, step.quoted[0])
    else:
        assert "(line 1, column 9)" in fix
        step.asks("Remove that comma")
        path.write_text('{"n": 1}')

    assert line("load", NAME).code == 0


@pytest.mark.prove
@pytest.mark.follows("storage/volume/current:_unrecoverable")
def test_a_document_that_is_being_written_is_read_a_few_seconds_later(
    line: Line, follow: Follow
) -> None:
    line.data.mkdir()
    (line.data / NAME).write_text('{"n": ')
    slow = {"SELINE_STORAGE__SETTLE_S": "60"}
    for refused in (line("load", NAME, **slow), line("save", NAME, stdin="{}")):
        follow(next_of(refused)).asks("Read it again in a few seconds")
    (line.data / NAME).write_text('{"n": 1}')

    assert line("load", NAME).value() == {"n": 1}


@pytest.mark.follows("cure:not_regular")
def test_a_document_of_the_wrong_kind_is_moved_away(line: Line, follow: Follow) -> None:
    saved(line)
    (line.data / "a.json").mkdir()
    [command] = follow(next_of(line("load", "a.json"))).quoted
    shell(line.folder, command)
    (line.data / "a.json").write_text('{"n": 1}')

    assert line("load", "a.json").value() == {"n": 1}


@pytest.mark.follows("cli/documents:precondition")
def test_a_revision_is_found_where_the_text_says(line: Line, follow: Follow) -> None:
    saved(line)
    step = follow(next_of(line("save", NAME, "--if-match", "latest", stdin="{}")))
    listing, saving = step.commands()
    [document] = run(line, listing).value()["documents"]
    second = line("save", NAME, "--if-match", document["revision"], stdin='{"n": 3}')
    assert saving == "seline save"

    assert line("save", NAME, "--if-match", second.out.strip(), stdin='{"n": 4}').code == 0


@pytest.mark.prove
@pytest.mark.follows("cli/documents:documents", "cli/tokens:list_tokens")
def test_an_empty_list_names_the_command_that_fills_it(line: Line, follow: Follow) -> None:
    line.data.mkdir()
    (line.folder / "new.json").write_text("{}")
    for verb in (("documents",), ("token", "list")):
        step = follow(line(*verb).err.strip())
        [command] = step.commands(NAME=NAME, FILE="new.json")
        assert run(line, command).code == 0

        assert line(*verb).out


@pytest.mark.prove
@pytest.mark.follows("cli/verbs:_confirm")
def test_a_question_without_a_terminal_is_answered_by_an_option(line: Line, follow: Follow) -> None:
    saved(line)
    step = follow(next_of(line("delete", NAME)))
    done, look = re.findall(r"--[\w-]+", step.text)
    assert "would be deleted" in line("delete", NAME, look).err
    assert line("load", NAME).code == 0
    assert line("delete", NAME, done).code == 0

    assert line("load", NAME).code == 4


@pytest.mark.follows("client/api:_segment")
def test_a_name_is_copied_from_the_list(line: Line, follow: Follow) -> None:
    saved(line)
    follow(next_of(line("backups", ".."))).asks("List the names, then copy one")
    [document] = line("documents", "--json").value()["documents"]

    assert line("backups", document["name"]).code == 0


# damage and the demonstration


@pytest.mark.prove
@pytest.mark.follows("cli/damage:_notify", "cli/demo:_show", "domain/incident:")
def test_the_demonstration_ends_with_commands_that_work(line: Line, follow: Follow) -> None:
    saved(line)
    flip, verify = follow(printed(line("demo").out, "Next: ")).commands(NAME=NAME)
    assert run(line, flip).code == 0
    found = run(line, verify)
    assert found.code == 3
    [status] = follow(printed(found.err, "Next: ")).commands()
    assert run(line, status).code == 0

    with served(line):
        assert run(line, flip).code == 0
        assert line("load", NAME).code == 0
        checks = run(line, f"{status} --json").value()["checks"]
        [fix] = {check["fix"] for check in checks if check["name"] == "recovered"}
        [listing] = follow(fix).commands()
        assert NAME in run(line, listing).out


@pytest.mark.follows("bit_flip:flip_in_place")
def test_a_flip_of_a_file_that_changed_is_tried_again(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / NAME
    path.write_bytes(b'{"n": 2}')
    with pytest.raises(errors.SelineError) as refused:
        bit_flip.flip_in_place(str(path), b'{"n": 1}', b'{"n": 0}')
    follow(refused.value.hint).asks("Try again")

    bit_flip.flip_in_place(str(path), b'{"n": 2}', b'{"n": 3}')

    assert path.read_bytes() == b'{"n": 3}'


# exports and imports


@pytest.mark.prove
@pytest.mark.follows("os:EEXIST", "os:other")
def test_a_file_that_exists_or_is_not_there_is_named_otherwise(line: Line, follow: Follow) -> None:
    saved(line)
    assert line("export", "all.json").code == 0
    step = follow(next_of(line("export", "all.json")))
    step.asks("Choose another name")
    [force] = re.findall(r"--[\w-]+", step.text)
    assert line("export", "all.json", force).code == 0
    assert line("export", "more.json").code == 0

    follow(next_of(line("save", NAME, "new.json"))).asks("Check the path")
    (line.folder / "new.json").write_text("{}")
    assert line("save", NAME, "new.json").code == 0


@pytest.mark.prove
@pytest.mark.follows("error:export_failed", "error:export_damaged", "cli/imports:_read_legacy#2")
def test_an_export_that_failed_or_is_damaged_is_made_again(line: Line, follow: Follow) -> None:
    saved(line)
    (line.folder / "nas").write_text("a file")
    step = follow(next_of(line("export", "nas/")))
    step.asks("Check the destination's space, rights and address", "export again")
    (line.folder / "nas").unlink()
    made = line("export", "nas/")
    assert made.code == 0, made.err

    [pack] = Path(line.folder, made.out.strip()).glob("pack-*")
    pack.write_bytes(pack.read_bytes()[:-9])
    follow(next_of(line("import", "nas", "--yes"))).asks("Take another export")
    time.sleep(1.1)  # an export's name has its second
    again = line("export", "nas/").out.strip()
    assert line("import", again, "--yes").code == 0

    Path(line.folder, again, "manifest.json").unlink()
    follow(next_of(line("import", again, "--yes"))).asks("Take another export")
    time.sleep(1.1)
    assert line("import", line("export", "nas/").out.strip(), "--yes").code == 0


@pytest.mark.prove
@pytest.mark.follows("cli/exports:_report_lacking")
def test_why_an_export_lacks_a_document_is_found(line: Line, follow: Follow) -> None:
    saved(line, "other.json")
    broken(line)
    [loading] = follow(next_of(line("export"))).commands()
    refused = run(line, loading)
    assert f"{NAME} is broken" in refused.err
    assert line("reset", NAME, "--yes").code == 0
    assert line("export").code == 0


@pytest.mark.prove
@pytest.mark.follows("cli/imports:_read_manifest")
def test_what_an_export_lacks_is_found(line: Line, follow: Follow) -> None:
    saved(line, "other.json")
    saved(line, NAME, {"n": 1})
    older = line("export", "nas/").out.strip()
    broken(line, NAME)
    time.sleep(1.1)
    newer = line("export", "nas/").out.strip()
    lacking = line("import", newer, "--yes")
    follow(next_of(lacking).splitlines()[0]).asks("An older export", "name its folder")
    assert line("reset", NAME, "--yes").code == 0
    assert line("import", older, "--yes").code == 0
    assert line("load", NAME).value() == {"n": 1}


@pytest.mark.prove
@pytest.mark.follows("operations/restore:_check_room_for")
def test_backups_without_room_are_left_out(line: Line, follow: Follow) -> None:
    for number in range(4):
        saved(line, NAME, {"n": number, "filler": "x" * 600_000})
    export = line("export", "nas/").out.strip()
    assert line("delete", NAME, "--purge", "--yes").code == 0
    small = {"SELINE_STORAGE__VOLUME_LIMIT_MB": "2"}

    full = line("import", export, "--yes", **small)

    assert full.code == 6
    [command] = follow(next_of(full)).commands(EXPORT=f"{export} --yes")
    assert line(*shlex.split(command)[1:], **small).code == 0
    assert line("load", NAME).value()["n"] == 3
    assert line("backups", NAME, "--json").value()["backups"] == []


@pytest.mark.prove
@pytest.mark.follows("cli/imports:_read_legacy", "cli/imports:_read_legacy#3")
def test_a_folder_of_an_older_bot_is_corrected(line: Line, follow: Follow) -> None:
    old = line.folder / "old"
    old.mkdir()
    follow(next_of(line("import", "old", "--yes"))).asks("Name the folder")
    (old / "good.json").write_text("{}")
    (old / "odd.json").write_text("{,}")
    (line.folder / "file.json").write_text("{}")
    (old / "link.json").symlink_to(line.folder / "file.json")
    refused = line("import", "old", "--yes")
    step = follow(next_of(refused))
    step.asks("Correct the files that are named above")
    hints = [text.strip() for text in refused.err.splitlines() if text.startswith("  ")]
    copied = next(text for text in hints if "what the link leads to" in text)
    [skip] = re.findall(r"--[\w-]+", step.text)
    assert line("import", "old", "--yes", skip).code == 0

    shell(line.folder, copied.split("`")[1])
    (old / "odd.json").write_text("{}")
    assert line("import", "old", "--yes").code == 0
    names = {document["name"] for document in line("documents", "--json").value()["documents"]}
    assert names == {"good.json", "odd.json", "link.json"}


# where the store is


@pytest.mark.prove
@pytest.mark.follows("client/find_store:check_data_dir", "storage/volume/lock:_open_top")
def test_a_data_directory_is_named_or_made(line: Line, follow: Follow) -> None:
    step = follow(next_of(line("documents")))
    option, variable = re.findall(r"--[\w-]+|SELINE_\w+", step.text)
    (line.folder / "elsewhere").mkdir()
    assert line("documents", option, "elsewhere").code == 0
    assert line("documents", **{variable: "elsewhere"}).code == 0
    serving, saving = step.commands()
    assert serving == "seline serve"
    assert line(*saving.split()[1:], NAME, stdin="{}").code == 0
    assert line("documents").code == 0

    (line.folder / "file").write_text("")
    step = follow(next_of(line("save", NAME, SELINE_DATA_DIR="file", stdin="{}")))
    option, variable = re.findall(r"--[\w-]+|SELINE_\w+", step.text)
    assert line("save", NAME, option, "made", stdin="{}").code == 0
    assert line("save", NAME, **{variable: "made/too"}, stdin="{}").code == 0


@pytest.mark.follows("storage/volume/directory:_inner")
def test_what_lies_in_the_place_of_a_directory_is_moved_away(line: Line, follow: Follow) -> None:
    saved(line)
    (line.data / "backups").rename(line.folder / "larger")
    (line.data / "backups").symlink_to(line.folder / "larger")
    [command] = follow(next_of(line("save", NAME, stdin="{}"))).quoted
    shell(line.folder, command)

    assert line("restore", NAME, "--yes").code == 0
    assert line("load", NAME).value() == {"n": 1}


@pytest.mark.prove
@pytest.mark.follows("client/find_store:_server_at", "client/api:_connection_errors")
def test_an_address_is_corrected(line: Line, follow: Follow) -> None:
    step = follow(next_of(line("documents", "--url", "localhost")))
    option, variable, form = re.findall(r"--[\w-]+|SELINE_\w+|http://host:port", step.text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = form.replace("host:port", f"127.0.0.1:{port}")
    nothing = line("documents", option, url)
    follow(next_of(nothing)).asks("Check the address, and that the server runs there")

    with served(line, "--port", port) as server:
        assert line("documents", option, url, SELINE_TOKEN=server.token).code == 0
        called = {variable: url, "SELINE_TOKEN": server.token, "SELINE_DATA_DIR": ""}
        assert line("documents", **called).code == 0


@contextlib.contextmanager
def answering(answer: bytes) -> Generator[str]:
    """Answer each connection with these bytes and close it; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.prove
@pytest.mark.follows(
    "client/api:_connection_errors#2", "client/api:_connection_errors#3", "client/api:error_of"
)
def test_a_connection_that_breaks_is_looked_after(line: Line, follow: Follow) -> None:
    saved(line)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") as url:
        change = line("save", NAME, "--url", url, stdin='{"n": 3}')
        read = line("load", NAME, "--url", url)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[:-2]) as url:
        pass
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno") as url:
        other = line("load", NAME, "--url", url)
    follow(next_of(change)).asks("look before you repeat it")
    follow(next_of(read)).asks("do not use it; try again")
    follow(next_of(other)).asks("Check that the address is Seline's own")

    with served(line) as server:
        at = ("--url", server.url)
        assert line("load", NAME, *at, SELINE_TOKEN=line("token", "create").out.strip()).code == 0


@pytest.mark.prove
@pytest.mark.follows("error:token_not_found", "error:job_not_found")
def test_a_token_and_a_job_are_found_in_their_lists(line: Line, follow: Follow) -> None:
    line("token", "create")
    [listing] = follow(next_of(line("token", "revoke", "00000000", "--yes"))).commands()
    [token] = run(line, f"{listing} --json").value()["tokens"]
    assert line("token", "revoke", token["id"], "--yes").code == 0

    [listing] = follow(next_of(line("jobs", "run", "none"))).commands()
    job = run(line, f"{listing} --json").value()["jobs"][0]["name"]
    assert line("jobs", "run", job).code == 0


# the server


@pytest.mark.prove(first=True)
@pytest.mark.follows("cli/server:_announce#2", "server/listening:_cannot_listen*")
def test_the_first_start_is_followed_to_the_letter(
    line: Line, tmp_path: Path, follow: Follow
) -> None:
    with served(line) as server:
        curl = printed(server.greeting, "curl -H").strip()
        step = follow(printed(server.greeting, "Next: "))
        step.asks("open the link", "run that line")
        link = printed(server.greeting, "/sign-in?once=").strip()
        address, _, code = link.partition("?once=")
        assert "once" in shell(line.folder, f"curl --silent '{link}'")
        signed_in = shell(line.folder, f"curl --silent --include --data once={code} {address}")
        assert " 303 " in signed_in
        assert "Set-Cookie: seline=" in signed_in
        health = json.loads(shell(line.folder, f"{curl} --silent"))
        assert health["status"] in ("healthy", "warning")
        [command] = step.commands()
        assert run(line, command).code == 0

        other = line_at(tmp_path, SELINE_DATA_DIR="other")
        port = server.url.rpartition(":")[2]
        step = follow(next_of(other("serve", "--host", "127.0.0.1", "--port", port)))
        step.asks("Stop what listens there", "choose another port", "--port")
        for variable in re.findall(r"\b(?:SELINE_\w+|PORT)\b", step.text):
            with greeted(line_at(tmp_path, SELINE_DATA_DIR="other", **{variable: "0"})):
                pass
    wrong = line_at(tmp_path, SELINE_DATA_DIR="other", SELINE_SERVER__HOST="192.0.2.1")
    step = follow(next_of(wrong("serve")))
    step.asks("Give an address of this machine with --host", "SELINE_SERVER__HOST")
    for address in re.findall(r"\d+(?:\.\d+){3}", step.text):
        with greeted(line_at(tmp_path, SELINE_DATA_DIR="other", SELINE_SERVER__HOST=address)):
            pass


@pytest.mark.prove
@pytest.mark.follows("cli/server:_announce")
def test_the_first_start_without_the_page_names_the_line_alone(line: Line, follow: Follow) -> None:
    with served(line_at(line.folder, SELINE_SERVER__PAGE="false")) as server:
        step = follow(printed(server.greeting, "Next: "))
        step.asks("run that line")
        assert "/sign-in" not in server.greeting
        for command in step.commands():
            assert run(line, command).code == 0


@pytest.mark.prove
@pytest.mark.follows("cli/server:_announce#3", "cli/server:_announce#4")
def test_a_later_start_on_a_terminal_names_commands_that_work(line: Line, follow: Follow) -> None:
    for start in ("There is no token yet", "Next: "):
        public = {"SELINE_SERVER__HOST": "0.0.0.0"} if start != "Next: " else {}
        with greeted(line_at(line.folder, **public)) as greeting:
            step = follow(printed(greeting, start))
            for command in step.commands():
                assert run(line, command).code == 0, command


@contextlib.contextmanager
def greeted(line: Line) -> Generator[str]:
    """Run `seline serve` on a terminal; yield what it prints about tokens."""
    terminal, end = pty.openpty()
    line = Line(folder=line.folder, environ={"PORT": "0", **line.environ})
    server = line.start("serve", stdout=end)
    os.close(end)
    text = ""
    try:
        with contextlib.suppress(OSError):
            while not re.search(r"Next: .*\n", text):
                text += os.read(terminal, 4096).decode()
        yield text.replace("\r\n", "\n")
    finally:
        server.terminate()
        assert server.wait(30) == 0
        os.close(terminal)


# settings


@pytest.mark.follows(
    "settings/rules:checked",
    "settings/rules:unknown",
    "settings/sources:from_file",
    "settings/sources:from_file#2",
    "settings/sources:_given",
    "settings/__init__:_check_destinations",
)
def test_a_wrong_setting_is_corrected(line: Line, follow: Follow) -> None:
    def hint(*arguments: str, **environ: str) -> Step:
        refused = line(*arguments, "config", "show", **environ)
        assert refused.code == 2, refused.err
        return follow(next_of(refused))

    wrong = hint(SELINE_STORAGE__DOCUMENTS_MAX="many")
    value = re.search(r"to a whole number from (\d+)", wrong.text)
    assert value is not None
    for environ in ({"SELINE_STORAGE__DOCUMENTS_MAX": value[1]}, {}):
        assert line("config", "show", **environ).code == 0

    [listing] = hint(SELINE_STORAGE__DOCUMENT_MAX="1").commands()
    assert "storage.documents_max" in run(line, listing).out

    other = "Let Seline's user read it, or name another file by --config or SELINE_CONFIG"
    hint("--config", "none.toml").asks(other)
    (line.folder / "config").mkdir()
    (line.folder / "config" / "seline.toml").symlink_to("seline.toml")
    hint().asks(other)
    assert line("--config", "/dev/null", "config", "show").code == 0
    (line.folder / "config" / "seline.toml").unlink()
    (line.folder / "my.toml").write_text("[storage\n")
    correct = hint("--config", "my.toml")
    correct.asks("Correct the line named", "config/seline.toml")
    (line.folder / "my.toml").write_text("[storage]\ndocuments_max = 5\n")
    for given in ({}, {"SELINE_CONFIG": "my.toml"}):
        option = () if given else ("--config", "my.toml")
        assert line(*option, "config", "show", **given).code == 0

    secret = {"SELINE_ADMIN_TOKEN_FILE": "secret"}
    hint(**secret).asks("Check that the file exists")
    (line.folder / "secret").write_text("a-token-of-some-length")
    assert line("config", "show", **secret).code == 0

    inside = [{"name": "nas", "url": f"file://{line.data}/exports"}]
    step = hint(SELINE_EXPORTS__DESTINATIONS=json.dumps(inside))
    step.asks("Name a folder on another disk")
    outside = json.dumps([{"name": "nas", "url": f"file://{line.folder}/exports"}])
    assert line("config", "show", SELINE_EXPORTS__DESTINATIONS=outside).code == 0


@pytest.mark.follows("settings/__init__:_data_dir")
def test_a_directory_of_the_platform_that_cannot_be_looked_at_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    monkeypatch.setattr(settings, "RAILWAY_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").symlink_to("data")
    with pytest.raises(errors.SettingsError, match="data cannot be looked at: Too many") as refused:
        load_settings(environ={})

    follow(refused.value.hint).asks("name the data directory by SELINE_DATA_DIR")

    assert load_settings(environ={"SELINE_DATA_DIR": "here"}).data_dir == "here"
    (tmp_path / "data").unlink()
    assert load_settings(environ={}).data_dir == "./data"


@pytest.mark.follows("settings/texts:refuse_literal_folder")
def test_a_folder_with_a_literal_name_is_renamed(line: Line, follow: Follow) -> None:
    saved(line, NAME, {"n": 1})
    (line.folder / "home").mkdir()
    line.data.rename(line.folder / "~")
    home = {"SELINE_DATA_DIR": "~", "HOME": str(line.folder / "home")}
    step = follow(next_of(line("documents", **home)))
    named = re.search(r"Rename the folder ('.*'); to (\S+) if", step.text)
    assert named is not None
    (line.folder / "home").rmdir()
    Path(shlex.split(named[1])[0]).rename(named[2])

    assert line("load", NAME, **home).value() == {"n": 1}


# how a command ends


@pytest.mark.follows("cli/errors:exit_on_error", "cli/errors:_report", "error:seline_error")
def test_what_a_command_names_at_its_end_exists(
    line: Line, capsys: pytest.CaptureFixture[str], follow: Follow
) -> None:
    def ended(error: BaseException) -> Step:
        with pytest.raises(click.exceptions.Exit), exit_on_error():
            raise error
        return follow(capsys.readouterr().err.partition("Next: ")[2].strip())

    saved(line)
    for error in (KeyboardInterrupt(), errors.SelineError("A response of a newer server.")):
        for command in ended(error).commands():
            assert run(line, command).code == 0
    defect = ended(ZeroDivisionError("a defect"))
    details = re.search(r"\S+\.txt", defect.text)
    assert details is not None
    assert "ZeroDivisionError: a defect" in Path(details[0]).read_text(encoding="utf-8")
    Path(details[0]).unlink()


@pytest.mark.follows("client/api:_pieces")
async def test_a_file_that_became_shorter_is_sent_again(tmp_path: Path, follow: Follow) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            piece = super().read(size)
            self.truncate(self.tell())
            return piece

    settings = load_settings(environ=chosen(), arguments={"storage.data_dir": str(tmp_path)})
    async with connect(settings, notify=lambda _notice: None) as api:
        with pytest.raises(errors.InvalidRequest) as refused:
            await api.request("PUT", "/documents/{}", NAME, body=Shrinking(b" " * (1 << 20)))
        assert (await api.get("/documents"))["documents"] == []
        follow(refused.value.hint).asks("Send it again once no other process writes it")
        await api.request("PUT", "/documents/{}", NAME, body=io.BytesIO(b"{}"))


# another process holds the store


@pytest.mark.prove
@pytest.mark.follows("client/find_store:_holder_address", "client/find_store:_holder_address#2")
def test_a_holder_that_cannot_be_reached_by_socket_is_reached_with_a_token(
    line: Line, follow: Follow
) -> None:
    with served(line) as server:
        private = line.data / ".seline"
        (private / "control.sock").rename(private / "away.sock")
        step = follow(next_of(line("documents")))
        step.asks("then run the same command again")
        [variable] = re.findall(r"SELINE_\w+", step.text)
        assert line("documents", **{variable: server.token}).code == 0

        announced = (private / "server.json").read_text()
        elsewhere = json.loads(announced) | {"host": "another-container"}
        (private / "server.json").write_text(json.dumps(elsewhere))
        step = follow(next_of(line("documents")))
        step.asks("Run this command there", "with a token")
        [option] = re.findall(r"--\w+", step.text)
        assert line("documents", option, server.url, SELINE_TOKEN=server.token).code == 0
        (private / "server.json").write_text(announced)
        (private / "away.sock").rename(private / "control.sock")


@pytest.mark.follows("client/find_store:_without_socket", "client/find_store:_without_socket#2")
async def test_a_holder_without_a_socket_is_waited_for_stopped_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    for wait in ("HOLDER_WAIT_S", "SERVER_WAIT_S"):
        monkeypatch.setattr(f"seline.client.wait.{wait}", 0.1)
    settings = load_settings(environ=chosen(), arguments={"storage.data_dir": str(tmp_path)})

    async def refused() -> Step:
        with pytest.raises(errors.VolumeLocked) as locked:
            async with connect(settings, notify=lambda _notice: None) as api:
                await api.request("PUT", "/documents/{}", NAME, body={})
        return follow(locked.value.hint)

    with held(tmp_path, serves_commands=True):
        (await refused()).asks("It is starting or stopping", "then try again")
    with held(tmp_path):
        (await refused()).asks("Stop it, then run the same command again")
    async with connect(settings, notify=lambda _notice: None) as api:
        await api.request("PUT", "/documents/{}", NAME, body={})


# several exports in one folder


@pytest.mark.prove
@pytest.mark.follows("folders/export:find_export", "folders/export:_manifest")
def test_the_folder_of_one_export_is_named(line: Line, follow: Follow) -> None:
    other = line_at(line.folder, SELINE_DATA_DIR="other")
    for bot in (line, other):
        assert bot("save", NAME, stdin='{"n": 1}').code == 0
        assert bot("export", "nas/").code == 0
        time.sleep(1.1)  # an export's name has its second
    follow(next_of(line("import", "nas", "--yes"))).asks("Name the folder of the export that you")
    first, second = sorted((line.folder / "nas").iterdir())
    assert line("import", str(first), "--yes").code == 0

    (first / "manifest.json").write_text("{}")
    follow(next_of(line("import", "nas", "--yes"))).asks("Name the folder of another export")
    assert line("import", str(second), "--yes").code == 0
