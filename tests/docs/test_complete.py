"""Everything that a user can name is on its page: a missing or a stray row fails here."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click
import pytest

import seline
from seline import blocking
from seline.cli import front
from seline.cli.errors import EXIT_FOR, Exit
from seline.domain.alerts.lifecycle import KIND_OF, AlertType
from seline.domain.alerts.sink_spec import FIELDS_OF
from seline.domain.incident import IncidentKind
from seline.errors import SelineError
from seline.http import PREFIX
from seline.http.problems import STATUS_FOR, status_of
from seline.http.routes import ROUTES, Route
from seline.operations import checks
from seline.settings import setting_names
from seline.settings.values import SECTIONS
from tests.docs.blocks import ROOT

ENVIRONMENT = re.compile(r'"((?:SELINE|RAILWAY|FLY|RENDER)_[A-Z_]+|PORT|RENDER)"')


@dataclass(frozen=True, kw_only=True)
class Documented:
    """Where one kind of name is documented: `row` finds it, `names` are those in the code."""

    page: str
    row: str
    names: Callable[[], Iterable[str]]


def public_names() -> set[str]:
    """Return what a bot's code can name: the package's names, and those of its two objects."""
    methods = {*vars(blocking.DataManager), *vars(blocking.Seline)} - {"close"}
    public = {name for name in methods if not name.startswith("_")}
    return {*seline.__all__, *blocking.__all__, *public}


def environment_variables() -> set[str]:
    """Return the variables that the product names."""
    files = (ROOT / "seline").rglob("*.py")
    return {name for path in files for name in ENVIRONMENT.findall(path.read_text("utf-8"))}


def health_checks() -> set[str]:
    """Return the names of the checks of health."""
    return {name for name, *_ in checks.ROWS}


def verbs(group: click.Group = front, above: str = "seline") -> list[str]:
    """Return every verb of the command line, as it is typed."""
    found = []
    for name, command in group.commands.items():
        nested = isinstance(command, click.Group)
        found += verbs(command, f"{above} {name}") if nested else [f"{above} {name}"]
    return found


def rooms() -> list[str]:
    """Return the folders and modules of the package, and the workers'."""
    package = ROOT / "seline"
    folders = [f"seline/{path.parent.name}/" for path in package.glob("*/__init__.py")]
    modules = [f"seline/{path.name}" for path in package.glob("[!_]*.py")]
    return [*folders, *modules, "workers/seline_workers/"]


def address(route: Route) -> str:
    """Return a route as the page shows it."""
    return f"{route.method} {route.path.removeprefix(PREFIX)}"


KINDS = {
    "room": Documented(
        page="docs/design.md",
        row=r"^\| (`(?:seline|workers)/[\w/.]+`(?:, `[\w/.]+`)*) \|",
        names=rooms,
    ),
    "public name": Documented(
        page="docs/python.md", row=r"^###? (`\w+`(?:, `\w+`)*)$", names=public_names
    ),
    "setting": Documented(
        page="docs/settings.md", row=r"^\| `([a-z_]+(?:\.[a-z_]+)+)` \|", names=setting_names
    ),
    "environment variable": Documented(
        page="docs/settings.md",
        row=r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|",
        names=environment_variables,
    ),
    "verb": Documented(page="docs/command-line.md", row=r"^\| `(seline [a-z ]+)` \|", names=verbs),
    "exit code": Documented(
        page="docs/command-line.md",
        row=r"^\| (\d+) \|",
        names=lambda: [str(int(code)) for code in Exit],
    ),
    "route": Documented(
        page="docs/http.md", row=r"^\| `([A-Z]+ /[^`]*)` \|", names=lambda: map(address, ROUTES)
    ),
    "health check": Documented(
        page="docs/http.md",
        row=r"^\| ((?!`seline_)`[a-z_]+`(?:, `[a-z_]+`)*) \|",
        names=lambda: {*health_checks(), *IncidentKind},
    ),
    "error": Documented(
        page="docs/errors.md",
        row=r"^\| `(\w+)` \|",
        names=lambda: [error.code for error in STATUS_FOR],
    ),
    "alert type": Documented(
        page="docs/alerts.md",
        row=r"^\| `(\w+)` \| (?:info|warning|critical) \|",
        names=lambda: list(AlertType),
    ),
    "kind of sink": Documented(
        page="docs/alerts.md",
        row=r"^\| `(\w+)` \| (?:`\w+`(?:, `\w+`)*)? ?\|",
        names=lambda: FIELDS_OF,
    ),
}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def cells(name: str, first: str) -> list[str]:
    """Return the cells of the row of a table that begins with `first`."""
    row = re.search(rf"^\| `{re.escape(first)}` \|.*$", page(name), re.MULTILINE)
    assert row is not None, first
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row[0].strip("|"))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_documented_once(kind: str) -> None:
    """Compare the names on the page with those in the code."""
    documented = KINDS[kind]
    rows = re.findall(documented.row, page(documented.page), re.MULTILINE)
    on_page = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row) or [row]]

    assert sorted(on_page) == sorted(set(documented.names()))


