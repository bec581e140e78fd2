"""The form of a task: what it saves, what it says is wrong, and what it shows before."""

import html
import re
from typing import Any

import httpx
import pytest

from pages import safe

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
