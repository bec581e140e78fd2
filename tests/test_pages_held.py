"""Pages that read very much give way to what fires meanwhile."""

import pytest

from conftest import App, RunApp, eventually
from scheduler.dashboard import page
from test_bulk import HELD_MS, unheld
from test_runs_page import fill

pytestmark = pytest.mark.alone

TASKS = """
INSERT INTO task (key, bucket, service_id, id, version, name, tags, status, trigger, action, policy,
                  created_at, updated_at)
SELECT gen_random_uuid(), 0, $1, 't' || n, 1, 'task ' || n, '[]', 'active', NULL,
       '{"kind": "http", "url": "http://example.com"}', '{}', now() - n * interval '1 ms', now()
FROM generate_series(1, 10000) AS n
"""


async def test_choosing_ten_thousand_tasks_holds_the_loop_for_moments_only(app: App, visitor, conn):
    await conn.execute(TASKS, app.ids["alice"])
    answer = await unheld(lambda: visitor.get("/dashboard/bulk/pause?all=1"), most_ms=12)
    assert "10,000 tasks" in answer.text


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
async def test_a_file_of_many_runs_holds_the_loop_for_moments_only(app: App, visitor, conn, kind):
    await fill(conn, app.ids["alice"], 2000)
    path = f"/dashboard/runs/export.{kind}"
    answer = await unheld(lambda: visitor.get(path), HELD_MS)
    assert answer.text.count("\n") >= 2000


ALL_APART = """
UPDATE task SET trigger = jsonb_build_object('kind', 'interval', 'frequency', 1, 'unit', 'day',
    'anchor', 1700000000000 + CAST(substr(id, 2) AS int) * 1000)
"""


async def test_a_timeline_of_instants_that_never_meet_holds_the_loop_for_moments_only(
    app: App, visitor, conn
):
    await conn.execute(TASKS, app.ids["alice"])
    await conn.execute(ALL_APART)
    await visitor.get("/dashboard/timeline")  # its template is read once
    answer = await unheld(lambda: visitor.get("/dashboard/timeline"), most_ms=10)
    assert answer.status_code == 200


async def test_the_templates_are_read_before_somebody_asks_for_a_page(run_app: RunApp):
    page.TEMPLATES.cache.clear()  # type: ignore[union-attr]
    async with run_app():

        def read() -> None:
            assert len(page.TEMPLATES.cache) == len(page.TEMPLATES.list_templates())  # type: ignore[arg-type]

        await eventually(read)
