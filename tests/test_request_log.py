"""The line of a request: its fields, its formats, who called, and what is masked in it."""

import ipaddress
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import App, RunApp
from scheduler import config, logs, masking, requestlog
from scheduler.errors import StartupError
from scheduler.masking import MASK, mask, mask_body, mask_value, mask_words
from scheduler.proxies import Proxies

Log = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def setup_logs(capsys) -> Iterator[Callable[..., Callable[[], str]]]:
    """Log from now on, with these settings; what it returns reads what was logged since."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def start(**settings: Any) -> Callable[[], str]:
        logs.configure(config.Log(**settings))
        capsys.readouterr()
        return lambda: capsys.readouterr().err

    yield start
    masking.OUR_OWN.clear()
    logs.configure(config.Log())
    structlog.reset_defaults()
    sys.excepthook = sys.__excepthook__
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


# Fields -------------------------------------------------------------------------------------------

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ORDER = [
    "level", "@timestamp", "data", "X-TRACE-ID", "service", "handler", "time_start", "time_end",
    "latency", "url", "content_length", "method", "host", "agent", "remote_ip", "status",
    "req_headers", "resp_headers", "req_body", "other_data", "message",
]  # fmt: skip


async def test_a_request_that_failed_has_every_field_that_is_documented(
    app: App, alice, setup_logs
):
    read = setup_logs(format="json")
    body = {"name": "x", "url": "http://h/", "frequency": "often"}
    answer = await alice.post("/tasks?x=1", json=body, headers={"User-Agent": "tried/1.0"})
    [line] = lines(read())
    assert list(line) == ORDER
    assert line["level"] == "error"
    for name in ("@timestamp", "time_start", "time_end"):
        assert TIMESTAMP.fullmatch(line[name])
    assert line["data"] == line["@timestamp"][:19].replace("T", " ")
    assert line["time_start"] <= line["time_end"] <= line["@timestamp"]
    assert line["X-TRACE-ID"] == answer.headers["X-Trace-Id"]
    assert (line["service"], line["handler"]) == ("scheduler.api", "create_task")
    assert re.fullmatch(r"\d+(\.\d)? ms", line["latency"])
    assert (line["url"], line["method"], line["status"]) == ("/tasks", "POST", 400)
    assert line["content_length"] == len(answer.request.content)
    assert line["host"] == app.url.removeprefix("http://")
    assert (line["agent"], line["remote_ip"]) == ("tried/1.0", "127.0.0.1")
    assert line["req_headers"]["User-Agent"] == ["tried/1.0"]
    assert line["req_headers"]["Token"] == [MASK]
    assert line["resp_headers"]["X-Trace-Id"] == [line["X-TRACE-ID"]]
    assert line["req_body"] == body
    assert line["other_data"] == {"service_id": app.ids["alice"]}
    assert line["message"] == answer.json()["error"]["message"]


async def test_a_request_that_went_well_is_a_line_without_headers_and_body(alice, setup_logs):
    read = setup_logs(format="json")
    await alice.get("/tasks")
    [line] = lines(read())
    assert (line["level"], line["status"], line["message"]) == ("info", 200, "request")
    assert not line.keys() & {"req_headers", "resp_headers", "req_body"}
    read = setup_logs(format="json", level="debug")
    await alice.post("/tasks", json={"name": "x", "url": "http://h/", "payload": "hidden"})
    [line] = [line for line in lines(read()) if line["message"] == "request"]
    assert (line["level"], line["req_body"]["payload"]) == ("info", MASK)
    assert line["req_headers"]["Host"]


async def test_a_level_leaves_out_what_is_below_it(alice, setup_logs):
    for level in ("warn", "error"):
        read = setup_logs(format="json", level=level)
        await alice.get("/tasks")
        await alice.get("/tasks/none")
        assert [line["status"] for line in lines(read())] == [404]


async def test_what_machines_ask_all_the_time_is_a_line_for_debugging_alone(anonymous, setup_logs):
    for path in ("/health", "/ready", "/metrics", "/v1/api/ping"):
        read = setup_logs(format="json")
        await anonymous.get(path)
        assert read() == ""
        read = setup_logs(format="json", level="debug")
        await anonymous.get(path)
        assert [line["level"] for line in lines(read())] == ["debug"]


async def test_head_is_logged_as_head_with_its_handler(alice, setup_logs):
    read = setup_logs(format="json")
    await alice.head("/tasks")
    [line] = lines(read())
    assert (line["method"], line["handler"]) == ("HEAD", "list_tasks")
    assert "service_id" in line["other_data"]


async def test_an_error_of_ours_is_one_line_with_its_trace(alice, conn, setup_logs):
    await conn.execute("ALTER TABLE task RENAME COLUMN description TO moved")
    read = setup_logs(format="json")
    assert (await alice.get("/tasks")).status_code == 500
    [line] = lines(read())
    assert (line["message"], line["status"], line["handler"]) == (
        "request failed",
        500,
        "list_tasks",
    )
    assert "Traceback" in line["exception"]


async def test_a_large_body_is_cut_and_a_binary_one_is_its_size(alice, setup_logs):
    read = setup_logs(format="json")
    for content, kind in (
        (b'{"name": "' + b"x" * 9000 + b'"}', "application/json"),
        (b'{"name": "' + b"x" * 90_000 + b'"}', "application/json"),
        (b"\x00\x01\xff" * 5, "application/octet-stream"),
        (b"<a>hidden</a>", "text/xml"),
    ):
        await alice.post("/tasks", content=content, headers={"Content-Type": kind})
    long, longer, binary, xml = lines(read())
    for line, length in ((long, 9012), (longer, 90_012)):
        assert len(line["req_body"]) == 4096
        assert line["other_data"]["truncated"] is True
        assert line["content_length"] == length
    assert binary["req_body"] == "<15 bytes of application/octet-stream>"
    assert xml["req_body"] == "<13 bytes of text/xml>"


async def test_a_run_that_failed_is_a_line_and_one_that_went_well_is_none(
    app: App, alice, receiver, setup_logs
):
    task = {"id": "t", "name": "t", "url": f"{receiver.url}/?token=hidden"}
    await alice.post("/tasks", json=task)
    read = setup_logs(format="json")
    receiver.then(200).then(418, b"short and stout")
    await alice.post("/tasks/t/execute")
    await alice.post("/tasks/t/execute")
    said = lines(read())
    [line] = [line for line in said if line["message"] != "request"]
    [run] = (await alice.get("/runs?state=failed")).json()["runs"]
    assert (line["level"], line["service"], line["message"]) == (
        "warn",
        "scheduler.worker",
        "run failed",
    )
    assert line["status"] == 418
    assert "418" in line["error"]
    assert line["other_data"] == {
        "run_id": run["id"], "task_id": "t", "service_id": app.ids["alice"], "kind": "manual",
        "attempts": 1,
    }  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{16}", line["X-TRACE-ID"])
    assert run["id"].replace("-", "").endswith(line["X-TRACE-ID"])
    assert "hidden" not in str(said)

    read = setup_logs(format="json", level="debug")
    await alice.post("/tasks/t/execute")
    ended = [line for line in lines(read()) if line["message"] == "run ended"]
    assert [line["level"] for line in ended] == ["debug"]


# Formats ------------------------------------------------------------------------------------------


async def test_text_begins_as_the_readme_shows_it(alice, setup_logs):
    read = setup_logs(format="text")
    await alice.get("/tasks/none")
    [line] = read().splitlines()
    assert re.match(
        r"\d{1,2}:\d\d[AP]M ERR there is no task none \S*@timestamp=\S+Z X-TRACE-ID=\w{16} agent=\S+ "
        r'content_length=0 data="\S+ \S+" handler=get_task host=\S+ latency="\S+ ms" method=GET '
        r"other_data=\{.*\} remote_ip=127.0.0.1 req_headers=\{.*\} resp_headers=\{.*\} "
        r"service=scheduler.api status=404 time_end=\S+Z time_start=\S+Z url=/tasks/none$",
        line,
    ), line


FORGED = "ok\n6:14PM ERR forged\r\x1b[2K\x9b1m\x85\u2028\u202e\x00"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_value_makes_a_line_of_its_own_or_moves_the_cursor(setup_logs, form):
    read = setup_logs(format=form)
    logger = structlog.get_logger()
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception(FORGED, url=FORGED, nested={FORGED: [FORGED, {"a": FORGED.encode()}]})
    logging.getLogger(FORGED).warning("%s", FORGED)
    said = read()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", said)
    begun = [line for line in said.split("\n") if line and not line.startswith(logs.INDENT)]
    assert len(begun) == 2
    if form == "text":
        assert all(re.match(r"\d{1,2}:\d\d[AP]M ERR ok|\d{1,2}:\d\d[AP]M WRN ok", x) for x in begun)


@pytest.mark.parametrize(
    ("hour", "clock"), [(0, "12:05AM"), (9, "9:05AM"), (12, "12:05PM"), (18, "6:05PM")]
)
def test_text_tells_the_time_as_a_kitchen_clock(hour, clock):
    line = {"@timestamp": f"2025-06-03T{hour:02}:05:36.606Z", "level": "info", "message": "m"}
    assert logs.text_line(line).startswith(f"{clock} INF m ")


def test_times_are_written_as_documented():
    assert logs.timestamp(1748974476.6069) == "2025-06-03T18:14:36.606Z"
    assert logs.latency(0.0002) == "0.2 ms"
    assert logs.latency(0.00001) == "0 ms"
    assert logs.latency(61.2345) == "61234.5 ms"


# Who called ---------------------------------------------------------------------------------------


async def test_a_proxy_names_the_caller_only_where_it_is_trusted(run_app: RunApp, setup_logs):
    sent = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2"}
    for environ, expected in (
        ({}, "127.0.0.1"),
        ({"SERVER_TRUSTED_PROXIES": "10.0.0.0/8"}, "127.0.0.1"),
        ({"SERVER_TRUSTED_PROXIES": "127.0.0.1/32, 10.0.0.0/8"}, "203.0.113.9"),
    ):
        async with (
            run_app(AUTH_ANONYMOUS_SERVICE="alice", **environ) as app,
            app.client() as client,
        ):
            read = setup_logs(format="json")
            assert (await client.get("/tasks")).status_code == 200
            assert (await client.get("/tasks", headers=sent)).status_code == 401
            local, forwarded = lines(read())
            assert (local["remote_ip"], forwarded["remote_ip"]) == ("127.0.0.1", expected)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "127.0.0.1"),
        ({"x-forwarded-for": ""}, "127.0.0.1"),
        ({"x-forwarded-for": "203.0.113.9"}, "203.0.113.9"),
        ({"x-forwarded-for": "203.0.113.9:4711"}, "203.0.113.9"),
        ({"x-forwarded-for": "[2001:db8::7]:4711"}, "2001:db8::7"),
        ({"x-forwarded-for": "::ffff:203.0.113.9"}, "203.0.113.9"),
        ({"x-forwarded-for": "10.0.0.1, 10.0.0.2"}, "10.0.0.1"),
        ({"x-forwarded-for": "6.6.6.6, unknown, 10.0.0.2"}, "10.0.0.2"),
        ({"x-forwarded-for": "6.6.6.6, \n, 10.0.0.2"}, "10.0.0.2"),
        ({"forwarded": "for=203.0.113.9;proto=http;by=10.0.0.1"}, "203.0.113.9"),
        ({"forwarded": 'proto=https; For="[2001:db8::7]:80", for=10.0.0.2'}, "2001:db8::7"),
        ({"forwarded": "for=6.6.6.6, for=_hidden"}, "127.0.0.1"),
        ({"forwarded": "for=6.6.6.6, by=10.0.0.3"}, "127.0.0.1"),
        ({"forwarded": "for=6.6.6.6", "x-forwarded-for": "203.0.113.9"}, "203.0.113.9"),
    ],
)  # fmt: skip
def test_the_rightmost_address_that_is_no_proxy_is_the_callers(headers, expected):
    proxies = Proxies(["127.0.0.1/32", "10.0.0.0/8"])
    assert proxies.caller("127.0.0.1", headers) == expected
    assert proxies.caller("198.51.100.1", headers) == "198.51.100.1"
    assert proxies.caller(None, headers) is None


IPS = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.text(max_size=8))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from(["10.0.0.1", "10.9.9.9"]), max_size=3),
    st.ip_addresses(),
    st.lists(IPS, max_size=4),
)
def test_nobody_can_say_that_somebody_else_called(behind, caller, claimed):
    """However much a caller claims: what trusted proxies append after its address decides."""
    proxies = Proxies(["10.0.0.0/8"])
    plain = getattr(caller, "ipv4_mapped", None) or caller
    if plain in ipaddress.ip_network("10.0.0.0/8"):
        return
    claimed = [claim.replace(",", "") for claim in claimed]
    listed = ", ".join([*claimed, str(caller), *behind])
    assert proxies.caller("10.0.0.3", {"x-forwarded-for": listed}) == str(plain).partition("%")[0]
    assert proxies.caller(str(plain), {"x-forwarded-for": listed}) == str(plain)


@given(st.text(max_size=200))
def test_any_header_of_a_proxy_is_read_as_an_address_or_not_at_all(text):
    for name in ("x-forwarded-for", "forwarded"):
        found = Proxies(["10.0.0.0/8"]).caller("10.0.0.3", {name: text})
        ipaddress.ip_address(found)


def test_a_wrong_network_stops_the_start():
    with pytest.raises(
        StartupError, match=r"server.trusted_proxies .SERVER_TRUSTED_PROXIES.: expected CIDRs"
    ):
        config.load(environ={"SERVER_TRUSTED_PROXIES": "10.0.0.1/8"})


# Masking ------------------------------------------------------------------------------------------

SECRET = "pLaNtEd"
NAMES = st.sampled_from(
    ["password", "token", "Authorization", "x-api-key", "client_secret", "Set-Cookie", "PassWd",
     "Proxy-Authorization", "private_key", "access-token", "sig", "X-Amz-Signature", "pass%77ord"]
)  # fmt: skip
PLAIN = st.sampled_from(["name", "url", "nested", "items", "a b", "日本", "x\n"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20))


def trees(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value under a secret name, at any depth, among others."""
    hidden = st.builds(lambda name, value: {name: value}, NAMES, leaf)
    pairs = st.builds(lambda name, value: {"key": name, "value": value}, NAMES, leaf)
    named = st.builds(lambda name, value: {"value": value, "name": name}, NAMES, leaf)
    header = st.builds(lambda name, value: {"header": {name: value}}, PLAIN, leaf)
    return st.recursive(
        st.one_of(hidden, pairs, named, header),
        lambda inner: st.one_of(
            st.dictionaries(PLAIN, st.one_of(inner, SCALARS), min_size=1, max_size=3),
            st.lists(st.one_of(inner, SCALARS), min_size=1, max_size=3),
        ),
        max_leaves=6,
    )


