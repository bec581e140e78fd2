"""The page of runs: what fits the address, page by page, and as a file."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID, uuid4

import pytest

from conftest import App
from pages import safe, statements
from scheduler.dashboard.runs import runs, runs_export
from scheduler.run import bucket_in

NOW = datetime.now(UTC).replace(microsecond=0)
HOSTILE = '=HYPERLINK("http://x")</script><b>\u202e\x1b[31m'


async def fill(conn: Any, service: str, count: int, **fields: Any) -> list[str]:
    """Write finished runs of one task, a second apart; return their ids, the newest first."""
    ids = [uuid4() for _ in range(count)]
    of = {
        "task_id": "one",
        "kind": "task",
        "state": "succeeded",
        "reason": None,
        "at": NOW - timedelta(minutes=1),
        **fields,
    }
    attempt = {
        "number": 1,
        "outcome": "failed" if of["reason"] else "succeeded",
        "started_at": int(of["at"].timestamp() * 1000) + 20,
        "finished_at": int(of["at"].timestamp() * 1000) + 1520,
    }
    await conn.executemany(
        """INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version,
                                scheduled_for, state, reason, attempts, attempts_n, created_at,
                                started_at, finished_at, truncated, count)
           VALUES ($1, $12, $2, $3, $4, $5, 1, $6::timestamptz - make_interval(secs => $7), $8, $9,
                   $10, 1, $6, $6::timestamptz - make_interval(secs => $7 - 0.02), $11, false, 1)
        """,
        [
            (
                key,
                UUID(service),
                UUID(int=7),
                of["task_id"],
                of["kind"],
                of["at"],
                float(n),
                of["state"],
                of["reason"],
                json.dumps([attempt]),
                NOW,
                bucket_in(key),
            )
            for n, key in enumerate(ids)
        ],
    )
    return [str(key) for key in ids]


def listed(text: str) -> list[str]:
    return re.findall(r'data-run="([^"]+)"', text)


async def test_who_has_no_runs_learns_how_to_start_one(visitor):
    answer = await visitor.get("/dashboard/runs")
    safe(answer)
    assert "No runs yet" in answer.text and "/execute" in answer.text


async def test_filters_stand_in_the_address_and_in_the_form(app: App, visitor, conn):
    alice, bob = app.ids["alice"], app.ids["bob"]
    good = await fill(conn, alice, 3)
    bad = await fill(conn, alice, 2, state="failed", reason="status 500", task_id="two")
    hand = await fill(conn, alice, 1, kind="manual", at=NOW - timedelta(hours=2))
    await fill(conn, bob, 5)
    at = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    for address, expected in {
        "": {*good, *bad, *hand},
        "?state=failed": {*bad},
        "?state=failed&state=succeeded": {*good, *bad, *hand},
        "?state=failed,cancelled": {*bad},
        "?kind=manual": {*hand},
        "?task=two": {*bad},
        "?reason=status+500": {*bad},
        f"?from={at}": {*good, *bad},
        f"?from={at}Z": {*good, *bad},
        f"?to={at}Z": {*hand},
        f"?q={bad[0]}": {bad[0]},
        "?state=running": set(),
    }.items():
        answer = await visitor.get(f"/dashboard/runs{address}")
        assert answer.status_code == 200, answer.text
        assert set(listed(answer.text)) == expected, address
    answer = await visitor.get(f"/dashboard/runs?state=failed&task=two&from={at}Z")
    assert re.search(r'value="failed" checked', answer.text)
    assert 'name="task" value="two"' in answer.text
    assert f'type="datetime-local" name="from" value="{at[:16]}' in answer.text
    assert 'data-states="failed"' in answer.text and 'data-of="two"' in answer.text
    assert "1.5 s" in answer.text and "status 500" in answer.text and "20 ms" in answer.text


@pytest.mark.parametrize(
    ("field", "sent", "said"),
    [
        ("state", "faild", "must be one or more of"),
        ("kind", "x", "must be one or more of"),
        ("from", "yesterday", "must be an RFC 3339 time, like"),
        ("to", "2027-02-30T00:00:00Z", "is no time that exists"),
        ("task", "a\x00b", "NUL"),
    ],
)
async def test_a_filter_that_is_wrong_says_what_would_be_right(visitor, field, sent, said):
    answer = await visitor.get("/dashboard/runs", params={field: sent, "reason": "kept"})
    assert answer.status_code == 400
    beside = answer.text.partition(f'id="wrong-{field}"')[2][:400]
    assert said in beside and 'value="kept"' in answer.text
    assert field in ("task", "state") or sent in answer.text


async def test_a_place_in_the_list_that_is_none_is_said(visitor):
    answer = await visitor.get("/dashboard/runs?cursor=x")
    assert answer.status_code == 400 and "Begin at the newest" in answer.text


async def test_pages_show_every_run_once(app: App, visitor, conn):
    ids = await fill(conn, app.ids["alice"], 2 * runs.COUNT + 7)
    seen, address = [], "/dashboard/runs?task=one"
    while address:
        answer = await visitor.get(address)
        seen += listed(answer.text)
        older = re.search(r'href="([^"]+)" rel="next"', answer.text)
        address = older[1].replace("&amp;", "&") if older else ""
        assert not older or parse_qs(urlsplit(address).query)["task"] == ["one"]
    assert seen == ids


@pytest.mark.parametrize(
    "address",
    ["", "?state=failed", "?kind=manual", "?task=none", "?state=failed&kind=task", "?tail=1"],
)
async def test_a_page_takes_five_statements_at_most(app: App, visitor, conn, address):
    await fill(conn, app.ids["alice"], 60)
    with statements(app) as seen:
        assert (await visitor.get(f"/dashboard/runs{address}")).status_code == 200
    assert len(seen) <= 5


async def test_hostile_texts_are_only_texts(app: App, visitor, conn):
    await fill(conn, app.ids["alice"], 1, state="failed", reason=HOSTILE, task_id=HOSTILE)
    answer = await visitor.get("/dashboard/runs", params={"reason": HOSTILE})
    assert len(listed(answer.text)) == 1
    assert "<b>\u202e" not in answer.text and "</script><b>" not in answer.text
    assert "U+202E" in answer.text and "U+001B" in answer.text


# Files -------------------------------------------------------------------------------------------


async def test_a_table_holds_what_is_filtered_and_no_formula(app: App, visitor, conn):
    alice = app.ids["alice"]
    bad = await fill(conn, alice, 2, state="failed", reason=HOSTILE)
    await fill(conn, alice, 3)
    await fill(conn, app.ids["bob"], 3, state="failed", reason="his")
    answer = await visitor.get("/dashboard/runs/export.csv?state=failed")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert re.fullmatch(
        r'attachment; filename="runs-\d{8}T\d{6}Z\.csv"', answer.headers["Content-Disposition"]
    )
    assert answer.text.count("\r\n") == 3
    first, *rest = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert [first["id"], *(row["id"] for row in rest)] == bad
    assert first["reason"] == f"'{HOSTILE}" and first["duration_ms"] == "1500"
    assert (first["task_id"], first["state"], first["attempt"]) == ("one", "failed", "1")


async def test_a_file_has_the_rows_of_the_list_and_what_is_to_come_where_it_is_asked_for(
    alice, app: App, visitor, conn
):
    due = await fill(conn, app.ids["alice"], 3)
    at = (NOW + timedelta(days=2)).isoformat()
    coming = (await alice.post("/tasks", json={"name": "t", "url": "http://127.0.0.1:9/"})).json()
    made = await alice.post(f"/tasks/{coming['id']}/schedule", json={"scheduled_at": at})
    run = made.json()["run_id"]
    ahead = quote((NOW + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    for query, rows in {"": due, "?state=scheduled": [run], f"?to={ahead}": [run, *due]}.items():
        assert listed((await visitor.get(f"/dashboard/runs{query}")).text) == rows
        file = (await visitor.get(f"/dashboard/runs/export.ndjson{query}")).text
        assert [json.loads(line)["id"] for line in file.splitlines()] == rows
        table = csv.DictReader(
            io.StringIO((await visitor.get(f"/dashboard/runs/export.csv{query}")).text)
        )
        assert [row["id"] for row in table] == rows


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_begins_a_formula_is_text(start):
    assert runs_export.cell(f"{start}1") == f"'{start}1"


async def test_lines_of_json_are_runs_as_the_api_shows_them(app: App, alice, visitor, conn):
    ids = await fill(conn, app.ids["alice"], runs_export.COUNT + 20)
    answer = await visitor.get("/dashboard/runs/export.ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["id"] for line in lines] == ids
    assert lines[0] == (await alice.get("/runs?limit=1")).json()["runs"][0] | {"trigger": None}


async def test_a_file_that_is_cut_says_so_in_its_last_line(app: App, visitor, conn, monkeypatch):
    await fill(conn, app.ids["alice"], 30)
    monkeypatch.setattr(runs_export, "MOST", 20)
    monkeypatch.setattr(runs_export, "COUNT", 8)
    table = (await visitor.get("/dashboard/runs/export.csv")).text.splitlines()
    assert len(table) == 22 and "cut at 20 runs" in table[-1]
    lines = (await visitor.get("/dashboard/runs/export.ndjson")).text.splitlines()
    assert len(lines) == 21 and "cut at 20 runs" in json.loads(lines[-1])["cut"]


async def test_what_is_wrong_with_a_filter_is_no_file(visitor):
    answer = await visitor.get("/dashboard/runs/export.csv?state=faild")
    assert answer.status_code == 400 and "text/html" in answer.headers["Content-Type"]
