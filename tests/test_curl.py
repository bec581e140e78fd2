"""Curl commands read into the form, and tasks written as text: neither loses anything silently."""

import base64
import json
import shlex
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.actions import Command, Http
from scheduler.cli.task_change import create
from scheduler.cli.task_fields import sent
from scheduler.dashboard.editor import copying, curl, shell
from scheduler.db import utc
from scheduler.definition import Backoff, Definition, Policy
from scheduler.triggers import Bounds, Cron

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"


def parsed(text: str) -> dict[str, Any]:
    """What a command says, without what is as usual."""
    found = msgspec.structs.asdict(curl.parse(text))
    found["headers"] = dict(found["headers"])
    usual = msgspec.structs.asdict(curl.Parsed()) | {"headers": {}}
    return {name: value for name, value in found.items() if value != usual[name]}


BASIC = "Basic " + base64.b64encode(b"ann:p:w").decode()
KEPT = {
    "curl https://a.test/x?b=1": {"url": "https://a.test/x?b=1"},
    "$ curl https://a.test/x?b=1&c=2": {"url": "https://a.test/x?b=1&c=2"},
    "curl -XPUT --url https://a.test -H 'X-A: b: c' -H X-B:d": {
        "url": "https://a.test", "method": "PUT", "headers": {"X-A": "b: c", "X-B": "d"}},
    "curl -d a=1 -d 'b=2 3' https://a.test": {
        "url": "https://a.test", "payload": "a=1&b=2 3", "headers": {"Content-Type": URLENCODED}},
    "curl https://a.test -H 'content-type: text/plain' --data-raw '@no file'": {
        "url": "https://a.test", "payload": "@no file", "headers": {"content-type": "text/plain"}},
    "curl https://a.test -H 'Content-Type:' --data-binary $'a\\nb\\u00e9\\x21\\'\\ud83d\\ude00'": {
        "url": "https://a.test", "payload": "a\nb\xe9!'\U0001f600"},
    "curl --data-urlencode 'q=a b&c' --data-urlencode '=x/y' https://a.test": {
        "url": "https://a.test", "payload": "q=a%20b%26c&x%2Fy",
        "headers": {"Content-Type": URLENCODED}},
    "curl -G -d a=1 --data-urlencode 'b=ä' 'https://a.test/x?z=0#top'": {
        "url": "https://a.test/x?z=0&a=1&b=%C3%A4#top"},
    "curl --json '{\"a\": 1}' https://a.test": {
        "url": "https://a.test", "payload": '{"a": 1}',
        "headers": {"Content-Type": JSON, "Accept": JSON}},
    "curl -u ann:p:w -b 'a=1; b=2' -b c=3 -A me -e https://b.test https://a.test": {
        "url": "https://a.test", "headers": {
            "Authorization": BASIC, "User-Agent": "me", "Referer": "https://b.test",
            "Cookie": "a=1; b=2; c=3"}},
    "curl -sSLf --compressed -m 2.5 --retry 4 https://a.test": {
        "url": "https://a.test", "follow_redirects": True, "timeout_seconds": 2.5,
        "max_retries": 4},
    "curl -I https://a.test": {"url": "https://a.test", "method": "HEAD"},
    "curl -H 'X-Empty;' -H 'Accept:' https://a.test": {
        "url": "https://a.test", "headers": {"X-Empty": ""}},
    "curl 'https://a.test' \\\n  -H 'A: 1' \\\r\n  -H \"B: \\\"2\\\"\"": {
        "url": "https://a.test", "headers": {"A": "1", "B": '"2"'}},
    'curl "https://a.test/" ^\r\n  -H "Accept: */*" ^\r\n  --data-raw "a=1"': {
        "url": "https://a.test/", "payload": "a=1",
        "headers": {"Accept": "*/*", "Content-Type": URLENCODED}},
    'curl ^"https://a.test/?x=1^&y=^%^20^" ^\r\n  -H ^"Content-Type: text/plain^" ^\r\n'
    '  --data-raw ^"^{^\\^"a^\\^":^\\^"b c^\\^"^}^"': {
        "url": "https://a.test/?x=1&y=%20", "payload": '{"a":"b c"}',
        "headers": {"Content-Type": "text/plain"}},
    "curl -X POST -d '' https://a.test": {
        "url": "https://a.test", "method": "POST", "headers": {"Content-Type": URLENCODED}},
}  # fmt: skip


