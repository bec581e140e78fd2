"""The rules that the code keeps, read from the code itself."""

import ast
import contextlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import pytest
from sqlalchemy import TextClause

import scheduler
from scheduler import (
    actions,
    app,
    audit,
    backfills,
    changelog,
    config,
    dependents,
    errors,
    exclusions,
    executions,
    glance,
    history,
    ledger,
    lines,
    moment,
    outlook,
    planner,
    queue,
    quotas,
    replays,
    resealing,
    skips,
    state,
    tally,
    task,
    tasklist,
    taskpage,
    taskrows,
    triggers,
    undo,
    usage,
    versions,
    watch,
)
from scheduler.dashboard import sessions
from scheduler.db import metadata
from scheduler.ledger import Query
from scheduler.schedules import events
from scheduler.specs import changes as specs_changes
from scheduler.specs import listing as specs_listing
from scheduler.specs import model as specs_model
from scheduler.specs import responses
from scheduler.tasklist import Filter

SRC = Path(scheduler.__file__).parent
ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent
FILES = sorted(p for p in SRC.rglob("*.py") if "_migrations" not in p.parts)
NAMES = [str(path.relative_to(SRC)) for path in FILES]


def tree(name: str) -> ast.Module:
    return ast.parse((SRC / name).read_text())


# Imports -----------------------------------------------------------------------------------------


def test_the_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_its_place_in_the_contract():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    placed = {name.strip(" ()") for layer in layers for name in re.split("[|:]", layer)}
    modules = {f"scheduler.{Path(name).parts[0].removesuffix('.py')}" for name in NAMES}
    modules -= {"scheduler.__init__", "scheduler.__main__"}
    assert modules - placed == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_import_stands_inside_a_function(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inside, f"{name}: {node.name}"
    assert "TYPE_CHECKING" not in (SRC / name).read_text()


# Words -------------------------------------------------------------------------------------------


def test_no_file_has_a_name_that_says_nothing():
    empty = {"utils", "helpers", "common", "base", "types", "constants", "interfaces"}
    assert not {Path(name).stem for name in NAMES} & empty


@pytest.mark.parametrize("name", NAMES)
def test_every_module_opens_with_a_sentence(name):
    words = ast.get_docstring(tree(name))
    assert words
    assert words.split("\n\n")[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_function_and_type_says_what_it_is(name):
    bare = [
        f"{name}: {node.name}"
        for node in tree(name).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare in ([], [f"{name}: decode"])


@pytest.mark.parametrize("name", NAMES)
def test_no_function_is_longer_than_fifty_lines(name):
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > 50
    ]
    assert long == []


def _subclasses(of: type) -> Iterator[type]:
    for sub in of.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_every_error_has_a_message_a_status_and_a_line_in_the_tree():
    for error in _subclasses(errors.UserError):
        assert (error.__doc__ or "").endswith("."), error
        assert 400 <= error.status < 600
        assert re.fullmatch(r"[a-z_]+", error.code)
        assert f" {error.__name__} " in errors.__doc__
        assert error().message == error.__doc__
    assert len({(e.status, e.code) for e in _subclasses(errors.UserError)}) > 5


# Kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [*get_args(triggers.Trigger), *(get_args(actions.Action) or [actions.Action])]
)
def test_every_kind_of_trigger_and_action_is_tested(kind):
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    assert re.search(rf"\b{kind.__name__}\(", tests)
    assert kind.__struct_config__.tag


def test_every_operation_has_an_id_of_its_own():
    @contextlib.asynccontextmanager
    async def lifespan(_app: Any):
        yield

    schema = app.create(config.Settings(), lifespan)
    schema = getattr(schema, "app", schema)
    ids = [
        operation["operationId"]
        for path in schema.openapi_schema.to_schema()["paths"].values()
        for method, operation in path.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]
    assert len(ids) > 10
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in ids)


# Settings ----------------------------------------------------------------------------------------

PATHS = [(section, name, kind) for section, name, kind in config.paths()]


