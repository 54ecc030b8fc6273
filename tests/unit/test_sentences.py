"""Sentences in a reader's language: every one has a French row, and each row is found again."""

import ast
import re
from collections.abc import Iterator
from string import Formatter

import pytest

from seline import errors
from seline.cures import OF_OS
from seline.domain.incident import RULES
from seline.domain.sentences.translate import passages, rows, translated
from seline.errors import DocumentNotFound, SelineError
from seline.operations.checks import ROWS
from tests.docs.blocks import ROOT

SHOWN_BY_A_READER = (
    "access",
    "alerts",
    "domain",
    "http/access.py",
    "http/problems.py",
    "manager",
    "operations",
    "outbound/destinations",
    "page",
    "ports",
    "server",
    "storage",
    "spool.py",
    "../workers",
)
"""Where the errors that the page and the chat show are raised."""
NAMED = {"message", "hint", "fix", "detail", "summary"}
"""The variables in which a sentence is put together."""
CHECKS = ("operations/checks.py", "operations/destination_checks.py", "operations/make_room.py")
RECOVERED = (
    "a.json was torn (cut off). It was recovered from memory; nothing is lost. "
    "The broken bytes are in quarantine."
)
SAMPLES = {"number": "1,234.5", "text": "only white space", "known": "only white space"}


def test_a_sentence_is_put_into_french_with_its_values() -> None:
    error = DocumentNotFound("There is no document a.json.", document="a.json")

    assert translated("fr", error.message) == "Il n'y a pas de document a.json."
    assert translated("fr", error.hint).startswith("`seline documents` donne les noms ; ")
    assert "`seline restore a.json`" in translated("fr", error.hint)
    assert translated("en", error.message) == error.message


def test_a_part_that_has_no_row_stays_english() -> None:
    found = passages("fr", "Remove that comma. The moon is full; only white space")

    assert [(part.language, part.text) for part in passages("fr", "The moon is full.")] == [
        ("en", "The moon is full.")
    ]
    assert [tuple(part) for part in found] == [
        ("Retirez cette virgule. ", "fr"),
        ("The moon is full", "en"),
        (" ; seulement des blancs", "fr"),
    ]


@pytest.mark.parametrize("part", ["a: ", "x at y: z. ", "a, b; ", "1 of 2 ", "A and b. "])
def test_a_text_of_any_content_ends_with_all_of_its_words(part: str) -> None:
    text = part * 2000

    assert len(translated("fr", text)) >= len(text)


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("12,345 of 65,536 files can still be made", "12\u202f345 fichiers sur 65\u202f536"),
        (
            "12.3% of the volume is used; full in about 3 days (2026-01-02 to 2026-01-05)",
            "12,3 % de la place (volume) est utilisée",
        ),
        ("a.json: only white space at line 1. Next: Remove that comma.", "Ensuite : Retirez"),
        ("3 documents and 1 backup verified", "3 documents et 1 sauvegarde vérifiés"),
        ("s3: the mirror failed on 2026-01-02 10:00 UTC: no answer within 30 s", "a échoué le"),
        ("`seline prune` frees 3 KB. Or enlarge the volume.", "libère 3 Ko. Ou agrandissez"),
        (
            RECOVERED,
            "a.json était à moitié écrit (coupé). Il a été récupéré depuis la mémoire ; rien",
        ),
    ],
)
def test_the_parts_of_a_sentence_are_french(english: str, french: str) -> None:
    found = passages("fr", english)

    assert french in "".join(part.text for part in found)
    assert {part.language for part in found} == {"fr"}


def test_a_row_has_the_same_fields_in_both_languages() -> None:
    exact, _ = rows("fr")

    assert len(exact) > 500
    assert not {key for key, text in exact.items() if fields(key) != fields(text)}
    assert all(text.strip() for text in exact.values())