@pytest.mark.parametrize("text", KEPT)
def test_a_command_is_the_call_that_curl_makes(text):
    assert parsed(text) == KEPT[text]


TOLD = {
    "curl -d @data.json https://a.test": "the file data.json",
    "curl -F 'a=@b.png' https://a.test": "-F a=@b.png",
    "curl -o out.txt https://a.test": "--output out.txt",
    "curl -k https://a.test": "-k is left out",
    "curl -x http://proxy:8080 https://a.test": "--proxy http://proxy:8080",
    "curl -b jar.txt https://a.test": "-b jar.txt",
    "curl -H @headers.txt https://a.test": "-H @headers.txt",
    "curl -H nonsense https://a.test": "it has no colon",
    "curl --nonsense https://a.test": "--nonsense is left out",
    "curl -X BREW https://a.test": "-X BREW",
    "curl -u ann https://a.test": "no password",
    "curl https://a.test https://b.test": "https://b.test is left out",
    "curl a.test": "takes http://",
    'curl -H "Authorization: Bearer $TOKEN" https://a.test': "$TOKEN",
    "curl https://a.test | jq .": "| jq .",
    "curl https://a.test > out": "> is left out",
    "curl https://a.test -H 'A: b": "not closed",
    "curl https://a.test -H": "its value is missing",
    "curl": "no address",
    "wget https://a.test": "no curl command",
    "Invoke-WebRequest -Uri https://a.test": "Copy as cURL",
    "curl --max-time soon https://a.test": "--max-time soon",
    "curl https://a.test\ncurl https://b.test": "first command is read",
}  # fmt: skip


@pytest.mark.parametrize("text", TOLD)
def test_what_a_task_cannot_keep_is_told(text):
    assert any(TOLD[text] in note for note in curl.parse(text).notes), curl.parse(text).notes


@given(st.text(max_size=200))
@settings(max_examples=300)
def test_any_text_is_read(text):
    for each in (text, f"curl {text}", f'curl ^"{text}'):
        found = curl.parse(each)
        assert found.url or found.notes or not found.payload