def _another(kind: Any, default: Any) -> tuple[str, Any]:
    """A value of a setting that is not its default: as text, and as it is read."""
    kind = get_args(kind)[0] if get_origin(kind) is not Literal and get_args(kind) else kind
    if kind is bool:
        return str(not default).lower(), not default
    if get_origin(kind) is Literal:
        other = next(word for word in get_args(kind) if word != default)
        return other, other
    if isinstance(default, list):
        return "10.0.0.0/8, 192.0.2.7", ["10.0.0.0/8", "192.0.2.7"]
    if kind is float:
        return str(default / 2), default / 2
    if kind is int:
        return str(default + 1), default + 1
    return "other", "other"


@pytest.mark.parametrize(("section", "name", "kind"), PATHS)
def test_every_setting_is_read_from_the_environment(section, name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default = getattr(getattr(config.Settings(), section), name)
    text, value = _another(kind, default)
    variable = f"{section}_{name}".upper()
    assert config.environment_name(section, name) == variable
    read = config.load(environ={variable: text})
    assert getattr(getattr(read, section), name) == value
    assert getattr(getattr(config.load(environ={}), section), name) == default


def test_no_two_settings_share_a_name_in_the_environment():
    names = [config.environment_name(section, name) for section, name, _ in PATHS]
    assert len(names) == len(set(names))


# Statements --------------------------------------------------------------------------------------

OWNERS = {
    "service": {"kept.py", "services.py", "signing.py"},
    "kept_mark": {"kept.py"},
    "admin_session": {"dashboard/admin/admin_sessions.py"},
    "token": {"dashboard/sessions.py", "services.py", "tokens.py", "usage.py"},
    "session": {"dashboard/sessions.py", "services.py"},
    "task": {
        "agenda.py",
        "dependents.py",
        "glance.py",
        "resealing.py",
        "task.py",
        "tasklist.py",
        "taskrows.py",
        "undo.py",
        "usage.py",
    },
    "task_plan": {
        "glance.py",
        "moment.py",
        "outlook.py",
        "planner.py",
        "taskpage.py",
        "taskrows.py",
    },
    "run": {
        "backfills.py",
        "glance.py",
        "ledger.py",
        "lines.py",
        "queue.py",
        "replays.py",
        "schedules/events.py",
        "skips.py",
        "usage.py",
        "watch.py",
        "taskpage.py",
        "moment.py",
        "taskrows.py",
    },
    "history": {
        "backfills.py",
        "executions.py",
        "glance.py",
        "history.py",
        "ledger.py",
        "lines.py",
        "partitions.py",
        "queue.py",
        "replays.py",
        "schedules/events.py",
        "skips.py",
        "watch.py",
        "taskpage.py",
        "moment.py",
        "taskrows.py",
    },
    "log_entry": {"logstore.py"},
    "calendar": {"exclusions.py"},
    "process": {"resealing.py", "processes/model.py"},
    "response": {"specs/responses.py"},
    "response_cache": {"specs/responses.py"},
    "spec": {"resealing.py", "specs/changes.py", "specs/listing.py", "specs/model.py"},
    "spec_archive": {"resealing.py", "specs/changes.py", "specs/model.py"},
    "spec_document": {"specs/changes.py", "specs/listing.py", "specs/model.py"},
    "spec_operation": {"specs/changes.py", "specs/listing.py", "specs/model.py"},
    "replica": {"replicas.py"},
    "installation": {"installation.py", "migrate.py"},
    "service_usage": {"quotas.py", "usage.py"},
    "task_state": {"glance.py", "state.py", "taskrows.py"},
    "task_version": {"versions.py"},
    "tally": {"tally.py"},
    "tally_mark": {"tally.py"},
    "audit": {"audit.py", "changelog.py"},
    "undo": {"resealing.py", "undo.py"},
}
"""`services.py` asks who is calling, by a token or a session, and writes none; `dashboard/sessions.py` asks
whether a token stands. `undo.py` keeps a row of `task` before it goes, and brings it back.
`queue.py`, `lines.py`, `replays.py` and `skips.py` make the moves between `run` and `history`; `signing.py` has a column
of its own, `resealing.py` changes the form of a value and never the value, and `migrate.py` asks
before the schema is known; READERS write nothing."""
READERS = {
    "dependents.py",
    "glance.py",
    "outlook.py",
    "specs/listing.py",
    "tasklist.py",
    "ledger.py",
    "executions.py",
    "schedules/events.py",
    "usage.py",
    "watch.py",
    "taskpage.py",
    "taskrows.py",
    "moment.py",
}
NAMED = re.compile(
    r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|TRUNCATE|LIKE)\s+(?:ONLY\s+)?(?:IF NOT EXISTS\s+)?(\w+)"
)


