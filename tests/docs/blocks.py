"""Find the code blocks of a page, and run its Python as a reader would.

`python -m tests.docs.blocks PAGE PRELUDE [NUMBER]` runs the page's Python in the current directory:
all blocks as one program, or one block alone.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)(?: [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = "# → "


def blocks(page: str, language: str) -> list[str]:
    """Return the code of every block in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for kind, code in _BLOCK.findall(text) if kind == language]


def run_python(directory: Path, *arguments: str, **environ: str) -> str:
    """Run Python in a process of its own, which must succeed; return what it prints."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "workers")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_in_order(codes: list[str], page: str, prelude: str) -> None:
    """Run blocks of a page in one namespace and one event loop, after `prelude`.

    `await` may be used outside of a function. A line `# → text` must be printed by its block.
    """
    namespace: dict[str, Any] = {"__name__": page}
    with asyncio.Runner() as runner:
        exec(prelude, namespace)
        for code in codes:
            compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                if compiled.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(compiled, namespace))
                else:
                    exec(compiled, namespace)
            assert out.getvalue() == _shown(code), f"{code}\nprints\n{out.getvalue()}"


def _shown(code: str) -> str:
    lines = code.splitlines(keepends=True)
    return "".join(line.removeprefix(_SHOWN) for line in lines if line.startswith(_SHOWN))


def main(page: str, prelude: str, *numbers: str) -> None:
    """Run all blocks of a page, or those that are numbered."""
    codes = blocks(page, "python")
    run_in_order([codes[int(number)] for number in numbers] or codes, page, prelude)


if __name__ == "__main__":
    main(*sys.argv[1:])
