"""The form of a task: what it saves, what it says is wrong, and what it shows before."""

import asyncio
import html
import re
from typing import Any

import httpx
import pytest

from conftest import App
from pages import safe, statements

NEW = "/dashboard/new"


class Forms:
    """Forms as a browser without script sends them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def opened(self, path: str = NEW) -> dict[str, Any]:
        """The fields of a form as it was opened."""
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        safe(answer)
        return fields_of(answer.text)

    async def sent(
        self, fields: dict[str, Any], path: str = NEW, do: str = "save", **more: Any
    ) -> httpx.Response:
        return await self.client.post(path, data={**fields, "do": do, **more})


def fields_of(text: str) -> dict[str, Any]:
    """What a browser would send of the form on a page."""
    form = re.search(r'<form class="editor".*?</form>', text, re.DOTALL)
    assert form, text
    inside = re.sub(
        r"<template.*?</template>|<datalist.*?</datalist>", "", form[0], flags=re.DOTALL
    )
    found: dict[str, Any] = {}

    def put(name: str, value: str) -> None:
        found.setdefault(name, []).append(html.unescape(value))

    for tag in re.finditer(
        r"<input\b([^>]*)>|<textarea\b([^>]*)>\n?(.*?)</textarea>|<select\b([^>]*)>(.*?)</select>",
        inside,
        re.DOTALL,
    ):
        attributes = tag[1] or tag[2] or tag[4]
        name = re.search(r'\bname="([^"]*)"', attributes)
        assert name, attributes
        if tag[1] is not None:
            value = re.search(r'\bvalue="([^"]*)"', attributes)
            if re.search(r'type="(radio|checkbox)"', attributes) and " checked" not in attributes:
                continue
            put(name[1], value[1] if value else "")
        elif tag[2] is not None:
            put(name[1], tag[3])
        else:
            options = re.findall(r"<option([^>]*)>(.*?)</option>", tag[5], re.DOTALL)
            chosen = next((o for o in options if "selected" in o[0]), options[0])
            value = re.search(r'value="([^"]*)"', chosen[0])
            put(name[1], value[1] if value else chosen[1])
    return found


@pytest.fixture
def forms(visitor):
    return Forms(visitor)


async def test_a_task_is_created_of_each_kind(forms, alice):
    opened = await forms.opened()
    kinds = {
        "interval": {"frequency": "15", "unit": "minute"},
        "cron": {"cron": "30 7 * * MON-FRI", "timezone": "Europe/Berlin"},
        "rrule": {"rrule": "DTSTART:20270101T090000Z\nFREQ=WEEKLY;BYDAY=MO"},
        "once": {"scheduled_at": "2037-01-31T09:00", "times_in": "Europe/Berlin"},
        "manual": {},
    }
    for trigger, sent in kinds.items():
        fields = {**opened, "id": trigger, "name": f"By {trigger}", "trigger": trigger}
        fields |= {"url": "http://127.0.0.1:9/x", "tags": "a, b", **sent}
        answer = await forms.sent(fields)
        assert answer.status_code == 303, answer.text
        assert answer.headers["Location"] == f"/dashboard/tasks/{trigger}?done=created"
    found = {task["id"]: task for task in (await alice.get("/tasks")).json()}
    assert (found["interval"]["frequency"], found["interval"]["unit"]) == (15, "minute")
    assert found["cron"]["cron"] == "30 7 * * MON-FRI"
    assert found["cron"]["timezone"] == "Europe/Berlin"
    assert "FREQ=WEEKLY" in found["rrule"]["rrule"]
    assert found["once"]["scheduled_at"] == "2037-01-31T08:00:00.000Z"
    assert found["manual"]["scheduled_at"] is None and found["manual"]["cron"] is None
    assert all(task["tags"] == ["a", "b"] for task in found.values())


async def test_the_other_actions_are_created_too(forms, alice):
    fields = {**await forms.opened(), "trigger": "manual", "id": "c", "name": "c"}
    fields |= {"action": "command", "command": "echo hello", "url": "left over"}
    refused = await forms.sent(fields)
    assert refused.status_code == 403 and "commands.enabled" in refused.text
    assert fields_of(refused.text)["command"] == ["echo hello"]  # nothing typed is lost
    fields |= {"action": "operation", "service": "pets", "endpoint": "POST /pets/{id}"}
    refused = await forms.sent(fields | {"url_params": '{"id": 7'})
    assert refused.status_code == 400 and error(refused, "url_params").startswith("is not JSON")
    refused = await forms.sent(fields | {"url_params": '{"id": 7}'})
    assert error(refused, "service") == "there is no spec pets; add it first"


def error(answer: httpx.Response, name: str) -> str:
    """What stands next to a field."""
    found = re.search(rf'<p class="wrong" id="e-{name}"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert found, name
    return html.unescape(re.sub(r"<[^>]*>", "", found[1]))


async def test_each_error_stands_next_to_its_field_and_nothing_typed_is_lost(forms, alice):
    typed = {
        **await forms.opened(), "name": "", "id": "bulk", "url": "ftp://x", "payload": " a\nb",
        "header": ["A b", "X"], "value": ["1", "2"], "secret": ["", "1"], "frequency": "2",
        "unit": "minute", "misfire": "latest", "expected_status": "9", "start_at": "2027-02-30T01:00",
    }  # fmt: skip
    answer = await forms.sent(typed)
    assert answer.status_code == 400
    assert error(answer, "start_at").startswith("is no time that exists")
    assert error(answer, "name").startswith("is needed") and "is a route" in error(answer, "id")
    assert "http://" in error(answer, "url")
    assert "must be like 200" in error(answer, "expected_status")
    assert "a header name" in error(answer, "header-0") and error(answer, "header-1") == ""
    assert answer.text.count(" autofocus") == 1
    first = re.search(r'<input[^>]*name="name"[^>]*>', answer.text)
    assert first and "autofocus" in first[0] and 'aria-invalid="true"' in first[0]
    assert 'aria-describedby="h-name e-name"' in first[0]
    kept = fields_of(answer.text)
    assert kept["payload"] == [" a\nb"] and kept["url"] == ["ftp://x"]
    assert (kept["header"], kept["value"], kept["secret"]) == (["A b", "X"], ["1", "2"], ["", "1"])
    assert (await alice.get("/tasks")).json() == []


async def test_a_text_that_is_no_number_or_a_time_that_the_clocks_leave_out_is_told(forms):
    opened = {**await forms.opened(), "name": "n", "url": "http://127.0.0.1:9/"}
    answer = await forms.sent({**opened, "frequency": "often", "max_retries": "1.5"})
    assert "a whole number" in error(answer, "frequency")
    assert "a whole number" in error(answer, "max_retries")
    once = {"trigger": "once", "scheduled_at": "2027-03-28T02:30", "times_in": "Europe/Berlin"}
    answer = await forms.sent({**opened, **once})
    assert "does not exist in Europe/Berlin" in error(answer, "scheduled_at")
    answer = await forms.sent({**opened, **once, "times_in": "Berlin"})
    assert "did you mean Europe/Berlin" in error(answer, "times_in")
    answer = await forms.sent({**opened, "trigger": "cron", "cron": "* * *"})
    assert "five fields" in error(answer, "cron")


SECRETS = {
    "id": "s", "name": "With secrets", "url": "http://127.0.0.1:9/", "method": "POST",
    "payload": {"n": 12345678901234567890}, "cron": "0 9 * * *", "timezone": "Europe/Berlin",
    "header": {"Authorization": "Bearer planted", "X-Mine": "planted too", "X-Open": "open"},
    "secret_headers": ["X-Mine", "X-Else"], "tags": ["a"], "description": "Two\nlines",
    "start_at": "2027-01-01T00:00:00.123Z", "retry_backoff": {"initial_seconds": 2},
    "max_retries": 2, "expected_status": [200, "300-302"],
}  # fmt: skip


async def stored(conn: Any) -> Any:
    return await conn.fetchrow("SELECT * FROM task WHERE id = 's'")


async def test_a_form_that_nobody_touched_changes_nothing(forms, alice, conn):
    await alice.post("/tasks", json=SECRETS)
    before = await stored(conn)
    opened = await forms.opened("/dashboard/tasks/s/edit")
    assert "planted" not in str(opened) and opened["value"].count("********") == 2
    answer = await forms.sent(opened, "/dashboard/tasks/s/edit")
    assert answer.status_code == 303
    assert dict(await stored(conn)) == dict(before)


async def test_an_edit_changes_what_was_changed_and_keeps_secrets(forms, alice, app, receiver):
    sent = {**SECRETS, "url": receiver.url}
    await alice.post("/tasks", json=sent)
    before = (await alice.get("/tasks/s")).json()
    opened = await forms.opened("/dashboard/tasks/s/edit")
    changed = {**opened, "name": "Other", "value": ["********", "********", "shut"]}
    names = opened["header"]
    changed["value"] = ["shut" if n == "X-Open" else "********" for n in names]
    answer = await forms.sent(changed, "/dashboard/tasks/s/edit")
    assert answer.status_code == 303, answer.text
    after = (await alice.get("/tasks/s")).json()
    header = {**before["header"], "X-Open": "shut"}
    assert after == before | {
        "name": "Other", "header": header, "updated_at": after["updated_at"],
    }  # fmt: skip
    await alice.post("/tasks/s/execute")
    got = receiver.requests[0]
    assert (got.header("authorization"), got.header("x-mine"), got.header("x-open")) == (
        "Bearer planted", "planted too", "shut",
    )  # fmt: skip
    assert after["payload"] == '{"n":12345678901234567890}'


async def test_an_edit_turns_any_trigger_and_action_into_any_other(forms, alice):
    await alice.post("/tasks", json=SECRETS | {"start_at": None})
    turns = [
        ({"trigger": "once", "scheduled_at": "2037-01-01T09:00", "times_in": "UTC"},
         {"scheduled_at": "2037-01-01T09:00:00.000Z", "cron": None}),
        ({"trigger": "rrule", "rrule": "FREQ=DAILY;BYHOUR=9", "timezone": "Asia/Tokyo"},
         {"timezone": "Asia/Tokyo", "cron": None}),
        ({"trigger": "interval", "frequency": "3", "unit": "hour"},
         {"frequency": 3, "unit": "hour", "rrule": None}),
        ({"trigger": "manual"}, {"frequency": None, "scheduled_at": None}),
        ({"trigger": "cron", "cron": "0 9 * * *", "dst_overlap": "both"},
         {"cron": "0 9 * * *", "dst_overlap": "both"}),
    ]  # fmt: skip
    for sent, expected in turns:
        opened = await forms.opened("/dashboard/tasks/s/edit")
        answer = await forms.sent({**opened, **sent}, "/dashboard/tasks/s/edit")
        assert answer.status_code == 303, answer.text
        task = (await alice.get("/tasks/s")).json()
        assert {name: task[name] for name in expected} == expected
    opened = await forms.opened("/dashboard/tasks/s/edit")
    answer = await forms.sent(
        {**opened, "action": "command", "command": ""}, "/dashboard/tasks/s/edit"
    )
    assert "is needed" in error(answer, "command")


async def test_who_edits_what_someone_else_changed_is_shown_both(forms, alice):
    await alice.post("/tasks", json=SECRETS)
    opened = await forms.opened("/dashboard/tasks/s/edit")
    await alice.patch("/tasks/s", json={"name": "Theirs", "tags": ["b"], "max_retries": 7})
    yours = {**opened, "name": "Yours", "description": "Mine"}
    answer = await forms.sent(yours, "/dashboard/tasks/s/edit")
    assert answer.status_code == 409 and "Someone changed this task" in answer.text
    assert "Yours" in answer.text and "Theirs" in answer.text
    assert (await alice.get("/tasks/s")).json()["name"] == "Theirs"
    again = fields_of(answer.text)
    assert (again["name"], again["tags"], again["max_retries"]) == (["Yours"], ["b"], ["7"])
    assert (await forms.sent(again, "/dashboard/tasks/s/edit")).status_code == 303
    after = (await alice.get("/tasks/s")).json()
    assert (after["name"], after["tags"], after["max_retries"], after["description"]) == (
        "Yours", ["b"], 7, "Mine",
    )  # fmt: skip


async def test_a_text_that_is_too_long_for_the_form_is_kept(forms, alice):
    await alice.post("/tasks", json=SECRETS | {"payload": "x" * 150_000})
    opened = await forms.opened("/dashboard/tasks/s/edit")
    assert opened["payload"] == [""]
    await forms.sent({**opened, "name": "Other"}, "/dashboard/tasks/s/edit")
    task = (await alice.get("/tasks/s")).json()
    assert (task["name"], len(task["payload"])) == ("Other", 150_000)


async def test_a_task_is_duplicated_but_for_its_secrets(forms, alice, visitor):
    await alice.post("/tasks", json=SECRETS)
    page = await visitor.get(NEW, params={"from": "s"})
    opened = fields_of(page.text)
    assert "********" not in opened["value"] and "Authorization is secret" in page.text
    assert (opened["name"], opened["id"], opened["cron"]) == (
        ["With secrets, copy"], [""], ["0 9 * * *"],
    )  # fmt: skip
    assert (await visitor.get(NEW, params={"from": "none"})).status_code == 404


async def test_the_form_of_another_services_task_is_not_there(forms, bob, visitor):
    await bob.post("/tasks", json=SECRETS)
    for path in ("/dashboard/tasks/s/edit", "/dashboard/tasks/s/copy", f"{NEW}?from=s"):
        assert (await visitor.get(path)).status_code == 404
    opened = await forms.opened()
    for path in ("/dashboard/tasks/s/edit", "/dashboard/preview", "/dashboard/trial"):
        assert (await forms.sent({**opened, "task": "s", "was": "{}"}, path)).status_code == 404


async def test_a_form_from_elsewhere_does_nothing(forms, alice):
    opened = {**await forms.opened(), "form": "x" * 43, "name": "n", "url": "http://127.0.0.1:9/"}
    for path in (NEW, "/dashboard/preview", "/dashboard/trial"):
        assert (await forms.sent(opened, path)).status_code == 403
    assert (await alice.get("/tasks")).json() == []


# The preview -------------------------------------------------------------------------------------


async def test_the_preview_says_when_in_words_and_times_and_what_the_clocks_do(forms):
    opened = {**await forms.opened(), "trigger": "rrule", "timezone": ""}
    opened["rrule"] = "DTSTART;TZID=Europe/Berlin:20370327T023000\nRRULE:FREQ=DAILY;COUNT=4"
    part = await forms.sent(opened, "/dashboard/preview", part="1")
    assert part.status_code == 200 and "<html" not in part.text
    assert part.text.count("<li>") == 4 and "Europe/Berlin" in part.text
    assert "Sun 2037-03-29 03:30:00 +02:00" in part.text
    assert re.search(r'class="sub note">.*02:30', part.text), part.text
    page = await forms.sent(opened, "/dashboard/preview")
    assert "<html" in page.text and page.text.count('class="sub note"') == 1


async def test_the_preview_tells_of_calendars_and_of_what_is_wrong(forms, alice):
    await alice.post("/calendars", json={"name": "closed", "weekly": [{"days": ["SAT"]}]})
    opened = {**await forms.opened(), "trigger": "cron", "cron": "0 9 * * *"}
    assert "closed" in (await forms.client.get(NEW)).text
    part = await forms.sent(opened, "/dashboard/preview", part="1", calendar="closed")
    assert "skipped: calendar closed" in part.text and part.text.count("<li>") == 10
    part = await forms.sent({**opened, "cron": "x", "name": ""}, "/dashboard/preview", part="1")
    assert part.status_code == 200 and 'data-of="cron"' in part.text
    assert 'data-of="name"' not in part.text
    whole = await forms.sent({**opened, "cron": "x"}, "/dashboard/preview")
    assert whole.status_code == 400 and "five fields" in error(whole, "cron")


async def test_the_preview_of_an_edit_goes_on_from_the_task(forms, alice):
    anchored = {"id": "s", "name": "n", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "day"}
    await alice.post("/tasks", json=anchored | {"scheduled_at": "2037-01-01T00:07:00Z"})
    opened = await forms.opened("/dashboard/tasks/s/edit")
    part = await forms.sent({**opened, "frequency": "2"}, "/dashboard/preview", part="1")
    assert "2037-01-01 00:07:00" in part.text and "2037-01-03 00:07:00" in part.text


# Filling it in, and its rows ---------------------------------------------------------------------


async def test_a_curl_command_fills_the_form_in_and_what_it_cannot_is_told(forms, visitor):
    command = "curl -X PUT https://a.test/x -H 'Authorization: Bearer t' -d a=1 -F f=@x"
    page = await visitor.get(NEW, params={"curl": command})
    for answer in (page, await forms.sent(await forms.opened(), do="paste", curl=command)):
        found = fields_of(answer.text)
        assert (found["url"], found["method"]) == (["https://a.test/x"], ["PUT"])
        assert found["header"] == ["Authorization", "Content-Type"]
        assert (found["payload"], found["curl"]) == (["a=1"], [command])
        assert "-F f=@x is left out" in answer.text
    form = {"form": (await forms.opened())["form"][0], "curl": command, "do": "paste"}
    assert fields_of((await visitor.post(NEW, data=form)).text)["method"] == ["PUT"]


async def test_an_operation_is_filled_in_from_the_address(visitor):
    asked = {"service": "pets", "endpoint": "/pets/{id}", "method": "DELETE"}
    found = fields_of((await visitor.get(NEW, params=asked)).text)
    assert found["action"] == ["operation"] and found["service"] == ["pets"]
    assert found["endpoint"] == ["DELETE /pets/{id}"]


async def test_rows_come_and_go_without_script(forms):
    opened = {**await forms.opened(), "name": "kept"}
    for _ in range(2):
        opened = fields_of((await forms.sent(opened, do="add-header")).text)
    opened |= {"header": ["A", "B"], "value": ["1", "2"]}
    opened = fields_of((await forms.sent(opened, do="drop-header-0")).text)
    assert (opened["header"], opened["value"], opened["name"]) == (["B"], ["2"], ["kept"])
    opened = fields_of((await forms.sent(opened, do="add-variable")).text)
    assert (opened["env"], opened["val"]) == ([""], [""])


async def test_hostile_texts_stay_texts_in_the_form(forms, alice, visitor):
    hostile = '</textarea><script>alert(1)</script>"><img src=x>{{ 7*7 }}'
    await alice.post("/tasks", json=SECRETS | {
        "name": hostile, "description": hostile, "tags": [hostile], "payload": "\n" + hostile,
        "header": {"X-A": hostile}, "id": "h",
    })  # fmt: skip
    page = await visitor.get("/dashboard/tasks/h/edit")
    assert "<script>alert" not in page.text and "<img src=x" not in page.text
    found = fields_of(page.text)
    assert found["payload"] == ["\n" + hostile] and found["name"] == [hostile]
    copies = await visitor.get("/dashboard/tasks/h/copy")
    assert copies.status_code == 200
    assert "<script>alert" not in copies.text and "<img src=x" not in copies.text


async def test_a_form_takes_five_statements_at_most(alice, visitor, app: App):
    await alice.post("/calendars", json={"name": "c", "weekly": [{"days": ["SAT"]}]})
    await alice.post("/tasks", json=SECRETS | {"calendars": ["c"]})
    for path in (NEW, "/dashboard/tasks/s/edit", f"{NEW}?from=s", "/dashboard/tasks/s/copy"):
        with statements(app) as seen:
            assert (await visitor.get(path)).status_code == 200
        assert 1 < len(seen) <= 5, (path, seen)


async def test_a_form_that_is_sent_twice_makes_one_task(forms, visitor, alice):
    sent = {**await forms.opened(), "name": "n", "url": "http://127.0.0.1:9/", "frequency": "5"}
    first, second = await asyncio.gather(forms.sent(sent), forms.sent(sent))
    assert first.status_code == second.status_code == 303
    assert first.headers["Location"] == second.headers["Location"]
    assert len((await alice.get("/tasks")).json()) == 1