def test_every_public_name_has_an_example() -> None:
    """Show code in the section of each name."""
    _, *parts = re.split(r"^###? (.*)$", page("docs/python.md"), flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    lacking = [
        heading
        for heading, text in sections.items()
        if heading.startswith("`") and "```python" not in text
    ]

    assert not lacking


@pytest.mark.parametrize("service", [blocking.UserProfile, blocking.LessonsLearned])
def test_every_method_of_a_service_has_an_example(service: type) -> None:
    """Call each public method in the code of the service's section."""
    text = page("docs/python.md").partition(f"### `{service.__name__}`")[2].partition("###")[0]
    methods = {name for name in vars(service) if not name.startswith("_")}

    assert not {name for name in methods if f".{name}(" not in text}


@pytest.mark.parametrize("name", setting_names())
def test_a_setting_has_its_default_on_the_page(name: str) -> None:
    """Compare the default, as TOML, with that of the code."""
    section, _, key = name.rpartition(".")
    default = getattr(SECTIONS[section], key)
    as_toml = str(default).lower() if isinstance(default, bool) else str(default)
    if isinstance(default, str):
        as_toml = f'"{default}"'
    if default == ():
        as_toml = "[]"

    assert cells("docs/settings.md", name)[1] == ("unset" if default is None else f"`{as_toml}`")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_has_its_scope_and_its_query_on_the_page(route: Route) -> None:
    """Compare the row of the page with that of the table of routes."""
    _, scope, query, _ = cells("docs/http.md", address(route))

    assert scope == route.scope
    assert re.findall(r"`(\w+)`", query) == sorted(route.query)


@pytest.mark.parametrize("error", STATUS_FOR, ids=lambda error: error.code)
def test_an_error_has_its_status_exit_code_and_hint_on_the_page(error: type[SelineError]) -> None:
    """Compare the row of the page with the tables at the edges."""
    _, _, status, code, hint = cells("docs/errors.md", error.code)

    assert status == str(status_of(error()))
    assert code == str(int(EXIT_FOR[error.code]))
    assert hint == error.hint


@pytest.mark.parametrize("kind", AlertType)
def test_an_alert_has_its_severity_and_course_on_the_page(kind: AlertType) -> None:
    """Compare the row of the page with the table of alerts."""
    _, severity, course, *_ = cells("docs/alerts.md", kind)

    assert severity == KIND_OF[kind].severity
    assert course == KIND_OF[kind].course.replace("_", " ")


@pytest.mark.parametrize("kind", FIELDS_OF)
def test_a_sink_has_its_fields_on_the_page(kind: str) -> None:
    """Compare the row of the page with what the settings accept."""
    _, required, optional, _ = cells("docs/alerts.md", kind)
    on_page = {
        name: cell is required
        for cell in (required, optional)
        for name in re.findall(r"`(\w+)`", cell)
    }

    assert on_page == FIELDS_OF[kind]