LEAVES = st.one_of(
    st.just(SECRET),
    st.text(max_size=5).map(lambda more: f"{SECRET}{more}"),
    st.just([SECRET]),
    st.just({"deeper": [{"still": SECRET}]}),
)


@given(trees(LEAVES))
def test_what_stands_under_a_secret_name_comes_through_no_nesting(tree):
    raw = json.dumps(tree).encode()
    assert SECRET not in json.dumps(mask_value(tree, body=True))
    assert SECRET not in json.dumps(mask_body(raw, "application/json"))
    assert SECRET not in json.dumps(mask_body(raw, ""))


@given(trees(st.just(SECRET)), st.data())
def test_nor_through_json_that_is_cut_or_spoiled_or_quoted_again(tree, data):
    text = json.dumps(tree)
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert SECRET not in str(mask_body(cut.encode(), "application/json"))
    assert SECRET not in str(mask_body(cut.encode(), "application/json", whole=False))
    assert SECRET not in str(mask_body(f"{text}}}".encode(), "application/json"))
    again = json.dumps(json.dumps({"inner": text}))
    assert SECRET not in mask_words(again, body=True)
    assert SECRET not in mask_words(repr(tree), body=True)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: Basic {}, and more",
        "it sent Bearer {} and Basic {}",
        "bearer%20{}",
        "[(b'authorization', b'Bearer {}'), (b'token', b'{}')]",
        "{{'token': '{}', 'secret': b'x\\'{}'}}",
        '{{"password": "x\\"{}", "key": "y\\\\\\"{}"}}',
        'inner {{\\"password\\": \\"a\\\\\\"{}\\"}}',
        "[{{'key': 'Authorization', 'value': '{}'}}]",
        "password={}&x=1",
        "pass%77ord={}",
        "api%5Fkey={}",
        "GET /tasks?token={}&count=1",
        "http://user:{}@host/path",
        "http://{}@host",
        "//user:{}@host/",
        "http://user:?{}@host/",
        "http://user:#{}/@host/?mail=a@b",
        "http://user:p@{}@host/",
        "http://host/?anything={}#{}",
        "cannot connect to 'postgresql://me:{}@db/x?sslkey={}'",
        "whsec_{}/+==",
        "Cookie: a=b; session={}",
        "secret = {}",
        "it was eyJhbGciOi{}.eyJzdWIi.c2ln",
        "-----BEGIN RSA PRIVATE KEY-----\nMII{}\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMII{}",
        "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-256-CBC,0\n\n{}\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE KEY BLOCK-----",
        '{{"password":                    "{}"',
        '{{"password"                    :\n\n\n\n\n\n\n\n\n\n"{}"',
        '{{"passwords": [\n  "{}",\n  ["{}"],\n  "{}"\n], "x',
        "secret: {{{{\n  'a': '{}'\n",
        "Authorization:\r\n\tBasic {}",
        "/callback#access_token={}",
    ],
)
def test_secrets_in_words_are_masked(text):
    masked = mask_words(
        text.format(*["planted" if "eyJ" in text else "planted+/x"] * text.count("{}"))
    )
    assert "planted" not in masked
    assert MASK in masked