def _strings(name: str) -> Iterator[str]:
    """Every string in a file but for docstrings; an f-string with its fields left out."""
    module = tree(name)
    doc = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in doc:
            yield node.value


def test_every_table_has_an_owner():
    assert set(metadata.tables) == set(OWNERS)


@pytest.mark.parametrize("name", NAMES)
def test_only_its_owner_names_a_table_in_a_statement(name):
    named = {
        found
        for text in _strings(name)
        for found in NAMED.findall(text)
        if found in OWNERS and name not in OWNERS[found]
    }
    assert named == set()


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_file_of_lists_writes_nothing(name):
    words = " ".join(_strings(name))
    assert not re.search(r"\b(INSERT INTO|UPDATE \w+ SET|DELETE FROM|FOR UPDATE)\b", words)


MACHINE = {
    "exclusions.CURRENT": "the runner's and the planner's: they work for every service",
    "specs/changes.THERE": "the runner's: it works for every service",
    "specs/model.KEPT": "counts what services keep, so many in one statement",
    "specs/responses.KEPT": "counts what services keep, so many in one statement",
    "specs/changes.UNFINISHED": "looks after what is under way, of every service",
    "queue.CLAIM_ON_TIME": "claims for every service, and names those that are left out",
    "queue.LIVE": "of processes of every service, for their callbacks and their retention",
    "queue.KNOWN": "of processes of every service, for their retention",
    "queue.COMING": "compares what was planned with other time zones, of every service",
    "outlook.PLANS": "compares what was planned with other time zones, of every service",
    "task.BY_KEY": "walks every service's tasks when the time zones have changed",
    "queue.ANY_LATE": "asks whether any service has something late",
    "queue.ADOPT": "reads what this process holds",
    "queue.RELEASE": "gives back what this process holds",
    "queue.RETRY": "gives back what this process holds",
    "queue.POSTPONE": "gives back what this process holds",
    "queue.REPLAYED": "of runs this process holds",
    "queue.SETTLE": "moves what this process holds",
    "skips.SKIP_OVERLAPPED": "of tasks whose run this process holds",
    "skips.SWEEP_MISFIRED": "judges every service's overdue runs",
    "skips.DUE": "judges every service's overdue runs",
    "skips.TAKE_LATE": "of tasks whose plans are locked",
    "skips.CUT_QUEUES": "cuts every service's queues",
    "skips.OVERDUE": "walks every service's overdue runs",
    "queue.FREE": "of a replica that is gone",
    "queue.HOLDERS": "reads who holds runs, not whose they are",
    "queue.RECALLED": "reads what this process holds",
    "queue.DROP": "drops what this process holds",
    "queue.OLDEST_DUE": "for doctor, of all services together",
    "queue.CANCELLED": "reads what this process holds",
    "queue.DEPTH": "a number for /metrics, of all services together",
    "task.BY_KEYS": "the runner's: it works for every service",
    "task.OUTLINES_OF_ALL": "the planner's and the sweep's: they work for every service",
    "state.LOCK": "of tasks whose runs this process has settled",
    "state.STAND": "of tasks whose runs this process has settled, or that were edited",
    "state.SETTLE": "of tasks whose runs this process has settled",
    "lines.LOCK_LINES": "of tasks whose pauses end, planned for every service",
    "lines.NEXT_SERVICE": "walks every service, to find what is left of those that are gone",
    "outlook.NEXT_SERVICE": "walks every service, to find what is left of those that are gone",
    "task.NEXT_SERVICE": "walks every service, to find what is left of those that are gone",
    "planner.TAKE": "plans for every service",
    "planner.TAKE_BEHIND": "plans for every service",
    "planner.ANYTHING": "asks whether there is anything to plan",
    "planner.ADVANCE": "plans for every service",
    "history.ENDED_BETWEEN": "repairs the states of every service's tasks",
    "history.ENDED_BY_MINUTE": "counts what ended, of every service",
    "tally.FORGET": "forgets what was counted, of every service",
    "tally.OLDEST": "makes hours of minutes, of every service",
    "tally.PRUNE": "goes by when history ends, for every service",
    "tally.ROLL": "makes hours of minutes, of every service",
    "tally.REMOVE_OTHERS": "counts what ended, of every service",
    "history.STREAKS": "repairs the states of every service's tasks",
    "sessions.OPEN": "of everyone who watches at once, each with the service's id",
    "sessions.PRUNE": "goes by when sessions expire, for every service",
    "usage.OF_ALL": "for the admin's page about the installation, of all services together",
    "watch.LIVE": "of every service that somebody watches, each by its id",
    "watch.ENDED": "of every service that somebody watches, each by its id",
    "watch.LATE": "of every service that somebody watches, each by its id",
    "audit.LATELY": "of every service that somebody watches, each by its id",
    "undo.OLDEST": "goes by when acts were asked for, of every service",
    "undo.PRUNE": "goes by when acts were asked for, of every service",
    "versions.OLDEST": "goes by when history ends, for every service",
    "versions.PRUNE": "goes by when history ends, for every service",
    "audit.OLD": "goes by when history ends, for every service",
    "audit.PRUNE": "goes by when history ends, for every service",
    "changelog.OF_ADMIN": "for the admin, who sees what was done to all services",
    "specs/responses.OLDEST": "goes by when history ends, for every service",
    "specs/responses.PRUNE": "goes by when history ends, for every service",
    "specs/responses.FIND": "asks for many services at once, by keys that hold the service",
    "specs/responses.EXPIRED": "goes by when answers expire, for every service",
    "specs/responses.FIRST": "goes by when answers expire, for every service",
    "specs/responses.DROP": "goes by when answers expire, for every service",
    "specs/responses.SIZE": "measures the answers of every service",
}
"""The statements that work for every service, and why; no face may come by one of them."""
BY_KEY = {
    "executions.TOTAL",
    "executions.PAGE",
    "schedules/events.TOTAL",
    "schedules/events.PAGE",
}
"""Answered by an index that holds no service, of a key read from its service's row just before:
the functions that use them take a task's `Line`, and are private."""
OURS = re.compile(r"service_id = (:service_id|:service|s\.id)\b")
MODULES = {
    "backfills": backfills,
    "queue": queue,
    "replays": replays,
    "skips": skips,
    "lines": lines,
    "glance": glance,
    "history": history,
    "task": task,
    "planner": planner,
    "outlook": outlook,
    "quotas": quotas,
    "resealing": resealing,
    "state": state,
    "tally": tally,
    "ledger": ledger,
    "executions": executions,
    "schedules/events": events,
    "tasklist": tasklist,
    "dependents": dependents,
    "taskpage": taskpage,
    "moment": moment,
    "taskrows": taskrows,
    "versions": versions,
    "audit": audit,
    "changelog": changelog,
    "usage": usage,
    "watch": watch,
    "undo": undo,
    "sessions": sessions,
    "exclusions": exclusions,
    "specs/responses": responses,
    "specs/changes": specs_changes,
    "specs/listing": specs_listing,
    "specs/model": specs_model,
}
THEIRS = {
    "task",
    "task_plan",
    "task_state",
    "task_version",
    "audit",
    "run",
    "history",
    "service_usage",
    "session",
    "tally",
    "calendar",
    "response",
    "response_cache",
    "spec",
    "spec_archive",
    "spec_document",
    "spec_operation",
    "undo",
}


