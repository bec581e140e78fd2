"""`scheduler processes call`: the call that standard input describes, as an older program did it.

That program was generated for one API, and was told `{"spec": {"headers", "url"},
"scheduler_process": {...}}`: no service is named. Here it is the spec that has the endpoint at this
address; where there is none, one is registered that says nothing but that the endpoint is there.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import click
import msgspec

from scheduler.cli import client
from scheduler.cli.client import Api
from scheduler.cli.failures import Refused, Usage
from scheduler.cli.options import Sectioned, talks
from scheduler.cli.process_show import PATH, print_answer
from scheduler.cli.spec_which import PATH as SPECS_PATH
from scheduler.cli.spec_which import Page, pages
from scheduler.cli.task_fields import Fields, read_file
from scheduler.cli.task_show import Json, text

PAGE = 20
"""Specs with their endpoints may be large."""
BODIES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/octet-stream",
)
ANSWERED = ("trace_id", "timestamp", "status", "service")
"""What a GET of a process answers besides what is called; `service` is put in here."""
SHAPE = (
    'standard input is {"spec": {"headers", "url"}, "scheduler_process": {"method", "endpoint"}}'
)


@click.command(cls=Sectioned)
@talks
def call(api: Api) -> None:
    """Make the call that standard input describes, and print the target's answer.

    \b
      echo '{"spec": {"headers": {"x-api-key": "abc"}, "url": "https://example.com"},
             "scheduler_process": {"method": "GET", "endpoint": "/pets",
                                   "query_params": {"limit": 10}}}' | scheduler processes call

    scheduler_process holds what a process is created with. Its service, or else the spec's name,
    says which spec is called; without them it is the newest one that has this endpoint at this
    url, and without such a one the call is made unchecked, through a spec called cli-... that is
    registered for it and kept. Headers of the spec are sent, and those of the process win.
    Nothing is taken from the cache, or tried again unless max_retries is there.

    Exits 1 where the call ends in ERROR.
    """
    spec, process = _read(read_file("-"))
    method, path = text(process, "method").upper(), text(process, "endpoint")
    service = text(process, "service") or text(spec, "name")
    address = spec.get("url")
    if not service:
        if not isinstance(address, str) or not address:
            raise Usage("which API? give spec.url, or the name of a spec as spec.name")
        url = _normal(address)
        service = _registered(api, url, f"{method} {path}") or _made(api, url, method, path)
    body: Fields = {"url": address, "cache": False, "max_retries": 0}
    body |= {name: value for name, value in process.items() if name not in ANSWERED}
    body["service"] = service
    body["headers"] = merged(spec.get("headers") or {}, process.get("headers") or {})
    key = secrets.token_hex(16)
    answer = api.ask("POST", PATH, body=client.encoded(body), key=key)
    print_answer(api, text(api.read(answer, Json), "trace_id"))


class _Sent(msgspec.Struct, forbid_unknown_fields=True):
    scheduler_process: Json
    spec: Json | None = None


def _read(sent: bytes) -> tuple[Json, Json]:
    """Return the spec and the process of what was sent. Raises Usage."""
    try:
        found = msgspec.json.decode(sent, type=_Sent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Usage(f"{SHAPE}; this is not: {e}") from None
    spec, process = found.spec or {}, found.scheduler_process
    for name in ("method", "endpoint"):
        if not isinstance(process.get(name), str) or not process[name]:
            raise Usage(f"scheduler_process.{name} is needed, and is a text")
    for part, where in ((spec, "spec"), (process, "scheduler_process")):
        if not isinstance(part.get("headers") or {}, dict):
            raise Usage(f"{where}.headers is an object of texts")
    return spec, process


def merged(spec: Json, process: Json) -> Json:
    """Return both headers; those of the process win, whatever the case of their names."""
    mine = {name.lower() for name in process}
    return {name: value for name, value in spec.items() if name.lower() not in mine} | process


def _normal(url: str) -> str:
    """Return an address as addresses are compared. Raises Usage."""
    try:
        split = urlsplit(url)
        if split.scheme.lower() in {"http", "https"} and split.hostname:
            netloc = split.netloc.lower()
            return split._replace(scheme=split.scheme.lower(), netloc=netloc).geturl().rstrip("/")
    except ValueError:
        pass
    raise Usage("spec.url is an address like https://example.com")


def _registered(api: Api, url: str, endpoint: str) -> str | None:
    """Return the name of the newest spec that has an endpoint at an address."""
    for page in pages(api, with_client=True, size=PAGE):
        for raw in page.results:
            spec = msgspec.json.decode(raw, type=Json)
            compiled = spec.get("client") or {}
            if url in _addresses(compiled) and endpoint in (compiled.get("endpoints") or {}):
                return text(spec, "name")
    return None


def _addresses(compiled: Json) -> Iterator[str]:
    for each in [compiled.get("url"), *(compiled.get("servers") or [])]:
        if isinstance(each, str):
            try:
                yield _normal(each)
            except Usage:
                continue


# A spec for what nobody has described -------------------------------------------------------------


def _made(api: Api, url: str, method: str, path: str) -> str:
    """Register a spec that has one endpoint at an address, and says nothing of it; its name."""
    mark = hashlib.sha256(f"{method} {url} {path}".encode()).hexdigest()[:12]
    name = f"cli-{urlsplit(url).hostname}"[:80] + f"-{mark}"
    body = {"name": name, "headers": {}, "spec": _document(url, method, path)}
    try:
        api.ask("POST", SPECS_PATH, body=client.encoded(body))
    except Refused as e:
        # Somebody else has just made it; a call waits until it is ready.
        if e.status != 409 or not any(_is_there(page, name) for page in pages(api)):
            raise
    return name


def _is_there(page: Page, name: str) -> bool:
    return any(msgspec.json.decode(raw, type=Json).get("name") == name for raw in page.results)


def _document(url: str, method: str, path: str) -> str:
    """Return a document with one endpoint in base64, as the API takes it."""
    operation: Json = {"responses": {"default": {"description": "Any."}}}
    if method not in {"GET", "HEAD"}:
        operation["requestBody"] = {"content": {kind: {"schema": {}} for kind in BODIES}}
    names = re.findall(r"\{([^{}]+)\}", path)
    if names:
        operation["parameters"] = [
            {"name": each, "in": "path", "required": True, "schema": {}} for each in names
        ]
    document = {
        "openapi": "3.0.3",
        "info": {"title": "Made by `scheduler processes call`", "version": "1"},
        "servers": [{"url": url}],
        "paths": {path: {method.lower(): operation}},
    }
    return base64.b64encode(msgspec.json.encode(document)).decode()