def test_what_is_bracketed_ends_with_its_line():
    assert mask_words("token: [1, (2), 3], x\nthe rest") == f"token:{MASK}\nthe rest"


BODIES = [
    (b"password: |\n  planted\n", "application/yaml"),
    (b"passwords:\n- planted\n", "application/yaml"),
    (b"header:\n  X-Own: planted\n", "application/yaml"),
    (b"\xef\xbb\xbf<token>planted</token>", "application/json"),
    (b"x <token>planted</token>", "text/plain"),
    (b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\nplanted\r\n--x--', ""),
    (b"password planted", "text/plain"),
    (b'{"password"             : "planted",}', "application/json"),
    (json.dumps({"name": json.dumps({"payload": "planted"})}).encode(), "application/json"),
    (json.dumps({"name": '{"header": {"X-Own": "planted"'}).encode(), "application/json"),
    (b'{"zz": [["X", "a"], ["password", "planted", true]]}', "application/json"),
    (b"nonce=1&form=planted&csrf_token=planted", "application/x-www-form-urlencoded"),
]


@pytest.mark.parametrize(("body", "kind"), BODIES)
def test_a_body_of_any_kind_shows_no_secret(body, kind):
    for whole in (True, False):
        assert "planted" not in json.dumps(mask_body(body, kind, whole=whole))


def test_what_an_address_on_this_host_asks_is_not_shown():
    shown = requestlog.shown_headers(
        [(b"location", b"/sign-in?next=/x%3Ftoken%3Dplanted"), (b"referer", b"/cb?code=planted"),
         (b"x-csrf", b"planted")]
    )  # fmt: skip
    assert shown == {
        "Location": [f"/sign-in?{MASK}"],
        "Referer": [f"/cb?{MASK}"],
        "X-Csrf": [MASK],
    }


@pytest.mark.parametrize(
    "text",
    [
        "there is no task a-b_c; GET /tasks lists them",
        "send Authorization: Bearer with admin.token",
        "the Basic credentials are not base64 of user:password",
        'Basic realm="scheduler"',
        "INSERT INTO task (key, name) SELECT x WHERE task_key = $1 AND token = $12::UUID",
        "https://example.com:8080/a/b at 12:30:01",
        "frequency: Expected `int`, got `str`",
    ],
)
def test_words_without_a_secret_stay_as_they_are(text):
    assert mask_words(text) == text


def test_a_url_is_shown_to_its_owner_with_all_that_is_no_secret():
    url = "https://u:p@h/a?token=1&x=2&pass%77ord=3;api_key=4&note=5"
    assert mask("http://h/?form=1&x=2") == "http://h/?form=1&x=2"
    assert (
        mask(url) == f"https://{MASK}@h/a?token={MASK}&x=2&pass%77ord={MASK};api_key={MASK}&note=5"
    )


def test_a_form_is_masked_by_its_names():
    masked = mask_body(
        b"a=1&pass%77ord=planted,x%26y&note=Bearer+planted", "application/x-www-form-urlencoded"
    )
    assert masked == f"a=1&pass%77ord={MASK}&note=Bearer {MASK}"


def test_what_this_process_knows_is_masked_wherever_it_stands(setup_logs):
    read = setup_logs()
    logs.configure(config.Log(), known=config.secrets(config.load(environ={
        "DATABASE_URL": "postgresql://me:in:side/pass@db/x", "ADMIN_TOKEN": "operators-own"})))  # fmt: skip
    structlog.get_logger().warning("odd in:side/pass and in%3Aside%2Fpass", url="/operators-own/")
    said = read()
    assert "side" not in said
    assert "own" not in said


def test_what_ends_the_program_is_logged_with_its_secrets_masked(setup_logs):
    read = setup_logs(format="json")
    error = ValueError(f"token={SECRET}" + "\nmore" * 10_000 + "\nthe end")
    sys.excepthook(ValueError, error, None)
    [line] = lines(read())
    assert (line["message"], line["level"]) == ("the program broke", "error")
    assert SECRET not in line["exception"]
    assert line["exception"].startswith("ValueError: token=")
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) < 40_000


