"""Secrets planted wherever somebody can put one come out nowhere but where their owner looks.

Two replicas say all they can, one as text and one as JSON, and both into the database.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import Background, Sql, Wire, until
from planted_pages import visit
from receiver import Answer, Receiver, receiving
from test_commands import place

__all__ = ["place"]


def plant(place: str) -> str:
    """A secret that says where it was planted."""
    return f"pLaNtEd{place}Q7"


PLANTED = re.compile(r"planted[a-z0-9]*q7", re.IGNORECASE)
TOKEN, ADMIN, METRICS = plant("Token"), plant("Admin"), plant("Metrics")
SECRET_HEADERS = {
    "Authorization": f"Bearer {plant('TaskBearer')}",
    "Cookie": f"session={plant('TaskCookie')}",
    "X-Api-Key": plant("TaskKey"),
    "X-Hush": plant("TaskHush"),
}
SECRET_ENV = {
    "API_TOKEN": plant("EnvToken"),
    "DB_PASSWORD": plant("EnvPassword"),
    "LD_PRELOAD": "nothing",
}
NEVER_SHOWN = [
    *(plant(f"Task{name}") for name in ("Bearer", "Cookie", "Key", "Hush")),
    *(plant(f"Env{name}") for name in ("Token", "Password")),
]
"""Not even to their owner, once they are stored."""


class Target:
    """A target in a loop of its own, whose answers hold secrets."""

    def __init__(self, status: int) -> None:
        self._background = Background()
        self._manager = receiving()
        self.receiver: Receiver = self._background.do(self._manager.__aenter__())
        self.url = self.receiver.url
        headers = {
            "Set-Cookie": f"session={plant('SetCookie')}",
            "Location": f"http://user:{plant('Location')}@127.0.0.1:1/?token={plant('Moved')}",
            "X-Api-Key": plant("AnswerHeader"),
        }
        body = json.dumps({"token": plant("Answer")}).encode()
        self.receiver.otherwise = Answer(status, body, headers)

    def close(self) -> None:
        self._background.do(self._manager.__aexit__(None, None, None))
        self._background.close()


class Program:
    """`scheduler serve`, what it answered, and what it said."""

    def __init__(self, home: Path, url: str, form: str, commands: Path) -> None:
        self.form, self.out, self.err = form, home / f"{form}.out", home / f"{form}.err"
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
        environment |= {
            "SERVER_PORT": "0",
            "DATABASE_URL": url,
            "DATABASE_MIGRATE": "false",
            "LOG_FORMAT": form,
            "LOG_LEVEL": "debug",
            "LOG_STORE": "true",
            "AUTH_BOOTSTRAP_TOKEN": TOKEN,
            "ADMIN_TOKEN": ADMIN,
            "METRICS_TOKEN": METRICS,
            "SERVER_MAX_BODY_BYTES": "20000",
            "WORKER_MAX_RETRIES": "0",
            "EGRESS_DENY": "192.0.2.0/24",
            "COMMANDS_ENABLED": "true",
            "COMMANDS_SAME_USER": "true",
            "COMMANDS_DIRECTORY": str(commands),
        }
        self.credentials = home / "credentials.json"
        command = [sys.executable, "-m", "scheduler", "serve"]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--credentials-file", self.credentials],
                env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=home,
            )  # fmt: skip
        self.answers: list[str] = []
        """All that was answered to whoever may not see secrets."""

    def ready(self) -> None:
        until(lambda: "Scheduler is at" in self.out.read_text(), 20, "it serves")
        found = re.search(r"Scheduler is at (http://[\d.:]+\d)", self.out.read_text())
        assert found is not None
        self.address = urlsplit(found[1])
        self.service_id = json.loads(self.credentials.read_text())["service_id"]
        until(lambda: self.ask("GET", "/ready")[0] == 200, 20, "it is ready")

    @property
    def pair(self) -> str:
        """Wrong credentials as Basic sends them."""
        return base64.b64encode(f"{self.service_id}:{plant('Basic')}".encode()).decode()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Ask as somebody; what is answered may hold nothing."""
        status, said, content = self._ask(method, path, body, headers)
        self.answers.append(f"{method} {path.split('?', maxsplit=1)[0]} {status}\n{said}{content}")
        return status, content

    def mine(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Ask as the owner; an answer that is no error may hold what is the owner's."""
        own = {"service_id": self.service_id, "token": TOKEN}
        status, said, content = self._ask(method, path, body, {**own, **headers})
        shown = [secret for secret in NEVER_SHOWN if secret in content]
        assert not shown, (method, path, content)
        if status >= 400:
            self.answers.append(
                f"{method} {path.split('?', maxsplit=1)[0]} {status}\n{said}{content}"
            )
        return status, content

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, _, content = self._ask(method, path, body, {"Authorization": f"Bearer {ADMIN}"})
        return status, content

    def _ask(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, str, str]:
        sent = dict(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        client = http.client.HTTPConnection(str(self.address.hostname), self.address.port, 20)
        with contextlib.closing(client):
            client.request(method, path, body, sent)
            answer = client.getresponse()
            return answer.status, str(answer.headers), answer.read().decode()

    def raw(self, request: bytes) -> None:
        """Send what no client would."""
        with socket.create_connection((self.address.hostname, self.address.port), 10) as sock:
            sock.sendall(request)
            self.answers.append(sock.recv(65536).decode())

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)


# What is provoked ---------------------------------------------------------------------------------


def tasks(form: str, broken: str, moved: str) -> dict[str, dict[str, Any]]:
    """Tasks that hold secrets, by what becomes of them."""
    query = f"token={plant('Query')}&note={plant('Note')}&pass%77ord={plant('Encoded')}"
    base = {
        "header": SECRET_HEADERS,
        "secret_headers": ["X-Hush"],
        "payload": {"password": plant("Payload"), "deep": [{"inside": plant("Deep")}]},
        "method": "POST",
    }
    urls = {
        "answers500": f"{broken}/?{query}",
        "redirects": f"{moved}/?{query}",
        "refused": f"http://127.0.0.1:1/?{query}",
        "egress": f"http://192.0.2.1/?{query}",
        "nohost": f"http://no-such-host.invalid/?{query}",
    }
    return {
        name: {**base, "id": f"{name}-{form}", "name": name, "url": url, "follow_redirects": True}
        for name, url in urls.items()
    }


def provoke(program: Program, wanted: dict[str, dict[str, Any]], broken: str) -> None:
    """Succeed, and fail in every way there is."""
    for task in wanted.values():
        assert program.mine("POST", "/tasks", task)[0] == 201
        assert program.mine("POST", "/tasks", task)[0] == 409
        assert program.mine("PATCH", f"/tasks/{task['id']}", {"header": SECRET_HEADERS})[0] == 200
    with ThreadPoolExecutor(5) as pool:
        ran = list(pool.map(lambda task: run(program, task), wanted.values()))
    assert ran == [200] * len(wanted)
    pair = program.pair
    for headers in (
        {"service_id": program.service_id, "token": plant("Wrong")},
        {"token": plant("Half")},
        {"Authorization": f"Basic {pair}"},
        {"Authorization": f"Basic {plant('NotBase64')}"},
        {"Authorization": f"Bearer {plant('Bearer')}"},
        {"Authorization": f"Strange {plant('Scheme')}", "Cookie": f"a={plant('Cookie')}"},
    ):
        assert program.ask("GET", f"/tasks?token={plant('Asked')}", **headers)[0] == 401
        status, _ = program.ask("POST", "/services", {"name": "x", "token": plant("B")}, **headers)
        assert status == 401
        assert program.ask("GET", "/metrics", **headers)[0] == 401
    for body in bodies():
        assert program.mine("POST", "/tasks", body)[0] == 400, body
    assert program.mine("POST", "/tasks", f"token={plant('Form')}&x=1".encode())[0] == 400
    large = json.dumps({"token": plant("Large"), "payload": "x" * 30_000}).encode()
    assert program.mine("POST", "/tasks", large)[0] == 413
    assert program.mine("GET", f"/tasks/none?api_key={plant('Gone')}")[0] == 404
    assert program.mine("PUT", "/nowhere", {"secret": plant("Nowhere")})[0] == 404
    assert program.mine("GET", "/tasks?count=-1", Cookie=plant("Jar"))[0] == 400
    provoke_commands(program)
    provoke_schedules(program, broken)
    failing = {**wanted["egress"], "id": "boom", "name": "boom"}
    assert program.mine("POST", "/tasks", failing)[0] == 500
    assert program.mine("POST", "/tasks/bulk", [failing])[0] == 500
    program.raw(
        f"GET / HTTP/1.1\r\ntoken: {plant('Raw')}\r\nbad\x00: {plant('Nul')}\r\n\r\n".encode()
    )
    program.raw(f"GET / HTTP/1.1\nAuthorization {plant('NoColon')}\n\n".encode())


def provoke_commands(program: Program) -> None:
    """Have commands with secrets end in every way there is, and be refused."""
    lines = {
        "works": 'test -n "$API_TOKEN"',
        "fails": 'test -z "$API_TOKEN"',
        "killed": "kill -9 $$",
        "late": "sleep 20",
        "floods": "cat /dev/zero",
    }
    base = {"env": SECRET_ENV, "timeout_seconds": 1}
    for name, line in lines.items():
        task = {**base, "id": f"{name}-{program.form}", "name": name, "command": line}
        assert program.mine("POST", "/tasks", task)[0] == 201
        assert program.mine("POST", "/tasks", task)[0] == 409
        assert program.mine("PATCH", f"/tasks/{task['id']}", {"env": SECRET_ENV})[0] == 200
        assert run(program, task) == 200
        for part in ("", "/executions", "/versions"):
            program.mine("GET", f"/tasks/{task['id']}{part}")
    for env in (
        {"API_TOKEN": [plant("EnvList")]},
        {"API_TOKEN": {"deep": plant("EnvDeep")}},
        {"API TOKEN": plant("EnvName")},
        {"API_TOKEN": plant("EnvNul") + "\0"},
        {"API_TOKEN": "\1" + plant("EnvMark")},
        [{"API_TOKEN": plant("EnvArray")}],
        plant("EnvText"),
    ):
        body = {"name": "x", "command": "true", "env": env}
        for path in ("/tasks", "/tasks/preview", "/tasks/bulk"):
            sent = [body] if path == "/tasks/bulk" else body
            assert program.mine("POST", path, sent)[0] == 400, (path, env)


def provoke_schedules(program: Program, broken: str) -> None:
    """Have a schedule with secrets fail, and be refused; and calendars."""
    good = {
        "name": "s", "rrule": "FREQ=YEARLY", "method": "POST",
        "callback_url": f"{broken}/?token={plant('ScheduleQuery')}",
        "headers": SECRET_HEADERS, "body": {"password": plant("ScheduleBody")},
    }  # fmt: skip
    # X-Hush is a secret once the task says so: until then the other program's list would show it.
    known = {name: value for name, value in SECRET_HEADERS.items() if name != "X-Hush"}
    status, made = program.mine("POST", "/api/schedules", {**good, "headers": known})
    assert status == 201
    schedule = json.loads(made)["id"]
    assert program.mine("PATCH", f"/tasks/{schedule}", {"secret_headers": ["X-Hush"]})[0] == 200
    path = f"/api/schedules/{schedule}"
    assert program.mine("PUT", path, {"headers": SECRET_HEADERS})[0] == 200
    assert run(program, {"id": schedule}) == 200
    asked = ["", "/events/pending", "/events/history"]
    for each in (*(f"{path}{part}" for part in asked), "/api/schedules", f"/tasks/{schedule}"):
        assert program.mine("GET", each)[0] == 200
    for wrong in (
        {"headers": {"Authorization": [plant("ScheduleList")]}},
        {"headers": {"X": f"a\r\nToken: {plant('ScheduleCrLf')}"}},
        {"callback_url": f"ftp://user:{plant('ScheduleFtp')}@h/?token={plant('ScheduleKey')}"},
        {"rrule": "FREQ=NEVER", "headers": {"Token": plant("ScheduleRule")}},
        {"password": plant("ScheduleUnknown")},
    ):
        assert program.mine("POST", "/api/schedules", {**good, **wrong})[0] == 400, wrong
        assert program.mine("PUT", path, wrong)[0] == 400, wrong
    calendar = {"name": f"c-{program.form}", "password": plant("CalendarUnknown")}
    assert program.mine("POST", "/calendars", calendar)[0] == 400
    moment = f"/tasks/{schedule}/explain?at=2027-01-01T00:00:00Z&token={plant('Explain')}"
    assert program.mine("GET", moment)[0] == 200
    body = {"from": "x", "to": "y", "token": plant("Backfill")}
    assert program.mine("POST", f"/tasks/{schedule}/backfill", body)[0] == 400


def run(program: Program, task: dict[str, Any]) -> int:
    return program.mine("POST", f"/tasks/{task['id']}/execute", {})[0]


def bodies() -> Iterator[Any]:
    """Bodies that are refused, with secrets in them."""
    yield f'{{"name": "x", "token": "{plant("Malformed")}'.encode()
    yield f'{{"header": {{"Authorization": "Bearer {plant("Open")}"}}, "name": }}'.encode()
    yield f'{{"header": {{"X-Own": "{plant("Own")}"}}, "secret_headers": ["X-Own"], x}}'.encode()
    yield f"{{'password': '{plant('Quotes')}'}}".encode()
    yield f"password={plant('Pair')}&x=y".encode()
    yield b'\xff{"token": "%s"}' % plant("Latin").encode()
    yield {"name": "x", "url": "http://h/", "password": plant("Unknown")}
    yield {"name": "x", "url": "http://h/", "header": {"X": f"a\r\nToken: {plant('CrLf')}"}}
    yield {"name": "x", "url": "http://h/", "header": {"Authorization": [plant("List")]}}
    yield {"name": "x", "url": f"http://user:{plant('Userinfo')}@h:port/"}
    yield {"name": "x", "url": f"ftp://user:{plant('Scheme')}@h/?token={plant('Ftp')}"}
    yield {"name": "x", "url": "http://h/", "headers": [{"key": "Token", "value": [plant("V")]}]}


def look_around(program: Program, wanted: dict[str, dict[str, Any]]) -> list[str]:
    """See all that another service, the operator and passers-by see; return new secrets."""
    status, made = program.admin("POST", "/services", {"name": f"other-{program.form}"})
    assert status == 201
    other = json.loads(made)
    own = {"service_id": other["service_id"], "token": other["token"]}
    program.answers.append(program.admin("GET", "/services")[1])
    for path in ("/tasks", "/runs", "/tasks/scheduled", "/runs/verify"):
        assert program.ask("GET", path, **own)[0] == 200
    for task in wanted.values():
        for path in ("", "/executions", "/preview"):
            assert program.ask("GET", f"/tasks/{task['id']}{path}", **own)[0] == 404
        assert program.mine("GET", f"/tasks/{task['id']}")[0] == 200
        assert program.mine("GET", f"/tasks/{task['id']}/executions")[0] == 200
    runs = json.loads(program.mine("GET", "/runs")[1])["runs"]
    for each in runs:
        assert program.ask("GET", f"/runs/{each['id']}", **own)[0] == 404
        assert program.mine("GET", f"/runs/{each['id']}")[0] == 200
    for path in ("/", "/dashboard", "/docs", "/docs/openapi.json", "/health", "/ready"):
        assert program.ask("GET", path)[0] == 200
    visit(program, plant, TOKEN, [task["id"] for task in wanted.values()])
    bearer = {"Authorization": f"Bearer {METRICS}"}
    assert program.ask("GET", "/metrics", **bearer)[0] == 200
    return [other["token"], other["signing_secret"]]


# The test -----------------------------------------------------------------------------------------


def test_planted_secrets_come_out_nowhere(database_url: str, tmp_path: Path, place: Path) -> None:
    sql, broken, moved = Sql(database_url), Target(500), Target(302)
    wire = Wire(tmp_path / "w", database_url.replace("@/", f":{plant('Database')}@/"))
    programs: list[Program] = []
    try:
        for form in ("text", "json"):
            programs.append(Program(tmp_path, wire.url, form, place / "runs"))
            programs[-1].ready()
        sql.all("ALTER TABLE task ADD CONSTRAINT nope CHECK (name <> 'boom')")
        wanted = {p.form: tasks(p.form, broken.url, moved.url) for p in programs}
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda p: provoke(p, wanted[p.form], broken.url), programs))
            new = list(pool.map(lambda p: look_around(p, wanted[p.form]), programs))
        database_goes_away(wire, programs)
        for program in programs:
            program.stop()
        stored = sql.all("SELECT *, fields::text AS rest FROM log_entry ORDER BY id")
        told = str([tuple(row) for row in sql.all("SELECT * FROM audit")])
        assert "X-Hush" in told and not [secret for secret in NEVER_SHOWN if secret in told]
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()
        for thing in (wire, broken, moved, sql):
            thing.close()
    more = [program.pair for program in programs]
    nothing_came_out(programs, stored, [*more, *(secret for each in new for secret in each)])


