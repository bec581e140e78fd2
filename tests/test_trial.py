"""Test calls: what a form describes is done once, and neither saved nor sent astray."""

import asyncio
from uuid import UUID

import pytest

from conftest import RunApp, eventually
from pages import signed_in
from receiver import Answer, receiving
from scheduler.dashboard.editor import trials
from scheduler.errors import TooManyRequests
from scheduler.masking import MASK
from test_editor import SECRETS, Forms, error
from test_pages import in_base64, reached

TRIAL = "/dashboard/trial"


@pytest.fixture
def forms(visitor):
    return Forms(visitor)


async def test_a_test_call_is_made_once_as_a_run_would_and_nothing_is_saved(
    forms, alice, receiver, conn
):
    receiver.then(201, b'{"a":{"b":12345678901234567890}}', {})
    fields = {
        **await forms.opened(),
        "url": f"{receiver.url}/x?token=planted",
        "payload": '{"a": 1}',
    }
    fields |= {"header": ["X-A"], "value": ["1"], "secret": [""], "name": ""}
    part = await forms.sent(fields, TRIAL, part="1")
    assert part.status_code == 200 and "<html" not in part.text
    assert "201" in part.text and "succeeded" in part.text and "12345678901234567890" in part.text
    assert "planted" not in part.text
    [got] = receiver.requests
    assert (got.method, got.body, got.header("x-a")) == ("POST", b'{"a":1}', "1")
    assert got.header("content-type") == "application/json"
    assert got.header("webhook-signature").startswith("v1,")
    assert (await alice.get("/tasks")).json() == []
    assert (await alice.get("/runs")).json()["runs"] == []
    page = await forms.sent(fields, TRIAL)
    assert "<html" in page.text and "Nothing was saved" in page.text
    receiver.then(503, b"later", {})
    failed = await forms.sent(fields, TRIAL, part="1")
    assert "the target answered 503" in failed.text and "later" in failed.text
    assert len(receiver.requests) == 3


async def test_what_is_wrong_with_the_form_is_said_and_nothing_is_sent(forms, receiver):
    fields = {**await forms.opened(), "url": receiver.url, "header": ["A b"], "value": ["1"]}
    part = await forms.sent({**fields, "secret": [""]}, TRIAL, part="1")
    assert "The test call was not made" in part.text and 'data-of="header.A b"' in part.text
    page = await forms.sent({**await forms.opened(), "url": ""}, TRIAL)
    assert page.status_code == 400 and "is needed" in error(page, "url")
    assert receiver.requests == []


async def test_egress_is_refused_as_for_any_run(run_app: RunApp):
    async with run_app(EGRESS_DENY="10.0.0.0/8") as app, signed_in(app) as visitor:
        forms = Forms(visitor)
        opened = await forms.opened()
        for url in ("http://169.254.169.254/latest", "http://10.1.2.3/", f"{app.url}/tasks"):
            part = await forms.sent({**opened, "url": url}, TRIAL, part="1")
            assert "egress: " in part.text and "failed" in part.text, part.text


async def test_stored_secrets_go_nowhere_but_where_they_are_stored_for(forms, alice, receiver):
    await alice.post("/tasks", json=SECRETS | {"url": receiver.url + "/mine"})
    opened = await forms.opened("/dashboard/tasks/s/edit")
    assert opened["value"].count(MASK) == 2
    receiver.then(200, b'{"seen": "Bearer planted", "and": "planted too", "open": "open"}', {})
    part = await forms.sent({**opened, "url": receiver.url + "/other"}, TRIAL, part="1")
    assert receiver.requests[0].header("authorization") == "Bearer planted"
    assert "planted" not in part.text and "open" in part.text
    async with receiving() as elsewhere:
        hosts = dict(zip(opened["header"], opened["value"], strict=True)) | {"Host": "b.test"}
        for change in (
            {"url": elsewhere.url},
            {
                "header": list(hosts),
                "value": list(hosts.values()),
                "secret": [*opened["secret"], ""],
            },
        ):
            part = await forms.sent({**opened, **change}, TRIAL, part="1")
            assert "type it anew" in part.text and "header.Authorization" in part.text
        assert elsewhere.requests == [] and len(receiver.requests) == 1
        anew = {**opened, "url": elsewhere.url, "value": ["typed"] * 3}
        part = await forms.sent(anew, TRIAL, part="1")
        assert elsewhere.requests[0].header("authorization") == "typed"
    assert (await alice.get("/tasks/s")).json()["url"] == receiver.url + "/mine"


