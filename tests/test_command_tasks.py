"""Tasks that are commands: what is taken and answered, who may have them, and what is secret."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from conftest import App, RunApp, eventually
from scheduler import config, migrate, resealing, sealing, service, services
from scheduler.actions import Action, Command, Http
from scheduler.admin import acts
from scheduler.admin.model import ServiceFields
from scheduler.definition import Definition
from scheduler.errors import Forbidden, StartupError
from scheduler.resealing import Sealing
from scheduler.tasks import edit, permission
from scheduler.tasks.model import TaskFields
from test_pages import field, signed_in

GOOD = {"id": "c", "name": "c", "command": "echo hello"}
WEB = {"id": "w", "name": "w", "url": "http://127.0.0.1:9/"}
PLANTED = "planted-7c11fe"
OF_HTTP = ("url", "method", "header", "payload", "follow_redirects", "secret_headers")


@pytest.fixture
async def app(run_app: RunApp, commands_on: dict[str, str]) -> AsyncIterator[App]:
    """The program with commands; alice, the first service, may run them, and bob may not."""
    async with run_app(**commands_on) as started:
        yield started


async def made(client: httpx.AsyncClient, body: Any = None, **more: Any) -> dict[str, Any]:
    answer = await client.post("/tasks", json={**(GOOD if body is None else body), **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def allow(app: App, name: str, *, allowed: bool) -> None:
    """What `scheduler services update` does."""
    fields = ServiceFields(allow_commands=allowed)
    await acts.update(app.database, service.By("admin"), app.settings.quotas, name, fields)
    app.gate.forget(UUID(app.ids[name]))


def owner_of(app: App) -> UUID:
    return UUID(app.ids["alice"])


def task_of(action: Action) -> Definition:
    fields = TaskFields(name="x", url="http://127.0.0.1:9/")
    of = edit.new_task(fields, UUID(int=1), 0, config.Tasks()).task
    return msgspec.structs.replace(of, action=action)


async def got(client: httpx.AsyncClient, task_id: str = "c") -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
    return found


def refused(answer: httpx.Response, *fields: str, status: int = 400) -> dict[str, Any]:
    """An error of the one shape; of a validation it names these fields, and no others."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert {detail["field"] for detail in error.get("details", [])} == set(fields), error
    return error


# Fields ------------------------------------------------------------------------------------------


async def test_a_command_is_answered_with_nulls_for_what_a_request_has(alice):
    found = await made(alice, env={"A": "b"})
    assert (found["command"], found["env"]) == ("echo hello", {"A": "b"})
    assert {found[name] for name in OF_HTTP} == {None}
    assert found["timeout_seconds"] == 30 and found["overlap"] == "skip"
    assert found["max_retries"] is None and found["state"] == "created"
    assert await got(alice) == {k: v for k, v in found.items() if k not in ("task_id", "message")}
    web = await made(alice, WEB)
    assert (web["command"], web["env"]) == (None, None)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"url": "http://127.0.0.1:9/"}, {"command"}),
        ({"method": "POST"}, {"method"}),
        ({"header": {"A": "b"}, "payload": {"a": 1}}, {"header", "payload"}),
        ({"headers": [{"key": "A", "value": "b"}]}, {"headers"}),
        ({"follow_redirects": True, "secret_headers": ["A"]},
         {"follow_redirects", "secret_headers"}),
        ({"endpoint": "search"}, {"endpoint"}),
        ({"command": None}, {"url"}),
        ({"command": ""}, {"url"}),
        ({"command": "  \n"}, {"command"}),
        ({"command": "echo \0"}, {"command"}),
        ({"command": "x" * 65_537}, {"command"}),
        ({"env": {"1A": "b", "A-B": "c", "": "d", "Ä": "e"}},
         {"env.1A", "env.A-B", "env.", "env.Ä"}),
        ({"env": {"A": 1, "B": True, "C": None, "D": ["x"], "E": 1.5}},
         {"env.A", "env.B", "env.C", "env.D", "env.E"}),
        ({"env": {"A": "\0", "B": "\x01sealed 1 x"}}, {"env.A", "env.B"}),
        ({"env": {f"A{n}": "" for n in range(101)}}, {"env"}),
        ({"env": {"A": "x" * 65_536}}, {"env"}),
        ({"env": {"TOKEN": "********"}}, {"env.TOKEN"}),
        ({"expected_status": [404]}, {"expected_status"}),
        ({"expected_status": "0-256"}, {"expected_status"}),
    ],
)  # fmt: skip
async def test_what_no_command_can_be_is_named(alice, sent, fields):
    error = refused(await alice.post("/tasks", json={**GOOD, **sent}), *fields)
    assert all(len(detail["message"]) > 15 for detail in error["details"])
    assert (await alice.get("/tasks")).json() == []