def database_goes_away(wire: Wire, programs: list[Program]) -> None:
    wire.cut()
    for program in programs:
        body = {"name": "x", "header": SECRET_HEADERS, "url": f"http://h/?key={plant('AwayUrl')}"}
        assert program.mine("POST", "/tasks", body)[0] == 503
        assert program.ask("GET", "/ready?token=" + plant("Ready"))[0] == 503
    wire.mend()
    for program in programs:
        until(lambda p=program: p.mine("GET", "/tasks")[0] == 200, 20, "the database is back")


def nothing_came_out(programs: list[Program], stored: list[Any], new: list[str]) -> None:
    rows = [str(tuple(row)) for row in stored]
    places = {"stored": rows}
    for program in programs:
        said = (
            program.out.read_text()
            .replace(f"token       {TOKEN}", "")
            .replace(f"token: {TOKEN}", "")
        )
        places |= {
            f"{program.form}: standard output": said.splitlines(),
            f"{program.form}: standard error": program.err.read_text().splitlines(),
            f"{program.form}: answers": program.answers,
        }
    found = [
        f"{place}: {PLANTED.findall(line)} in {line[:2000]}"
        for place, lines in places.items()
        for line in lines
        if PLANTED.search(line) or any(secret in line for secret in new)
    ]
    assert not found, "\n".join(found[:20])
    statuses = {json.loads(row["rest"]).get("status") for row in stored}
    assert statuses >= {200, 201, 400, 401, 404, 409, 413, 500, 503}
    for word in ("run failed", "nope", "req_headers", "req_body", "resp_headers", "Traceback"):
        assert any(word in row for row in rows), word
        assert word in programs[0].err.read_text(), word
    assert len(stored) > 200
