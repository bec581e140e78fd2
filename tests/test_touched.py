"""What is done to tasks, by anyone and on any replica: open pages of their service hear of it."""

from typing import Any

from conftest import App, RunApp, eventually
from pages import signed_in
from test_live import create, has, listening

HOSTILE = "<b>bold</b> & co"


def added(heard: Any) -> list[str]:
    return [task["id"] for each in heard.of("tasks") for task in each]


def created(heard: Any, *ids: str) -> None:
    assert added(heard) == list(ids)


def renamed(heard: Any) -> None:
    assert "&lt;b&gt;bold" in heard.slots["task:one:name"]


async def test_pages_hear_what_another_replica_is_asked_to_change(
    app: App, run_app: RunApp, bob, receiver
):
    async with (
        run_app() as other,
        other.client("alice") as alice,
        signed_in(app) as hers,
        signed_in(app, "bob") as his,
        listening(hers) as heard,
        listening(his) as bobs,
    ):
        await create(alice, receiver.url, tags=["a"])
        await eventually(lambda: created(heard, "one"))
        [[told]] = heard.of("tasks")
        assert (told["status"], told["trigger"], told["action"]) == ("active", "once", "http")
        assert told["tags"] == ["a"]
        answer = await alice.patch("/tasks/one", json={"name": HOSTILE, "status": "paused"})
        assert answer.status_code == 200
        await eventually(lambda: renamed(heard))
        has(heard, "task:one:state", "paused")
        assert 'value="active"' in heard.slots["task:one:switch"]
        assert heard.slots["task:one:version"] == "2"
        assert (await alice.patch("/tasks/one", json={"status": "disabled"})).status_code == 200
        await eventually(lambda: has(heard, "task:one:state", "disabled"))
        assert (await alice.delete("/tasks/one")).status_code < 300
        await eventually(lambda: has(heard, "task:one:state", "deleted"))
        await create(bob, receiver.url, "his")
        await eventually(lambda: created(bobs, "his"))
        created(heard, "one")
        assert not [name for name in bobs.slots if name.startswith("task:one")]