def test_each_row_is_found_again_in_its_sentence() -> None:
    exact, _ = rows("fr")
    wrong: dict[str, str] = {}
    for key, text in exact.items():
        kinds = {field: kind or "" for _, field, kind, _ in Formatter().parse(text) if field}
        values = {field: SAMPLES.get(kind, f"a_{field}.json") for field, kind in kinds.items()}
        shown = {
            field: value
            if kinds[field] == ""
            else translated("fr", value)
            if kinds[field] != "number"
            else "1\u202f234,5"
            for field, value in values.items()
        }
        english = re.sub(r":(number|text|known)\}", "}", key).format_map(values)
        french = re.sub(r":(number|text|known)\}", "}", text).format_map(shown)
        if translated("fr", english) != french:
            wrong[english] = translated("fr", english)

    assert not wrong


# every sentence


def test_every_error_has_a_french_message_and_next_step() -> None:
    classes = [kind for kind in vars(errors).values() if is_error(kind)]
    sentences = [str(kind.__doc__).strip().splitlines()[0] for kind in classes]
    sentences += [kind.hint.replace("NAME", "a.json") for kind in classes]

    assert len(classes) > 40
    assert not [text for text in sentences if not is_french(text)]


def test_every_cure_and_every_incident_has_a_french_next_step() -> None:
    templates = [text for cure in OF_OS.values() for text in (cure.cause, cure.hint)]

    assert not [text for text in templates if not has_row(text)]
    assert not [rule.fix for rule in RULES.values() if rule.fix and not is_french(rule.fix)]


def test_every_sentence_that_an_error_or_check_is_made_with_has_a_row() -> None:
    found = list(sentences())

    assert len(ROWS) > 10
    assert len(found) > 300
    assert not {(path, text) for path, text in found if not has_row(text)}


def is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, SelineError)


def is_french(text: str) -> bool:
    return all(part.language == "fr" for part in passages("fr", text))


def fields(template: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(template) if field}


def bare(template: str) -> str:
    """Return a template with its fields unnamed; fields that follow each other count as one."""
    return re.sub(r"\{\}(?: ?\{\})+", "{}", re.sub(r"(?<!\{)\{[^{}]+\}", "{}", template)).strip()


KNOWN = {bare(key) for key in rows("fr")[0]}


def has_row(template: str) -> bool:
    """Whether a template, or each of its sentences, has a row."""
    text = bare(template)
    if not re.search("[a-z] [a-z]", text) or text in KNOWN:
        return True
    for separator in (r"(?<=[.!?]) (?=[A-Z`{])", "; "):
        parts = re.split(separator, text)
        if len(parts) > 1:
            return all(map(has_row, parts))
    return False


def sentences() -> Iterator[tuple[str, str]]:
    """Yield each sentence that the code makes an error or a check with."""
    for part in SHOWN_BY_A_READER:
        path = ROOT / "seline" / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            tree = ast.parse(file.read_text("utf-8"))
            name = str(file).removeprefix(f"{ROOT / 'seline'}/")
            for node in ast.walk(tree):
                for given in shown_by(node):
                    yield from ((name, text) for text in templates(given))
            if name in CHECKS:
                yield from ((name, text) for text in of_checks(tree))


def shown_by(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions of a node that are shown: of an error, or of a named variable."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kind = getattr(errors, node.func.id, None)
        if is_error(kind) and kind is not errors.SettingsError:
            yield from node.args[:1]
            yield from (word.value for word in node.keywords if word.arg == "hint")
    if isinstance(node, ast.Assign):
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if names & NAMED:
            yield node.value


def templates(node: ast.expr) -> Iterator[str]:
    """Yield the texts of an expression, with `{}` for what they insert."""
    if isinstance(node, ast.IfExp):
        yield from templates(node.body)
        yield from templates(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.replace("{", "{{").replace("}", "}}")
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            part.value.replace("{", "{{").replace("}", "}}")
            if isinstance(part, ast.Constant)
            else "{}"
            for part in node.values
        )


def of_checks(tree: ast.Module) -> Iterator[str]:
    """Yield every text of a module of checks that a function gives."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.Expr))
        for part in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in inside:
            yield from templates(node)