def _statements() -> Iterator[tuple[str, str]]:
    for name, module in MODULES.items():
        for key, value in vars(module).items():
            if isinstance(value, TextClause):
                yield f"{name}.{key}", value.text


def test_every_statement_on_a_services_table_names_the_service():
    unnamed = set()
    for name, statement in _statements():
        tables = set(NAMED.findall(statement)) & THEIRS
        inserts = re.match(r"\s*INSERT INTO \w+ (?:AS \w+ )?\([^)]*service_id", statement)
        if tables and not inserts and not OURS.search(statement):
            unnamed.add(name)
    assert unnamed == set(MACHINE) | BY_KEY


@pytest.mark.parametrize("statement", sorted(BY_KEY))
def test_what_goes_by_a_key_alone_is_asked_with_the_line_of_a_task(statement):
    name, constant = statement.split(".")
    assert "task_key = :key" in vars(MODULES[name])[constant].text
    for node in tree(f"{name}.py").body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name in _functions_using(
            MODULES[name], {constant}
        ):
            assert node.name.startswith("_")
            assert "line" in {argument.arg for argument in node.args.args}


SERVICE = UUID(int=7)


def _made_on_the_spot() -> Iterator[str]:
    """What the lists ask, with every way of asking."""
    every = Filter(status="paused", trigger="once", action="http", tag="x", words=("a", "b"))
    for wanted in (Filter(), Filter(status="active"), every):
        asked = tasklist._asked(SERVICE, wanted)
        yield tasklist._all(asked.conditions)
        assert asked.values["service_id"] == SERVICE
    key = UUID(int=1)
    for query in (
        Query(service_id=SERVICE),
        Query(service_id=SERVICE, keys=(key,), reason="x", kinds=frozenset({"task"})),
        Query(service_id=SERVICE, states=frozenset({"failed", "running"}), since=1),
        Query(service_id=SERVICE, kinds=frozenset({"manual"}), task_id="t"),
        Query(service_id=SERVICE, kinds=frozenset({"process"}), trace_id="t"),
        Query(service_id=SERVICE, run=key),
    ):
        assert ledger._values(query, 1, None)["service_id"] == SERVICE
        for walks in ledger._walks(query):
            for walk in walks:
                yield from (walk.rows(), walk.stop())