def test_a_long_text_is_read_at_once():
    for piece in (
        "'",
        '"',
        "\\",
        "$",
        "$'",
        "a ",
        "-H a:b ",
        '^"',
        "a&",
        "http://a&",
        "# ",
        "${",
        "\n-",
        "\n",
    ):
        curl.parse("curl " + piece * (curl.MOST // len(piece) - 10))
    assert "too long" in curl.parse("x" * (curl.MOST + 1)).notes[0]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(st.lists(TEXT, min_size=1, max_size=6))
@settings(max_examples=300)
def test_what_is_quoted_for_a_shell_is_read_again(words):
    assert shell.words(shlex.join(words)) == shell.Words(words, [])


# Tasks as text -----------------------------------------------------------------------------------

NAMES = st.from_regex(r"\AX-[A-Za-z0-9_]{1,12}\Z")
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"))
CALLS = st.builds(
    Http,
    url=st.from_regex(r"\Ahttps?://[a-z]{1,9}\.test/[!-~]{0,30}\Z"),
    method=st.sampled_from([None, "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]),
    header=st.dictionaries(NAMES, VALUES.map(str.strip), max_size=4).filter(
        lambda of: len({name.lower() for name in of}) == len(of)
    ),
    payload=st.none() | TEXT.filter(bool),
    follow_redirects=st.booleans(),
)


@given(CALLS)
@settings(max_examples=300)
def test_a_call_written_for_curl_is_the_same_call_again(of):
    text = copying.as_call(of, 2.5)
    assert shlex.split(text)[:1] == ["curl"]
    found = curl.parse(text)
    again = Http(
        found.url, found.method, dict(found.headers), found.payload,
        follow_redirects=found.follow_redirects,
    )  # fmt: skip
    assert (again.verb, again.url, again.payload) == (of.verb, of.url, of.payload)
    assert again.header == of.masked() and again.follow_redirects == of.follow_redirects
    assert found.timeout_seconds == 2.5


def task_of(**more: Any) -> Definition:
    made = Definition(
        key=uuid4(), bucket=1, service_id=uuid4(), id="t", version=1, name="A task",
        description=None, tags=[], status="active", trigger=Cron("0 9 * * *", "Europe/Berlin"),
        action=Http("http://a.test/"), policy=Policy(), created_at=utc(0), updated_at=utc(0),
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


TASKS = st.builds(
    task_of,
    name=TEXT.map(str.strip).filter(bool).filter(lambda text: "\n" not in text and "\r" not in text),
    description=st.none() | TEXT.filter(lambda text: bool(text.strip()) and "\r" not in text),
    tags=st.lists(st.from_regex(r"\A[a-z-]{1,9}\Z"), max_size=3, unique=True),
    action=CALLS.map(lambda of: msgspec.structs.replace(of, payload=(of.payload or "").replace("\r", "") or None))
    | st.builds(Command, st.just("echo 'it is' $(date)"), st.just({"A": "b=c d", "B": "-x"})),
    policy=st.builds(
        Policy,
        max_retries=st.none() | st.integers(0, 9),
        retry_backoff=st.none() | st.just(Backoff(2, 3, 60)),
        timeout_seconds=st.none() | st.just(2.5),
        expected_status=st.none() | st.just(((200, 204), (404, 404))),
        priority=st.sampled_from([0, -5]),
    ),
    bounds=st.builds(Bounds, start_at=st.none() | st.just(1_900_000_000_000)),
)  # fmt: skip


def given_to(line: str) -> dict[str, Any]:
    """The body that the CLI makes of a line."""
    words = shlex.split(line) if line.startswith("printf") else shell.words(line).words
    if words[0] == "printf":
        assert words[3:] == ["|", "scheduler", "tasks", "create", "--file", "-"]
        return dict(json.loads(words[2]))
    assert words[:3] == ["scheduler", "tasks", "create"]
    with create.make_context("create", words[3:]) as context:
        asked = {n: v for n, v in context.params.items() if n not in ("file", "output", "server")}
    task_id = asked["named"]
    made = json.loads(msgspec.json.encode(sent({k: v for k, v in asked.items() if k in KNOWN})))
    if "url" in made:
        [made["url"]] = made["url"]
    return {"id": task_id, **made}


KNOWN = set(copying.FLAGS) | {"follow_redirects", "json"}


@given(TASKS)
@settings(max_examples=100)
def test_a_line_of_the_command_line_says_the_same_as_the_body(of):
    made = copying.body(of, 0)
    body = json.loads(msgspec.json.encode(made))
    found = given_to(copying.as_line(made))
    if isinstance(body.get("retry_backoff"), dict):
        body["retry_backoff"] = {k: float(v) for k, v in body["retry_backoff"].items()}
    assert found == body


def test_a_payload_of_json_stays_json_on_the_command_line():
    made = copying.body(task_of(action=Http("http://a.test/", payload='{"a":1}', json=True)), 0)
    line = copying.as_line(made)
    assert "--json '{\"a\":1}'" in line and "printf" not in line
    assert given_to(line) == json.loads(msgspec.json.encode(made))


def test_the_curl_command_for_the_api_sends_the_body():
    body = copying.body(task_of(name="it's"), 0)
    found = curl.parse(copying.as_request(body, "http://here:8080", "an-id"))
    assert found.url == "http://here:8080/tasks" and found.notes == []
    assert dict(found.headers)["service_id"] == "an-id"
    assert json.loads(found.payload or "") == json.loads(copying.as_json(body))


def test_no_secret_is_in_any_text():
    of = task_of(action=Http("http://a.test/", header={"Authorization": "planted"}))
    body = copying.body(of, 0)
    assert isinstance(of.action, Http)
    texts = (
        copying.as_call(of.action), copying.as_json(body), copying.as_line(body),
        copying.as_request(body, "http://here", "id"),
    )  # fmt: skip
    assert all("planted" not in text and "********" in text for text in texts)


def test_the_command_line_knows_every_flag_that_is_written():
    helped = CliRunner().invoke(create, ["--help"]).output
    assert [flag for flag in copying.FLAGS.values() if flag not in helped] == []
