"""Secrets planted in the forms of pages: sent, refused, and looked at by who may."""

import re
from typing import Any
from urllib.parse import urlencode

SIGN_IN, ADMIN = "/dashboard/sign-in", "/dashboard/admin/sign-in"
FORM = re.compile(r'name="form" (?:content|value)="([^"]+)"|<meta name="form" content="([^"]+)"')
TASKS = ("", "/edit", "/copy", "/history", "/explain", "/backfill")
PAGES = ("", "/tasks", "/runs", "/apis", "/calendars", "/settings", "/system", "/timeline")


class Visit:
    """A browser in which the owner is signed in."""

    def __init__(self, program: Any, plant: Any, token: str) -> None:
        self.program, self.plant = program, plant
        self.cookie, self.form = self._knock(SIGN_IN)
        sent = {"service": program.service_id, "token": token, "next": "/dashboard"}
        status, said = self._enter(SIGN_IN, sent)
        assert status == 303, said
        self.cookie = cookie(said)
        self.form = form(self.get("/dashboard"))

    def _knock(self, path: str) -> tuple[str, str]:
        status, said, content = self.program._ask("GET", path, None, {})
        assert status == 200
        return cookie(said), form(content)

    def _enter(self, path: str, sent: dict[str, str]) -> tuple[int, str]:
        body = urlencode({"form": self.form, **sent}).encode()
        status, said, _ = self.program._ask("POST", path, body, self.headers)
        return status, said

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}

    def get(self, path: str) -> str:
        """Look at a page."""
        status, content = self.program.mine("GET", path, **self.headers)
        assert status in (200, 404), path
        return str(content)

    def send(self, path: str, status: int, **fields: str) -> str:
        """Send a form, whose values are secrets by their names, and see what comes of it."""
        body = urlencode({"form": self.form, **fields}).encode()
        headers = {"service_id": self.program.service_id, **self.headers}
        got, _, content = self.program._ask("POST", path, body, headers)
        assert got == status, (path, got, content)
        return str(content)

    def guess(self) -> None:
        """Sign in with what is wrong, as a service and as an admin."""
        for path in (SIGN_IN, ADMIN):
            self.cookie, self.form = self._knock(path)
            sent = {"service": "x", "token": self.plant("Guess")}
            assert self._enter(path, sent)[0] == 401

    def refused(self) -> None:
        """Send forms that are refused, or come from elsewhere."""
        plant = self.plant
        call = {
            "trigger": "manual", "action": "http", "name": "x", "header": "X-Hush a",
            "url": f"ftp://u:{plant('FormUrl')}@h/?token={plant('FormQuery')}",
            "value": plant("FormHeader"), "payload": plant("FormBody"), "secret": "on",
            "curl": f"curl -u u:{plant('FormCurl')} http://h/",
            "env": "API_TOKEN", "val": plant("FormEnv"),
        }  # fmt: skip
        for path in ("/dashboard/new", "/dashboard/trial"):
            self.send(path, 400, **call)
        self.send("/dashboard/new", 403, **{**call, "form": "of another page"})
        line = {**call, "action": "command", "command": f"x {plant('FormCommand')}", "val": "a\0b"}
        self.send("/dashboard/new", 400, **line)
        spec = {"name": "", "header_name": "X-Account", "header_value": plant("FormSpec")}
        self.send("/dashboard/apis/new", 400, **spec)
        tried = {"header:X-Account": plant("TryHeader"), "body:note": plant("TryBody")}
        self.send("/dashboard/apis/none/try", 404, **tried, **spec)
        self.send("/dashboard/settings/revoke", 400, token_id=plant("FormToken"))
        self.send("/dashboard/tasks/none/run", 404, nonce="x", token=plant("FormGone"))


def visit(program: Any, plant: Any, token: str, wanted: Any) -> None:
    """Look at all pages of tasks that hold secrets, and at those of their runs."""
    of = Visit(program, plant, token)
    for page in PAGES:
        of.get(f"/dashboard{page}")
    for task in wanted:
        for page in TASKS:
            of.get(f"/dashboard/tasks/{task}{page}")
        text = of.get(f"/dashboard/new?from={task}")
        assert "was not copied" in text, task
    for run in re.findall(r"/dashboard/runs/([0-9a-f-]{36})", of.get("/dashboard/runs")):
        of.get(f"/dashboard/runs/{run}")
    of.refused()
    of.guess()


def cookie(headers: str) -> str:
    """The cookie that an answer sets."""
    found = re.search(r"(?im)^set-cookie: ([^;]+)", headers)
    assert found, headers
    return found[1]


def form(content: str) -> str:
    """What the forms of a page send along."""
    found = FORM.search(content)
    assert found, content
    return found[1] or found[2]