def test_fields_of_any_kind_are_masked_at_any_depth(setup_logs):
    read = setup_logs(format="json", level="debug")
    error = ValueError(f"token={SECRET}")
    loop: dict[str, Any] = {"token": SECRET}
    loop["self"] = [loop, loop]
    structlog.get_logger().warning(
        f"Bearer {SECRET}",
        token=SECRET,
        pin=1234,
        error=error,
        nested=[({"a": {"password": {SECRET}}}, f"Basic {SECRET}")],
        pairs=((b"authorization", SECRET.encode()), ("cookie", SECRET)),
        struct=config.Admin(token=SECRET),
        loop=loop,
        raw=f"x-token: {SECRET}".encode(),
        binary=b"\xff" + SECRET.encode(),
        exc_info=error,
    )
    logging.getLogger("httpx").warning("HTTP Request: GET https://h/?a=%s", SECRET)
    logging.getLogger("asyncpg").error("connecting to postgresql://u:%s@h/", SECRET, exc_info=error)
    logging.getLogger("sqlalchemy").error("%s", {"token": SECRET})
    said = read()
    assert len(lines(said)) == 4
    assert SECRET not in said
    assert "1234" not in said


HOSTILE = [
    "a", "://", "\\", "?", "&a", "//@", " ", "@", "%20", "'", '"', "[{", "\n", "DETAIL: ", "\\u0061",
    '"password":"', "token='\\", "key=(", "bearer ", "token: basic ", "'token','", "whsec_", "realm=",
    'token\\"', "secret: \t", "http://a:b", "key: basic realm=", "value:", "eyJ", "eyJa.",
    "-----BEGIN PRIVATE KEY-----", '"key":"token"', "basic%20realm=,", "token  ", "token:  ", "key=[]",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_masking_costs_no_more_than_its_length_whoever_wrote_the_text(text):
    """Where it cost the square of it, this would be minutes."""
    for work in (
        mask_words,
        mask,
        logs.cut,
        logs.visible,
        lambda said: mask_words(said, body=True),
        lambda said: mask_body(said.encode(), "application/json"),
    ):
        for build in (
            lambda n: text * (n // len(text)),
            lambda n: "token=" + text * (n // len(text)),
        ):
            said = build(100_000)
            began = time.process_time()
            work(said)
            assert time.process_time() - began < 1


def test_a_megabyte_is_masked_in_seconds():
    for text in ("'token','", '"password":"', "://", "key=(", "basic%20realm=,"):
        began = time.process_time()
        mask_words(text * (1_000_000 // len(text)))
        assert time.process_time() - began < 3