async def test_the_messages_say_what_would_be_right(alice):
    both = refused(await alice.post("/tasks", json={**GOOD, **WEB}), "command")
    assert "url" in both["message"] and "one of them" in both["message"]
    env = refused(await alice.post("/tasks", json={**GOOD, "env": {"A": True}}), "env.A")
    assert "must be a string, is true" in env["message"]
    neither = refused(await alice.post("/tasks", json={"name": "n"}), "url")
    assert "or a command" in neither["message"]
    foreign = refused(await alice.post("/tasks", json={**WEB, "env": {"A": "b"}}), "env")
    assert "belongs to a command" in foreign["message"]
    long = refused(await alice.post("/tasks", json={**GOOD, "command": "x" * 70_000}), "command")
    assert "65536" in long["message"] and "70000" in long["message"]


async def test_an_env_or_a_command_that_is_no_text_is_named(alice):
    refused(await alice.post("/tasks", json={**GOOD, "env": [["A", "b"]]}), "env")
    refused(await alice.post("/tasks", json={**GOOD, "command": ["echo"]}), "command")


async def test_what_says_nothing_of_the_other_kind_is_taken(alice):
    nothing = {"url": None, "method": "", "header": {}, "payload": "", "secret_headers": []}
    await made(alice, **nothing, follow_redirects=False)
    await made(alice, WEB, command="", env={})


async def test_the_largest_command_and_environment_are_taken(alice):
    line, env = "x" * 65_536, {"A": "x" * 65_535}
    found = await made(alice, command=line, env=env)
    assert (found["command"], found["env"]) == (line, env)


async def test_exit_codes_may_be_named_as_expected(alice):
    assert (await made(alice, expected_status="0-3,64"))["expected_status"] == ["0-3", 64]


# Edits -------------------------------------------------------------------------------------------


async def test_an_answer_sent_back_whole_changes_nothing(alice):
    for body in ({**GOOD, "env": {"A": "b", "API_TOKEN": PLANTED}, "expected_status": [0, 3]}, WEB):
        before = await made(alice, body)
        before = {k: v for k, v in before.items() if k not in ("task_id", "message")}
        answer = await alice.put(f"/tasks/{before['id']}", json=before)
        assert answer.status_code == 200, answer.text
        unstamped = [{**task, "updated_at": None} for task in (before, answer.json())]
        assert unstamped[0] == unstamped[1]


async def test_a_command_in_place_of_a_request_replaces_all_of_it(alice):
    policy = {"max_retries": 2, "timeout_seconds": 5, "overlap": "allow", "frequency": 1}
    await made(alice, WEB, header={"A": "b"}, payload="p", **policy, unit="hour",
               expected_status=[204])  # fmt: skip
    changed = (await alice.patch("/tasks/w", json={"command": "true"})).json()
    assert (changed["command"], changed["env"]) == ("true", {})
    assert {changed[name] for name in OF_HTTP} == {None}
    assert policy.items() <= changed.items()
    assert changed["expected_status"] is None  # statuses are no exit codes
    back = (await alice.patch("/tasks/w", json={"url": WEB["url"], "command": None})).json()
    assert (back["url"], back["command"], back["env"]) == (WEB["url"], None, None)
    assert (back["header"], back["payload"], back["method"]) == ({}, None, "GET")
    assert policy.items() <= back.items()


async def test_an_edit_changes_the_line_and_keeps_the_environment(alice):
    await made(alice, env={"A": "b"})
    changed = (await alice.patch("/tasks/c", json={"command": "echo two"})).json()
    assert (changed["command"], changed["env"]) == ("echo two", {"A": "b"})
    changed = (await alice.patch("/tasks/c", json={"env": {"B": "c"}})).json()
    assert (changed["command"], changed["env"]) == ("echo two", {"B": "c"})
    assert (await alice.patch("/tasks/c", json={"env": None})).json()["env"] == {}


