"""Read what a next step asks for, and do it: its commands are run as they are printed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seline.cli.verbs import front
from seline.settings import setting_names
from tests.command_line import Line, Ran

PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
NEXT = "  Next: "


def next_of(ran: Ran) -> str:
    """Return the next step that a command printed."""
    _, found, text = ran.err.partition(NEXT)
    assert found, f"exit {ran.code}, and no next step: {ran.err}{ran.out}"
    return text.partition(f"\n{NEXT}")[0].strip()


def as_on_the_path(text: str) -> str:
    """Return a text of another way to start Seline as `seline` on the PATH prints it."""
    return text.replace(f"{shlex.quote(sys.executable)} -m seline ", "seline ")


@dataclass(frozen=True, slots=True)
class Step:
    """A next step as it was printed."""

    text: str

    @property
    def quoted(self) -> list[str]:
        """Return what stands in backticks, in order."""
        return re.findall(r"`([^`]+)`", self.text)

    def commands(self, **values: str) -> list[str]:
        """Return the `seline` commands of the text; `values` replace its words in capitals."""
        quoted = self.quoted or [self.text.partition(": ")[2]]
        named = [command for command in quoted if command.startswith("seline ")]
        assert named, f"no command in: {self.text}"
        return [_filled(command, values) for command in named]

    def settings(self) -> dict[str, str]:
        """Return the settings of the text as variables, each with the value that it gives."""
        named = (quoted.partition(" = ") for quoted in self.quoted)
        given = {name: value for name, _, value in named if name in setting_names()}
        assert given, f"no setting in: {self.text}"
        return {variable(name): value for name, value in given.items()}

    def asks(self, *phrases: str) -> None:
        """Require the phrases that the test carries out by hand."""
        for phrase in phrases:
            assert phrase in self.text, (
                f"the text does not ask for {phrase!r} any more: {self.text}"
            )


def variable(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"SELINE_{setting.upper().replace('.', '__')}"


def _filled(command: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda word: values.get(word[0], word[0]), command)


def run(line: Line, command: str, **environ: str) -> Ran:
    """Run a printed command as a person at a terminal, who answers its question with yes."""
    words = shlex.split(command)
    assert words[0] == "seline", command
    target = words[words.index(">") + 1] if ">" in words else ""
    arguments = words[1 : words.index(">")] if target else words[1:]
    verb = front.commands.get(arguments[0])
    asks = verb is not None and any(option.name == "yes" for option in verb.params)
    ran = line(*arguments, *["--yes"] * asks, **environ)
    if target:
        (line.folder / target).write_text(ran.out, encoding="utf-8")
    return ran


def shell(folder: Path, command: str, **environ: str) -> str:
    """Run a printed command line in a shell, which must succeed; return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=folder,
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout
