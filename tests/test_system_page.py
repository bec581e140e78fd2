"""The page about the installation: what a service may see of it, and what an admin sees."""

import socket

import msgspec

from conftest import App, RunApp, eventually
from pages import safe, signed_in, statements
from scheduler import __version__, catalog, home, replicas
from scheduler.dashboard.system import health
from test_admin_pages import ADMIN, as_admin

HOME = "/dashboard/system"
ALL = "/dashboard/admin/system"
SLOW = {"name": "s", "frequency": 1, "unit": "second", "max_retries": 0}


async def test_a_service_sees_that_all_is_well_and_nothing_of_the_machine(run_app: RunApp):
    async with run_app(ADMIN_TOKEN=ADMIN) as app, signed_in(app) as alice:
        page = await alice.get(HOME)
        safe(page)
        assert page.status_code == 200 and "All is well" in page.text
        assert __version__ in page.text and "beats" in page.text and "Postgres" in page.text
        folder = str(home.data_dir(app.settings))
        hidden = (socket.gethostname(), folder, "Workers here", "Data directory", "history_")
        for word in hidden:
            assert word not in page.text, word
        async with as_admin(app) as admin:
            page = (await admin.get(ALL)).text
            for word in hidden[:4]:
                assert word in page, word
            assert "Weeks of history" in page and "task_words" not in page
            assert (await admin.get(HOME)).status_code == 303
        assert (await alice.get(ALL)).headers["Location"] == "/dashboard/admin/sign-in"


async def test_a_queue_is_the_services_own_and_the_admin_sees_all(run_app: RunApp, conn):
    async with (
        run_app(ADMIN_TOKEN=ADMIN) as app,
        signed_in(app) as alice,
        signed_in(app, "bob") as bob,
        as_admin(app) as admin,
    ):
        app.engine.dispatcher.halt("test", "the test looks")
        async with app.client("alice") as api:
            await api.post("/tasks", json={**SLOW, "id": "t", "url": "http://127.0.0.1:9/"})
            await api.post("/tasks/t/schedule", json={"at": "2020-01-01T00:00:00Z"})

        async def due() -> None:
            page = (await alice.get(HOME)).text
            assert "nothing waits" not in page and "This replica starts nothing" in page
            assert "the test looks" not in page, "that may name a path"
            assert "nothing waits" in (await bob.get(HOME)).text
            page = (await admin.get(ALL)).text
            assert "nothing waits" not in page and "the test looks" in page

        await eventually(due)


async def test_replicas_that_are_silent_or_of_another_version_are_told(app: App, conn):
    await conn.execute(
        """INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at) VALUES
           (gen_random_uuid(), 0, now() - interval '15 s', 'worker', 'h', 1, '0.4.0', now()),
           (gen_random_uuid(), 0, now() + interval '1 h', 'worker', 'h', 2, '0.4.0', now())"""
    )
    async with signed_in(app) as alice:
        page = (await alice.get(HOME)).text
    assert "1 of 3 replicas have not beaten" in page and "silent" in page
    assert f"different versions: 0.4.0, {__version__}" in page
    dead = replicas.Seen("serve", "h", 1, __version__, 60.0)
    assert next(health._replicas([dead])).state == "fail"


async def test_what_is_wrong_with_the_database_is_told(app: App, conn):
    await conn.execute("UPDATE alembic_version SET version_num = '9999'")
    async with signed_in(app) as alice:
        assert "The schema is at 9999" in (await alice.get(HOME)).text
    async with app.database.api.connect() as connection:
        about = await catalog.read(connection)
    now = app.engine.clock.now_ms()
    assert len(about.weeks) >= 2 and {"task", "run"} <= {each.name for each in about.tables}
    for weeks, state in ((about.weeks[:2], "warn"), ([], "fail")):
        lacking = msgspec.structs.replace(
            about, weeks=weeks, settings=dict.fromkeys(about.settings, "off")
        )
        notes = list(health._database(app.engine, lacking, now))
        assert next(each for each in notes if "no table" in each.said).state == state
        assert len([each for each in notes if " off." in each.said]) == len(catalog.SETTINGS)
        assert all(each.inside for each in notes if "no table" in each.said)


async def test_a_pause_is_told_with_its_reason(app: App, conn):
    await conn.execute("UPDATE installation SET paused_at = now(), paused_reason = '<i>shop</i>'")
    async with signed_in(app) as alice:

        async def told() -> None:
            assert "Paused: &lt;i&gt;shop&lt;/i&gt;" in (await alice.get(HOME)).text

        await eventually(told)


LINE = """
INSERT INTO log_entry (at, level, service, service_id, trace_id, message, fields)
SELECT now(), $1, 'scheduler.api', (SELECT id FROM service WHERE name = $2), 'abc', $3, $4::jsonb
"""


async def test_stored_log_lines_are_the_services_own_and_are_searched(run_app: RunApp, conn):
    async with (
        run_app(ADMIN_TOKEN=ADMIN, LOG_STORE="true") as app,
        signed_in(app) as alice,
        as_admin(app) as admin,
    ):
        rows = (
            ("error", "alice", "a <script>alert(1)</script> line", '{"url": "/x?\\u202e"}'),
            ("info", "alice", "100% of it", "{}"),
            ("info", "bob", "of somebody else", "{}"),
            ("info", None, "of the machine", "{}"),
        )
        for row in rows:
            await conn.execute(LINE, *row)
        page = (await alice.get(HOME)).text
        assert "a &lt;script&gt;" in page and "U+202E" in page and "100% of it" in page
        assert "somebody else" not in page and "of the machine" not in page
        page = (await alice.get(HOME, params={"level": "error"})).text
        assert "a &lt;script&gt;" in page and "100% of it" not in page
        page = (await alice.get(HOME, params={"words": "0% OF"})).text
        assert "a &lt;script&gt;" not in page and "100% of it" in page
        assert "No such line" in (await alice.get(HOME, params={"words": "_\x00nothing"})).text
        assert (await alice.get(HOME, params={"level": "loud"})).status_code == 400
        page = (await admin.get(ALL)).text
        assert "somebody else" in page and "of the machine" in page


async def test_where_no_log_is_stored_none_is_shown(app: App):
    async with signed_in(app) as alice:
        assert 'name="words"' not in (await alice.get(HOME)).text


async def test_the_pages_run_five_statements_at_most(run_app: RunApp):
    async with (
        run_app(ADMIN_TOKEN=ADMIN, LOG_STORE="true") as app,
        signed_in(app) as alice,
        as_admin(app) as admin,
    ):
        for who, path in ((alice, HOME), (admin, ALL)):
            with statements(app) as seen:
                assert (await who.get(path)).status_code == 200
            assert len(seen) <= 5, seen