async def test_fields_of_the_other_kind_alone_do_not_make_it(alice):
    await made(alice)
    await made(alice, WEB)
    refused(await alice.patch("/tasks/c", json={"method": "PUT"}), "method")
    refused(await alice.patch("/tasks/w", json={"env": {"A": "b"}}), "env")
    refused(await alice.patch("/tasks/c", json={"command": None}), "command")
    refused(await alice.patch("/tasks/c", json={"command": ""}), "command")
    refused(await alice.patch("/tasks/w", json={"url": None}), "url")
    assert (await got(alice))["command"] == "echo hello"


async def test_commands_are_listed_by_their_kind(alice):
    await made(alice)
    await made(alice, WEB)
    for kind, ids in (("command", ["c"]), ("http", ["w"]), ("operation", [])):
        listed = (await alice.get(f"/tasks?action={kind}")).json()
        assert [task["id"] for task in listed] == ids


# Who may -----------------------------------------------------------------------------------------


def forbidden(answer: httpx.Response, *words: str) -> None:
    error = refused(answer, status=403)
    assert error["code"] == "forbidden"
    for word in words:
        assert word in error["message"], error


async def test_where_commands_are_off_the_setting_is_named(run_app: RunApp):
    async with run_app() as app, app.client("alice") as alice:
        forbidden(await alice.post("/tasks", json=GOOD), "commands.enabled")
        await made(alice, WEB)
        forbidden(await alice.patch("/tasks/w", json={"command": "true"}), "commands.enabled")
        bulk = await alice.post("/tasks/bulk", json=[{**WEB, "id": "x"}, GOOD])
        forbidden(bulk, "[1]", "commands.enabled")
        assert [task["id"] for task in (await alice.get("/tasks")).json()] == ["w"]
        previewed = await alice.post(
            "/tasks/preview", json={"command": "true", "cron": "0 9 * * *"}
        )
        assert previewed.status_code == 200, previewed.text


async def test_a_service_that_may_not_is_told_what_lets_it(bob):
    forbidden(await bob.post("/tasks", json=GOOD), "services update bob --allow-commands")
    forbidden(await bob.post("/tasks", json={**GOOD, "status": "paused"}), "bob")
    refused(await bob.post("/tasks", json={**GOOD, "frequency": 1}), "unit")


async def test_the_first_service_may_where_commands_are_on_at_the_first_start(app):
    async with app.database.api.connect() as conn:
        found = {each.name: each.allow_commands for each in await services.list_all(conn)}
    assert found == {"alice": True, "bob": False}


async def test_one_that_may_not_any_more_can_only_rest_and_be_removed(app, alice):
    await made(alice, frequency=1, unit="hour")
    await made(alice, GOOD, id="d")
    await allow(app, "alice", allowed=False)
    words = "services update alice --allow-commands"
    forbidden(await alice.post("/tasks/c/execute"), words)
    forbidden(await alice.post("/tasks/c/schedule", json={"at": "2030-01-01T00:00:00Z"}), words)
    forbidden(await alice.patch("/tasks/c", json={"name": "n"}), words)
    for body in ({"status": "paused"}, {"status": "disabled"}, {"name": "n"}):
        assert (await alice.patch("/tasks/c", json=body)).status_code == 200
    forbidden(await alice.patch("/tasks/c", json={"command": "true"}), words)
    forbidden(await alice.patch("/tasks/c", json={"status": "active"}), words)
    assert (await alice.patch("/tasks/c", json={"url": WEB["url"]})).status_code == 200
    assert (await alice.delete("/tasks/d")).status_code == 204
    await allow(app, "alice", allowed=True)
    assert (await alice.patch("/tasks/c", json={"command": "true"})).status_code == 200


@pytest.mark.parametrize(
    ("root", "settings", "allowed", "words"),
    [
        (True, {"enabled": True}, True, None),
        (False, {"enabled": True, "same_user": True}, True, None),
        (False, {"enabled": True}, True, "commands.same_user"),
        (True, {"enabled": True}, False, "--allow-commands"),
        (True, {"same_user": True}, True, "commands.enabled"),
    ],
)
def test_each_word_against_it_is_one_sentence(root, settings, allowed, words):
    of = task_of(Command("true"))
    who = service.Service(of.service_id, "a b", allowed, of.created_at, of.updated_at)
    commands = config.Commands(**settings)
    permission.check_command(task_of(Http(url="http://x/")), who, config.Commands(), root=root)
    if words is None:
        permission.check_command(of, who, commands, root=root)
    else:
        with pytest.raises(Forbidden, match=words):
            permission.check_command(of, who, commands, root=root)