def test_statements_made_on_the_spot_name_the_service_too():
    for statement in _made_on_the_spot():
        assert "service_id = :service_id" in statement
        assert " OR " not in statement


def _functions_using(module: Any, statements: set[str]) -> set[str]:
    """The functions of a module that execute one of these."""
    return {
        node.name
        for node in tree(f"{'/'.join(module.__name__.split('.')[1:])}.py").body
        if isinstance(node, ast.AsyncFunctionDef)
        and {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & statements
    }


@pytest.mark.parametrize(
    "name", [n for n in NAMES if Path(n).name in ("api.py", "model.py", "app.py", "edit.py")]
)
def test_no_face_uses_a_statement_that_works_for_every_service(name):
    source = (SRC / name).read_text()
    for module_name, module in MODULES.items():
        statements = {m.split(".")[1] for m in MACHINE if m.startswith(f"{module_name}.")}
        for function in _functions_using(module, statements):
            assert not re.search(rf"\b{module_name}\.{function}\(", source), function


def test_no_claim_is_written_with_in():
    for name, statement in _statements():
        limited = re.search(r"\bIN\s*\(\s*SELECT[^)]*LIMIT", statement, re.DOTALL)
        assert not limited, f"{name}: SCALE.md Q2"


def test_no_statement_reads_the_clock_or_makes_ids_where_citus_refuses_it():
    # SCALE.md Q3.
    for name, statement in _statements():
        assert not re.search(r"clock_timestamp|gen_random_uuid|random\(\)", statement), name


def test_no_statement_trusts_an_advisory_lock_with_a_run():
    # SCALE.md Q6: a lock around making partitions only spares work.
    for name in (
        "queue.py",
        "skips.py",
        "planner.py",
        "replicas.py",
        "dispatcher.py",
        "settler.py",
    ):
        assert not any("advisory" in text for text in _strings(name))