async def test_a_command_is_tried_where_it_may_run_with_its_secrets_for_itself(
    run_app: RunApp, commands_on
):
    async with (
        run_app(**commands_on) as app,
        signed_in(app) as visitor,
        app.client("alice") as alice,
    ):
        forms = Forms(visitor)
        fields = {**await forms.opened(), "action": "command", "command": 'echo "$A"; exit 3'}
        fields |= {"env": ["A"], "val": ["it is"]}
        part = await forms.sent(fields, TRIAL, part="1")
        assert "it is" in part.text and "exit code 3" in part.text
        command = {
            "id": "s",
            "name": "s",
            "command": "echo $API_KEY",
            "env": {"API_KEY": "planted"},
        }
        assert (await alice.post("/tasks", json=command)).status_code == 201
        opened = await forms.opened("/dashboard/tasks/s/edit")
        part = await forms.sent(opened, TRIAL, part="1")
        assert "succeeded" in part.text and "planted" not in part.text and MASK in part.text
        other = await forms.sent({**opened, "command": "echo $API_KEY | rev"}, TRIAL, part="1")
        assert "type it anew" in other.text and "detnalp" not in other.text
        for name in ("PATH", "BASH_ENV"):
            changed = {"env": [*opened["env"], name], "val": [*opened["val"], "/nowhere"]}
            other = await forms.sent({**opened, **changed}, TRIAL, part="1")
            assert "type it anew" in other.text and "failed" not in other.text


async def test_a_command_is_not_tried_where_it_may_not_run(forms):
    fields = {**await forms.opened(), "action": "command", "command": "echo hello"}
    part = await forms.sent(fields, TRIAL)
    assert part.status_code == 403 and "commands.enabled" in part.text


async def test_an_operation_is_tried_through_its_spec(forms, alice, receiver):
    ok = {"responses": {"200": {"description": "ok"}}}
    number = {"name": "n", "in": "path", "required": True, "schema": {"type": "integer"}}
    document = {
        "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
        "servers": [{"url": receiver.url}],
        "paths": {"/a/{n}": {"get": {"parameters": [number], **ok}}},
    }  # fmt: skip
    new = {"name": "pets", "headers": {"x-key": "planted"}, "spec": in_base64(document)}
    trace = (await alice.post("/v1/api/spec", json=new)).json()["trace_id"]
    await eventually(lambda: reached(alice, trace))
    offered = await forms.client.get("/dashboard/new/endpoints?service=Pets")
    assert "GET /a/{n}" in offered.text
    fields = {**await forms.opened(), "action": "operation", "service": "pets"}
    fields |= {"endpoint": "GET /a/{n}", "url_params": '{"n": 7}'}
    part = await forms.sent(fields, TRIAL, part="1")
    assert "succeeded" in part.text, part.text
    assert (receiver.requests[0].path, receiver.requests[0].header("x-key")) == ("/a/7", "planted")
    part = await forms.sent({**fields, "url_params": ""}, TRIAL, part="1")
    assert "failed" in part.text and "must be specified" in part.text


def test_a_service_makes_so_many_test_calls_at_once_and_a_minute():
    ours, theirs = UUID(int=1), UUID(int=2)
    counted = trials.Trials()
    with counted.turn(ours, 0.0), counted.turn(ours, 0.0):
        with pytest.raises(TooManyRequests, match="under way"), counted.turn(ours, 0.0):
            pass
        with counted.turn(theirs, 0.0):
            pass
    for _ in range(trials.MOST_EACH_MINUTE - 2):
        with counted.turn(ours, 1.0):
            pass
    with (
        pytest.raises(TooManyRequests, match="20 test calls a minute") as e,
        counted.turn(ours, 2.0),
    ):
        pass
    assert e.value.retry_after == 59
    with counted.turn(ours, 61.0):
        pass


async def test_no_more_than_so_many_are_under_way_of_a_service(forms, receiver):
    held = asyncio.Event()
    receiver.otherwise = Answer(after=held)
    fields = {**await forms.opened(), "url": receiver.url}
    calls = [asyncio.create_task(forms.sent(fields, TRIAL, part="1")) for _ in range(4)]
    await eventually(lambda: len_at_least(receiver.requests, trials.MOST_AT_ONCE))
    held.set()
    texts = [(await call).text for call in calls]
    assert sum("wait for one to end" in text for text in texts) == 2
    assert len(receiver.requests) == 2


def len_at_least(found: list[object], most: int) -> None:
    assert len(found) >= most