# Secrets -----------------------------------------------------------------------------------------

SECRET = ("API_TOKEN", "aws_secret_access_key", "SSH_KEY", "PGPASSWORD", "SMTP_PASSWD")


async def test_secret_variables_are_masked_kept_and_sealed(app, alice, conn):
    env = {name: f"{PLANTED}-{name}" for name in SECRET} | {"LANG": "C"}
    masked = dict.fromkeys(SECRET, "********") | {"LANG": "C"}
    assert (await made(alice, env=env, frequency=1, unit="hour"))["env"] == masked
    shown = [await alice.get("/tasks/c"), await alice.get("/tasks"),
             await alice.patch("/tasks/c", json={"env": masked, "name": "n"})]  # fmt: skip
    assert all(PLANTED not in answer.text and "********" in answer.text for answer in shown)
    stored = json.loads(await conn.fetchval("SELECT action::text FROM task"))["env"]
    assert stored["LANG"] == "C"
    assert all(sealing.is_sealed(stored[name]) for name in SECRET)
    opened = Command("", stored).opened(app.database.vault, owner_of(app))
    assert opened.env == env
    refused(await alice.patch("/tasks/c", json={"env": {"OTHER_TOKEN": "********"}}),
            "env.OTHER_TOKEN")  # fmt: skip


async def test_names_that_differ_in_case_are_two_variables(app, alice, conn):
    await made(alice, env={"TOKEN": "one", "token": "two"})
    await alice.patch("/tasks/c", json={"env": {"token": "********", "TOKEN": "********"}})
    stored = json.loads(await conn.fetchval("SELECT action::text FROM task"))["env"]
    opened = Command("", stored).opened(app.database.vault, owner_of(app))
    assert opened.env == {"TOKEN": "one", "token": "two"}


async def test_what_was_stored_open_is_sealed_and_by_the_operators_word_opened(app, alice, conn):
    await made(alice, env={"API_TOKEN": PLANTED, "LANG": "C"})
    await made(alice, WEB, header={"Authorization": PLANTED})
    vault, owner = app.database.vault, owner_of(app)

    async with app.database.api.begin() as db:
        step = await resealing.piece(
            db, owner, resealing.START, lambda of, what, value: vault.open(value, of, what)
        )
    assert step.changed == 2
    rows = await conn.fetch("SELECT action::text AS action FROM task ORDER BY id")
    assert json.loads(rows[0]["action"])["env"] == {"API_TOKEN": PLANTED, "LANG": "C"}
    assert json.loads(rows[1]["action"])["header"] == {"Authorization": PLANTED}
    walk = Sealing(app.database)
    while not await walk.step():
        pass
    rows = await conn.fetch("SELECT action::text AS action FROM task ORDER BY id")
    assert all(PLANTED not in row["action"] for row in rows)
    env = json.loads(rows[0]["action"])["env"]
    assert Command("", env).opened(vault, owner).env == {"API_TOKEN": PLANTED, "LANG": "C"}


async def test_sealed_variables_keep_the_schema_from_going_down(run_app, conn, database_url):
    settings = {"COMMANDS_ENABLED": "true", "COMMANDS_SAME_USER": "true"}
    async with run_app(**settings) as app, app.client("alice") as alice:
        await made(alice, env={"API_TOKEN": PLANTED})
    await conn.execute("UPDATE service SET signing_secret = sha256('x')")
    with pytest.raises(StartupError, match="unseal"):
        await migrate.down(database_url, "0002")


# What ran ----------------------------------------------------------------------------------------


async def executed(client: httpx.AsyncClient, task_id: str = "c") -> dict[str, Any]:
    """A run by hand, as it ended."""
    done = await client.post(f"/tasks/{task_id}/execute")
    assert done.status_code == 200, done.text
    found: dict[str, Any] = (await client.get(f"/runs/{done.json()['run_id']}")).json()
    return found


