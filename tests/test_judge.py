"""The judge of rules: one child process, which no rule can hold up for others, and which ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx
import psutil
import pytest

from conftest import eventually
from harness import Scheduler, Shared, until
from scheduler.errors import TooManyRequests, Unavailable
from scheduler.judge import WAITING_MOST, Judge
from scheduler.judging import LIMIT_S, Ask
from scheduler.tasks import bulk

pytestmark = pytest.mark.alone

NOW = 1_800_000_000_000
ALICE, BOB = UUID(int=1), UUID(int=2)
SECOND_OF_NEVER = "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=1;BYMINUTE=1"
HOSTILE = {
    "interval-0": "FREQ=DAILY;INTERVAL=0",
    "30-february": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "every-30-february": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
    "secondly-bysetpos": "FREQ=SECONDLY;BYSETPOS=2",
    "minutely-bysetpos": "FREQ=MINUTELY;BYSETPOS=-1;BYHOUR=3",
    "hourly-bysetpos": "FREQ=HOURLY;BYSETPOS=366",
    "contradiction": SECOND_OF_NEVER,
    "mondays-apart": "FREQ=MINUTELY;INTERVAL=7;BYHOUR=1;BYMINUTE=1;BYDAY=MO",
    "exrule": "DTSTART:20200101T000000Z\nRRULE:FREQ=SECONDLY\nEXRULE:FREQ=SECONDLY",
    "exdates": "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY\nEXDATE:"
    + ",".join(f"2020{1 + n % 12:02}{1 + n // 12 % 28:02}T{n // 336 % 24:02}0000Z"
               for n in range(10_000)),
    "long": "FREQ=DAILY;BYHOUR=" + ",".join(["9"] * 60_000),
    "many": "DTSTART:20200101T000000Z\n" + "RRULE:FREQ=SECONDLY;BYSECOND=7\n" * 5_000,
    "nested": "RRULE:" * 20_000,
    "count": "FREQ=SECONDLY;COUNT=999999999999",
    "far": "DTSTART:00010101T000000Z\nRRULE:FREQ=SECONDLY;INTERVAL=7;BYDAY=MO;COUNT=1000000000",
}  # fmt: skip


def ask(text: str) -> Ask:
    return Ask(text, None, NOW, "shift", "first")


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    found = Judge()
    yield found
    await found.close()


def child_of(judge: Judge) -> int:
    assert judge.pid is not None
    return judge.pid


# The child ----------------------------------------------------------------------------------------


async def test_a_rule_is_judged_in_a_child_and_the_verdict_is_remembered(judge):
    assert judge.pid is None, "it starts when it is asked first"
    answer, _ = await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    assert answer.rule is not None and answer.rule.next(NOW) == NOW + 86_400_000
    assert child_of(judge) in {child.pid for child in psutil.Process().children()}

    os.kill(child_of(judge), signal.SIGSTOP)
    assert await judge.ask(BOB, ask("FREQ=DAILY"), NOW) == (answer, 0.0)


async def test_a_rule_that_is_wrong_is_answered_with_the_reason(judge):
    answer, _ = await judge.ask(ALICE, ask("FREQ=DAILY;INTERVAL=0"), NOW)
    assert answer.rule is None and answer.reason and "INTERVAL" in answer.reason


@pytest.fixture(scope="module")
async def one_for_all() -> AsyncIterator[Judge]:
    found = Judge()
    yield found
    await found.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_rule_takes_more_than_its_time(one_for_all, name):
    answer, cpu_s = await one_for_all.ask(ALICE, ask(HOSTILE[name]), NOW)
    assert cpu_s < 2 * LIMIT_S
    assert (answer.rule is None) == bool(answer.reason)
    assert len(answer.reason or "") < 500


async def test_the_child_has_no_secret_of_ours(judge, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_KEY", "the-key-of-the-house")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "open").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
        child = psutil.Process(child_of(judge))
        assert set(child.environ()) <= {"PYTHONPATH", "LC_ALL", "LC_CTYPE"}
        assert "the-key" not in " ".join(child.cmdline())
        assert [file.path for file in child.open_files()] == []
        assert child.cwd() == "/"
    assert child.nice() > 0


async def test_a_child_that_is_killed_in_the_middle_of_a_rule_is_replaced(judge):
    await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    first = child_of(judge)
    os.kill(first, signal.SIGSTOP)
    asked = asyncio.create_task(judge.ask(ALICE, ask("FREQ=HOURLY"), NOW))
    await eventually(lambda: _unread(judge))
    os.kill(first, signal.SIGKILL)

    answer, _ = await asked
    assert answer.rule is not None
    assert child_of(judge) != first


def _unread(judge: Judge) -> None:
    assert judge._working is not None and not judge._waiting


async def test_a_child_that_is_silent_is_given_up_and_replaced():
    judge = Judge(wall_s=0.3)
    await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    first = child_of(judge)
    os.kill(first, signal.SIGSTOP)

    answer, _ = await judge.ask(ALICE, ask("FREQ=HOURLY"), NOW)
    assert answer.rule is None and "costs too much" in str(answer.reason)
    assert not psutil.pid_exists(first)
    answer, _ = await judge.ask(ALICE, ask("FREQ=HOURLY"), NOW)
    assert answer.rule is not None, "what the machine did is not held against the rule"
    await judge.close()


async def test_services_take_turns(judge):
    await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    os.kill(child_of(judge), signal.SIGSTOP)
    done: list[str] = []

    async def wait(name: str, service: UUID, text: str) -> None:
        await judge.ask(service, ask(text), NOW)
        done.append(name)

    asked = [wait(f"alice {n}", ALICE, f"{SECOND_OF_NEVER};BYSECOND={n}") for n in range(6)]
    tasks = [asyncio.create_task(one) for one in (*asked, wait("bob", BOB, "FREQ=WEEKLY"))]
    await eventually(lambda: _stands(judge))
    os.kill(child_of(judge), signal.SIGCONT)
    await asyncio.gather(*tasks)

    assert done.index("bob") <= 2
    assert sorted(done) == sorted([*(f"alice {n}" for n in range(6)), "bob"])


def _stands(judge: Judge) -> None:
    assert {service: len(line) for service, line in judge._waiting.items()} == {ALICE: 5, BOB: 1}


async def test_a_service_may_have_so_many_rules_waiting_and_no_more(judge):
    await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    os.kill(child_of(judge), signal.SIGSTOP)
    texts = [f"FREQ=DAILY;INTERVAL={n}" for n in range(2, WAITING_MOST + 3)]
    tasks = [asyncio.create_task(judge.ask(ALICE, ask(texts.pop()), NOW))]
    await eventually(lambda: _unread(judge))
    tasks += [asyncio.create_task(judge.ask(ALICE, ask(text), NOW)) for text in texts]
    await eventually(lambda: _full(judge))

    with pytest.raises(TooManyRequests, match="wait to be judged"):
        await judge.ask(ALICE, ask("FREQ=YEARLY"), NOW)
    bobs = asyncio.create_task(judge.ask(BOB, ask("FREQ=MONTHLY"), NOW))
    os.kill(child_of(judge), signal.SIGCONT)
    assert (await bobs)[0].rule is not None
    assert all(answer.rule for answer, _ in await asyncio.gather(*tasks))


def _full(judge: Judge) -> None:
    assert len(judge._waiting[ALICE]) == WAITING_MOST


async def test_a_judge_that_is_closed_leaves_no_child_and_tells_who_waits():
    judge = Judge()
    await judge.ask(ALICE, ask("FREQ=DAILY"), NOW)
    pid = child_of(judge)
    os.kill(pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(judge.ask(ALICE, ask(f"FREQ=DAILY;COUNT={n}"), NOW))
             for n in (1, 2)]  # fmt: skip
    await eventually(lambda: _unread_but_one(judge))

    await judge.close()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert not psutil.pid_exists(pid)


def _unread_but_one(judge: Judge) -> None:
    assert sum(map(len, judge._waiting.values())) == 1


# Through the API ----------------------------------------------------------------------------------


async def test_hostile_rules_are_answered_at_once_while_others_fire_on_time(app, conn, receiver):
    async with app.client("alice") as alice, app.client("bob") as bob:
        beat = {"name": "beat", "url": receiver.url, "cron": "* * * * * *"}
        assert (await bob.post("/tasks", json=beat)).status_code == 201

        async def ask_all() -> None:
            for text in HOSTILE.values():
                started = time.monotonic()
                body = {"name": "a", "url": "http://127.0.0.1:9/", "rrule": text}
                answer = await alice.post("/tasks", json={**body, "status": "disabled"})
                assert time.monotonic() - started < 3
                if answer.status_code != 201:
                    assert answer.status_code == 400, answer.text
                    (detail,) = answer.json()["error"]["details"]
                    assert detail["field"] in ("rrule", "body")
                    assert len(detail["message"]) > 10

        async def fired() -> None:
            assert await conn.fetchval("SELECT count(*) FROM history") >= 3

        for _ in range(2):
            await asyncio.gather(*(ask_all() for _ in range(2)))
        await eventually(fired)
        found = await conn.fetch("SELECT started_at - scheduled_for AS late FROM history")
    lags = [row["late"].total_seconds() for row in found]
    assert median(lags) < 0.1 and max(lags) < 1, lags


async def test_while_a_rule_is_judged_no_connection_is_held(run_app):
    async with run_app(DATABASE_API_POOL="1") as app, app.client("alice") as alice:
        assert (await made(alice, "FREQ=DAILY")).status_code == 201
        os.kill(child_of(app.engine.judge), signal.SIGSTOP)
        asked = [asyncio.create_task(made(alice, f"FREQ=DAILY;INTERVAL={n}")) for n in (2, 3, 4)]
        await eventually(lambda: _asked(app.engine.judge, 2))
        assert (await alice.get("/tasks")).status_code == 200
        os.kill(child_of(app.engine.judge), signal.SIGCONT)
        assert [(await one).status_code for one in asked] == [201, 201, 201]


def _asked(judge: Judge, waiting: int) -> None:
    assert sum(map(len, judge._waiting.values())) == waiting


async def made(client: httpx.AsyncClient, rrule: str, **fields: object) -> httpx.Response:
    body = {"name": "a", "url": "http://127.0.0.1:9/", "rrule": rrule, **fields}
    return await client.post("/tasks", json=body)


async def test_a_bulk_judges_equal_rules_once_and_takes_only_so_much_time(alice, app, monkeypatch):
    def body(texts: list[str]) -> list[dict[str, object]]:
        return [{"name": "a", "url": "http://127.0.0.1:9/", "rrule": text} for text in texts]

    started = time.monotonic()
    same = await alice.post("/tasks/bulk", json=body([HOSTILE["30-february"]] * 500))
    assert same.status_code == 400 and time.monotonic() - started < 3
    assert {d["field"] for d in same.json()["error"]["details"]} == {
        f"[{n}].rrule" for n in range(100)
    }
    good = await alice.post("/tasks/bulk", json=body(["FREQ=DAILY"] * 200))
    assert good.json()["created"] == 200

    monkeypatch.setattr(bulk, "JUDGE_S", 0.001)
    many = await alice.post(
        "/tasks/bulk", json=body([f"FREQ=DAILY;INTERVAL={n}" for n in range(2, 1000)])
    )
    assert many.status_code == 400 and "send fewer" in many.text


async def test_a_rule_whose_letters_are_escaped_is_judged_too(alice):
    task = '{"name": "a", "url": "http://127.0.0.1:9/", "\\u0072rule": "FREQ=DAILY"}'
    answer = await alice.post(
        "/tasks/bulk", content=f"[{task}]", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text


async def test_a_preview_of_what_is_not_saved_is_judged_first(alice, app):
    before = time.process_time()
    answer = await alice.post("/tasks/preview", json={"rrule": HOSTILE["30-february"]})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "rrule"
    assert time.process_time() - before < 0.5
    assert app.engine.judge.pid is not None


# The end ------------------------------------------------------------------------------------------


def children(pid: int) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(pid).children() if "scheduler.judging" in child.cmdline()
    ]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_the_server(sign: signal.Signals, tmp_path: Path):
    shared = Shared(tmp_path / "data")
    server = Scheduler(tmp_path / "home", database=shared.fresh())
    try:
        server.ready()
        server.do("POST", "/tasks", {"name": "a", "url": "http://h/", "rrule": "FREQ=DAILY"})
        (child,) = children(server.pid)
        if sign == signal.SIGKILL:
            child.send_signal(signal.SIGSTOP)  # it reads no end of its input
        os.kill(server.pid, sign)
        until(lambda: not child.is_running() or child.status() == "zombie", 20, "the child ends")
    finally:
        server.close()
        shared.close()


def test_the_child_loads_little():
    loaded = "import sys, scheduler.judging; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )

    assert "dateutil.rrule" in done.stdout.split()
    assert not {"sqlalchemy", "asyncpg", "litestar", "asyncio"} & set(done.stdout.split())
