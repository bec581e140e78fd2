"""The pages: what they name exists, and every setting is on one of them."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from scheduler import app, config
from scheduler.cli import client
from scheduler.judge import Unjudged, Verdicts
from scheduler.judging import Question, judged
from scheduler.tasks import edit, model

ROOT = Path(__file__).parent.parent
SRC = Path(app.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
DOCUMENT = app.document()
UNDESCRIBED = {"/docs", "/docs/openapi.json", "/docs/openapi.yml", "/dashboard", "/"}
"""Pages for people, which the document leaves out."""
SETTINGS = {f"{section}.{name}": (section, name) for section, name, _ in config.paths()}
OUTSIDE = {"PGPORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "SERVICE_ID", "TOKEN", "URL", "RUN"}
"""Names of the compose file, and of the examples' own shell."""
GIVEN = {f"SCHEDULER_{name}" for name in ("RUN_ID", "TASK_ID", "ATTEMPT", "SCHEDULED_FOR")}
"""What a command finds in its environment."""
CLIENT = {*client.WELL_KNOWN, "NO_COLOR"}
"""Of the command line, which has no settings of its own."""


def named(page: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, TEXTS[page]))


# Links -------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page):
    for target in named(page, r"\]\(([^)\s]+)\)"):
        split = urlsplit(target)
        if split.scheme:
            assert split.scheme == "https", target
            continue
        at = (ROOT / page).parent / split.path if split.path else ROOT / page
        assert at.exists(), target
        assert not split.fragment or split.fragment in anchors(at), target


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_that_is_named_is_there(page):
    for name in named(page, r"`((?:src|tests|bench|docs|migrations)/[\w./-]*)`"):
        assert (ROOT / name).exists(), name
    for name in named(page, r"`([\w/]+\.py)`"):
        assert (ROOT / name).exists() or list(SRC.rglob(name)), name


# Settings ----------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `([a-z]+\.[a-z_]+)` \| `([A-Z_]+)` \| (?:`([^`]*)`|none) \|", re.MULTILINE)


def _default(path: str) -> str:
    section, name = SETTINGS[path]
    value = getattr(getattr(config.Settings(), section), name)
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def test_every_setting_is_listed_with_its_environment_name_and_its_default():
    rows = ROW.findall(TEXTS["docs/configuration.md"])
    assert [row[0] for row in rows] == list(dict.fromkeys(row[0] for row in rows))
    assert {row[0] for row in rows} == set(SETTINGS)
    for path, variable, default in rows:
        assert variable == config.environment_name(*SETTINGS[path])
        assert default == _default(path), path


@pytest.mark.parametrize("page", TEXTS)
def test_every_setting_that_is_named_exists(page):
    sections = {section for section, _ in SETTINGS.values()}
    for section, name in named(page, r"`([a-z]+)\.([a-z_]+)`"):
        if section in sections and name not in ("py", "yml", "yaml", "json", "md"):
            assert f"{section}.{name}" in SETTINGS


@pytest.mark.parametrize("page", TEXTS)
def test_every_environment_name_exists(page):
    known = {config.environment_name(*at) for at in SETTINGS.values()}
    known |= config.ALIASES.keys() | OUTSIDE | CLIENT | GIVEN
    found = named(page, r"`\$?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
    assert found <= known


# The API -----------------------------------------------------------------------------------------


def route(path: str) -> dict[str, Any]:
    """What the OpenAPI document says of an address; nothing where it knows none."""
    parts = path.strip("/").split("/")
    for known, item in DOCUMENT["paths"].items():
        there = known.strip("/").split("/")
        same = [a == b or a.startswith("{") for a, b in zip(there, parts, strict=False)]
        if len(there) == len(parts) and all(same):
            return item
    return {}


@pytest.mark.parametrize("page", TEXTS)
def test_every_route_that_is_named_is_in_the_openapi_document(page):
    called = named(page, r"\$URL(/[^\s\"'?`]*)")
    alone = named(page, r"`(/(?:tasks|runs|services|health|ready|metrics|docs)[^\s?`]*)`")
    for path in called | alone:
        assert path in UNDESCRIBED or route(path), path


@pytest.mark.parametrize("page", TEXTS)
def test_every_method_that_is_named_is_one_of_its_route(page):
    for method, path in named(
        page, r"(GET|POST|PUT|PATCH|DELETE) (/(?:tasks|runs|services)[^\s?`]*)"
    ):
        assert method.lower() in route(path), f"{method} {path}"


BODIES = [
    (page, path, body)
    for page, text in TEXTS.items()
    for path, body in re.findall(r"\$URL(/[^\s\"?]*)[^\n]*?\s+-d '(\{.*?\})'", text, re.DOTALL)
]


def test_the_pages_have_bodies_to_try():
    assert len(BODIES) > 8


@pytest.mark.parametrize(("page", "path", "body"), BODIES)
def test_every_body_is_one_that_its_route_takes(page, path, body):
    operation = next(each for each in route(path).values() if "requestBody" in each)
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    assert set(json.loads(body)) <= set(schema["properties"])
    if path == "/tasks":
        read(body)


def read(body: str) -> None:
    """Read a task as the API does, its rule judged at once."""
    verdicts, most = Verdicts(), config.Settings().tasks
    try:
        edit.new_task(model.read_fields(body), UUID(int=1), 0, most, verdicts=verdicts)
    except Unjudged as e:
        assert judged(Question(e.ask, 0)).rule is not None


FIELD = re.compile(r"`([a-z_]+)`")


def test_every_field_of_a_task_is_on_its_page():
    table = TEXTS["docs/tasks.md"].partition("## Fields")[2].partition("## ")[0]
    answered = {"task_id", "message", "service_id", "state", "created_at", "updated_at"}
    fields = set(model.TaskFields.__struct_fields__)
    assert fields - answered <= set(FIELD.findall(table))