async def test_a_run_shows_the_command_that_ran_whatever_became_of_it_since(alice):
    env = {"API_TOKEN": PLANTED, "WHO": "me"}
    await made(alice, command="echo $WHO ${#API_TOKEN}", env=env)
    ran = await executed(alice)
    assert (ran["state"], ran["response"]) == ("succeeded", f"me {len(PLANTED)}\n")
    request = {"command": "echo $WHO ${#API_TOKEN}", "env": {"API_TOKEN": "********", "WHO": "me"}}
    assert ran["request"] == request
    (execution,) = (await alice.get("/tasks/c/executions")).json()["records"]
    assert (execution["status_code"], execution["response"]) == (0, ran["response"])
    await alice.patch("/tasks/c", json={"command": "true", "env": None})
    await alice.patch("/tasks/c", json={"url": WEB["url"], "method": "PUT"})
    again = (await alice.get(f"/runs/{ran['id']}")).json()
    assert again["request"] == request
    await alice.delete("/tasks/c")
    assert (await alice.get(f"/runs/{ran['id']}")).json()["request"] == request


async def test_a_command_that_fails_is_not_tried_again_and_its_exit_code_shows(alice):
    await made(alice, command="echo no; exit 3", scheduled_at="2025-12-01T15:00:00Z")

    async def ended() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await alice.get("/runs?task=c&state=failed")).json()["runs"]
        assert found
        return found

    (run,) = await eventually(ended)
    assert [attempt["status_code"] for attempt in run["attempts"]] == [3]
    assert (await got(alice))["state"] == "failed"
    await alice.patch("/tasks/c", json={"expected_status": [3]})
    assert (await executed(alice))["state"] == "succeeded"


async def test_what_falls_due_where_it_may_not_any_more_fails_with_the_reason(app, alice):
    await made(alice, frequency=1, unit="second", overlap="allow")
    await allow(app, "alice", allowed=False)

    async def told() -> None:
        found = (await alice.get("/runs?task=c&state=failed")).json()["runs"]
        assert any("--allow-commands" in run["reason"] for run in found)

    await eventually(told, 10)


async def test_neither_the_line_nor_the_environment_reaches_the_log(app, alice, capfd):
    await made(alice, command=f"echo {PLANTED}; exit 1", env={"A": PLANTED, "B_TOKEN": PLANTED})
    refused(
        await alice.post("/tasks", json={**GOOD, "id": "d", "command": f"{PLANTED}\0"}), "command"
    )
    await executed(alice)
    assert PLANTED not in "".join(capfd.readouterr())


# Pages -------------------------------------------------------------------------------------------


async def test_pages_show_what_a_command_is_and_what_it_said(app, alice):
    hostile = "<script>alert(1)</script> \u202e &amp;"
    await made(alice, command=f"echo '{hostile}'; exit 3", name=hostile,
               env={"API_TOKEN": PLANTED, "LANG": "<b>C</b>"})  # fmt: skip
    run = await executed(alice)
    async with signed_in(app) as visitor:
        pages = [await visitor.get(path) for path in
                 ("/dashboard", "/dashboard/tasks/c", f"/dashboard/runs/{run['id']}")]  # fmt: skip
    for answer in pages:
        assert answer.status_code == 200, answer.text
        assert "<script>alert" not in answer.text and "<b>C" not in answer.text
        assert "&lt;script&gt;alert(1)" in answer.text and "U+202E" in answer.text
        assert PLANTED not in answer.text
    _, of_task, of_run = (answer.text for answer in pages)
    for text in (of_task, of_run):
        assert "<dt>Command</dt>" in text and "API_TOKEN" in text and "********" in text
        assert "&lt;b&gt;C&lt;/b&gt;" in text and "<dt>Call</dt>" not in text
    assert "exit code 0" in of_task and "0 after the first try" in of_task
    assert "exit 3" in of_run and "Request</h2>" not in of_run


async def test_run_now_says_on_the_page_why_a_command_may_not(app, alice):
    await made(alice)
    await allow(app, "alice", allowed=False)
    async with signed_in(app) as visitor:
        shown = await visitor.get("/dashboard/tasks/c")
        fields = {"form": field(shown.text, "form"), "nonce": field(shown.text, "nonce")}
        answer = await visitor.post("/dashboard/tasks/c/run", data=fields)
    assert answer.status_code == 403 and "--allow-commands" in answer.text
