"""The door to targets, against servers that say exactly what the test tells them to."""

import asyncio
import functools
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.config import Egress, Http
from scheduler.egress import Resolver, Rules
from scheduler.outbound import Outbound, SendError
from scheduler.target import check_header, check_url, prepare

# A certificate for 127.0.0.1 that nobody trusts, with its key, made for this test.
PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxXHO8VhpHcZzZimf
5p9vNNJG2OjTk1w+ea/EFpgBLIKhRANCAASuf2jjL6tA1ZwZogFGZK0BtmC0mXty
buyM18Ab6efNV9jnzt0fR9w4uF/A/zlYYT7geHUb25Isl6CP4eGtkVCj
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUFj2X6wVpdxx4lRwmIHRtfhYlcSgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA3MTUyNFoYDzIxMjYxMDI4
MDcxNTI0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASuf2jjL6tA1ZwZogFGZK0BtmC0mXtybuyM18Ab6efNV9jnzt0fR9w4
uF/A/zlYYT7geHUb25Isl6CP4eGtkVCjo28wbTAdBgNVHQ4EFgQUjhgso03M0RTz
NFnW1ZMAswHduXowHwYDVR0jBBgwFoAUjhgso03M0RTzNFnW1ZMAswHduXowDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAPEUoYqybSuin0hxZf2i/DsRcbI8oVFrm5k8ONlCEYNeAiEA
znUNfPnwJa/i00ZT4e0nZIRP65okp1j/S4UEhd4FZ7k=
-----END CERTIFICATE-----
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def on_both_loops(test):
    @pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
    @functools.wraps(test)
    def run(factory):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test())

    del run.__wrapped__
    return run


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            head += await reader.readexactly(int(line.split(b":")[1]))
    return head


class Server:
    """Answers by a function of the request, and keeps what arrived."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    async def call(self, answer, reader, writer):
        self.connections += 1
        try:
            while True:
                self.requests.append(await read_request(reader))
                result = answer(self.requests[-1])
                if isinstance(result, Awaitable):
                    await result
                    return
                if result is None:
                    return
                writer.write(result)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Callable[[bytes], bytes | None] | bytes = OK, *, tls=None, raw=None):
    server = Server()
    function = answer if callable(answer) else (lambda _: answer)

    async def connected(reader, writer):
        try:
            if raw:
                server.connections += 1
                await raw(reader, writer)
                writer.close()
            else:
                await server.call(function, reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def door(*, egress=None, resolver=None, tls=True, own=(), **http):
    return Outbound(Http(**http), Rules(egress or Egress(), own), resolver=resolver, tls=tls)


def soon(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


async def send(out, url, method="GET", headers=None, body=b"", *, extra=None, within=5.0, **more):
    target = prepare(method, url, headers or {}, body, **more)
    return await out.send(target, extra or {}, soon(within))


async def failure(call) -> SendError:
    with pytest.raises(SendError) as caught:
        await call
    return caught.value


def unused_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# What is sent


@on_both_loops
async def test_a_request_arrives_as_it_was_written():
    async with serving() as server, door() as out:
        headers = {"Content-Type": "text/plain", "X-a": "grün"}
        answer = await send(
            out,
            server.url("/a%2Fb//ü/../c?u=http%3A%2F%2Fz&x=[1]|'\"#part"),
            "POST",
            headers,
            b"body",
            extra={"X-Attempt": "1"},
        )

        assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)
        assert server.requests == [
            b"POST /a%2Fb//%C3%BC/../c?u=http%3A%2F%2Fz&x=[1]|'\" HTTP/1.1\r\n"
            b"Host: 127.0.0.1:" + str(server.port).encode() + b"\r\n"
            b"Accept-Encoding: identity\r\nContent-Type: text/plain\r\n"
            b"X-a: gr\xc3\xbcn\r\nContent-Length: 4\r\nX-Attempt: 1\r\n\r\nbody"
        ]  # fmt: skip


@on_both_loops
async def test_connections_are_kept_and_cookies_are_not():
    answer = OK.replace(b"OK\r\n", b"OK\r\nSet-Cookie: a=b\r\n")
    async with serving(answer) as server, door() as out:
        target = prepare("GET", server.url("?q"), {})
        for _ in range(3):
            await out.send(target, {}, soon())

        assert server.connections == out.open == 1
        assert not any(b"ookie" in request for request in server.requests)
        assert server.requests[0].startswith(b"GET /?q HTTP/1.1\r\n")


@on_both_loops
async def test_a_header_of_the_task_replaces_host_and_accept_encoding():
    async with serving() as server, door() as out:
        await send(out, server.url(), headers={"host": "other", "ACCEPT-ENCODING": "gzip"})

        lines = server.requests[0].split(b"\r\n")
        assert lines[1:3] == [b"host: other", b"ACCEPT-ENCODING: gzip"]
        assert b"\r\n".join(lines).lower().count(b"host:") == 1


@on_both_loops
async def test_a_line_break_in_a_header_of_the_call_is_refused():
    async with serving() as server, door() as out:
        for value in ("a\r\nB: c", "a\nB: c", "a\rB", "a\0"):
            with pytest.raises(ValueError, match="line break"):
                await send(out, server.url(), extra={"X": value})
        assert server.connections == 0


# What is answered


@on_both_loops
async def test_heads_and_empty_answers_leave_the_connection_usable():
    answers = {
        b"HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        b"DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        b"GET": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"PUT": b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"OPTIONS": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    }
    async with serving(lambda r: answers[r.split()[0]]) as server, door() as out:
        got = [
            await send(out, server.url(), m) for m in ("HEAD", "DELETE", "GET", "PUT", "OPTIONS")
        ]

        assert [(a.status, a.body) for a in got] == [
            (200, b""), (204, b""), (304, b""), (200, b"ok"), (200, b"ok"),
        ]  # fmt: skip
        assert server.connections == 1


@on_both_loops
async def test_an_answer_without_length_ends_with_the_connection():
    async def raw(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with serving(raw=raw) as server, door() as out:
        assert (await send(out, server.url())).body == b"all of it"
        assert out.open == 0


@on_both_loops
async def test_a_body_is_cut_at_the_limit_and_never_inflated():
    cut = asyncio.Event()

    async def raw(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        try:
            while True:
                writer.write(b"\x1f\x8bxx" * 4096)
                await writer.drain()
        except ConnectionError:
            cut.set()

    async with serving(raw=raw) as server, door(max_response_bytes=100_000) as out:
        answer = await send(out, server.url())
        await cut.wait()

        assert answer.truncated
        assert answer.body == (b"\x1f\x8bxx" * 25_000)
        assert out.open == 0


@on_both_loops
async def test_a_small_body_over_the_limit_is_cut():
    async with serving() as server, door(max_response_bytes=1) as out:
        answer = await send(out, server.url())
        assert (answer.body, answer.truncated) == (b"o", True)


# What goes wrong


BAD_ANSWERS = {
    "nonsense": b"SSH-2.0-OpenSSH\r\n\r\n",
    "a header bomb": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nSet-Cookie: " + b"hushed" * 9000 + b"\r\n\r\n",
    "a long status": b"HTTP/1.1 200 " + b"hushed" * 9000 + b"\r\n\r\n",
    "a long name": b"HTTP/1.1 200 OK\r\n" + b"hushed" * 9000 + b": x\r\n\r\n",
    "a bad value": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=hushed\x00\r\n\r\n",
    "a bad name": b"HTTP/1.1 200 OK\r\nSet Cookie: a=hushed\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: hushed\r\n\r\n",
    "a late bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n"
    + bytes(0x2000)
    + b"\r\nhushed\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


@on_both_loops
async def test_a_malformed_answer_may_have_arrived():
    for kind, answer in BAD_ANSWERS.items():
        async with serving(answer) as server, door() as out:
            e = await failure(send(out, server.url("/?token=secret")))

            assert e.may_have_arrived, kind
            assert e.retryable
            assert "secret" not in e.message
            assert "hushed" not in e.message, kind
            assert "time was up" not in e.message, kind
            assert out.open == 0


@on_both_loops
async def test_a_server_that_closes_after_reading_may_have_acted_and_is_asked_once():
    for method in ("GET", "POST"):
        async with serving(lambda _: None) as server, door() as out:
            e = await failure(send(out, server.url(), method))

            assert "closed the connection without an answer" in e.message
            assert e.may_have_arrived
            assert len(server.requests) == 1


@on_both_loops
async def test_a_kept_connection_that_dies_with_the_request_is_not_sent_again():
    for method in ("PUT", "POST"):
        answers = iter([OK, None])
        async with serving(lambda _, a=answers: next(a)) as server, door() as out:
            target = prepare(method, server.url(), {})
            await out.send(target, {}, soon())
            e = await failure(out.send(target, {}, soon()))

            assert e.may_have_arrived
            assert (server.connections, len(server.requests)) == (1, 2)


@on_both_loops
async def test_a_kept_connection_that_was_closed_is_replaced():
    close = asyncio.Event()

    async def raw(reader, writer):
        await read_request(reader)
        writer.write(OK)
        await close.wait()

    async with serving(raw=raw) as server, door() as out:
        target = prepare("POST", server.url(), {})
        await out.send(target, {}, soon())
        (idle,) = next(iter(out._fresh._conns.values()))
        close.set()
        await idle[0].closed

        assert (await out.send(target, {}, soon())).status == 200
        assert server.connections == 2


@on_both_loops
async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next():
    late = asyncio.Event()

    async def raw(reader, writer):
        await read_request(reader)
        writer.write(OK)
        if server.connections == 1:
            await late.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with serving(raw=raw) as server, door() as out:
        target = prepare("GET", server.url(), {})
        await out.send(target, {}, soon())
        (idle,) = next(iter(out._kept._conns.values()))
        late.set()
        while not idle[0].should_close:
            await asyncio.sleep(0)

        assert (await out.send(target, {}, soon())).status == 200
        assert server.connections == 2


@on_both_loops
async def test_what_never_left_is_said_to_be_never_sent():
    async with door() as out:
        refused = await failure(send(out, f"http://127.0.0.1:{unused_port()}/?q=secret", "POST"))
        unknown = await failure(send(out, "http://does-not-exist.invalid/"))
        late = await failure(send(out, "http://127.0.0.1/", within=-1))
        egress = await failure(send(out, "http://169.254.169.254/latest"))

        for e in (refused, unknown, late, egress):
            assert not e.may_have_arrived
            assert "secret" not in e.message
        assert "Connection refused" in refused.message
        assert "does-not-exist.invalid was not found" in unknown.message
        assert "metadata" in egress.message
        assert [e.retryable for e in (refused, unknown, late, egress)] == [True, True, True, False]
        assert out.open == 0


@on_both_loops
async def test_the_deadline_cuts_a_trickle_in_head_and_body():
    for start in (b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\n\r\n"):
        cut = asyncio.Event()

        async def raw(reader, writer, start=start, cut=cut):
            await read_request(reader)
            writer.write(start)
            while not reader.at_eof() and reader.exception() is None:
                writer.write(b"x")
                await asyncio.sleep(0.01)
            cut.set()

        async with serving(raw=raw) as server, door() as out:
            e = await failure(send(out, server.url(), within=0.15))
            await cut.wait()

            assert "before the time was up" in e.message
            assert e.may_have_arrived
            assert out.open == 0


@on_both_loops
async def test_a_cancelled_call_closes_its_connection():
    asked, gone = asyncio.Event(), asyncio.Event()

    async def raw(reader, writer):
        await read_request(reader)
        asked.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(raw=raw) as server, door() as out:
        call = asyncio.create_task(send(out, server.url()))
        await asked.wait()
        call.cancel()
        await asyncio.wait([call])
        await gone.wait()

        assert call.cancelled()
        assert out.open == 0


@on_both_loops
async def test_tls_must_be_trusted():
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile("w") as pem:
        pem.write(PEM)
        pem.flush()
        server_tls.load_cert_chain(pem.name)
    trusting = ssl.create_default_context(cadata=PEM[PEM.index("-----BEGIN CERT") :])
    async with serving(tls=server_tls) as server:
        url = server.url().replace("http", "https")
        async with door() as out:
            e = await failure(send(out, url))
        assert "self-signed certificate" in e.message
        assert not e.may_have_arrived
        async with door(tls=trusting) as out:
            assert (await send(out, url)).body == b"ok"


@on_both_loops
async def test_a_server_that_speaks_no_tls_is_named():
    async def raw(reader, writer):
        await reader.read(1)
        writer.write(b"no TLS here at all, sorry")
        await writer.drain()

    async with serving(raw=raw) as server, door() as out:
        e = await failure(send(out, server.url().replace("http", "https")))
        assert not e.may_have_arrived
        assert "TLS" in e.message


# Redirects


def moved(status, to):
    return f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@on_both_loops
async def test_a_redirect_is_followed_only_when_the_task_says_so():
    def answer(request):
        return moved(302, "/b?x=%2F") if request.startswith(b"POST /a") else OK

    async with serving(answer) as server, door() as out:
        plain = await send(out, server.url("/a"), "POST", body=b"x")
        followed = await send(out, server.url("/a"), "POST", body=b"x", follow_redirects=True)

        assert (plain.status, followed.status) == (302, 200)
        assert server.requests[2].startswith(b"GET /b?x=%2F HTTP/1.1")
        assert b"ontent-" not in server.requests[2]


@on_both_loops
async def test_307_keeps_method_and_body():
    def answer(request):
        return moved(307, "b") if b" /a/x" in request else OK

    async with serving(answer) as server, door() as out:
        await send(out, server.url("/a/x"), "POST", body=b"x", follow_redirects=True)
        assert server.requests[1].startswith(b"POST /a/b HTTP/1.1")
        assert server.requests[1].endswith(b"\r\n\r\nx")


@on_both_loops
async def test_secrets_do_not_follow_to_another_origin():
    async with (
        serving() as other,
        serving(lambda _: moved(307, other.url())) as server,
        door() as out,
    ):
        await send(
            out,
            server.url(),
            headers={"Authorization": "s1", "X-Api-Token": "s2", "Host": "h", "X-Pin": "s3"},
            extra={"webhook-signature": "s4", "Idempotency-Key": "id"},
            follow_redirects=True,
            secret=["x-pin"],
        )
        assert b"s1" in server.requests[0]
        assert not any(s in other.requests[0] for s in (b"s1", b"s2", b"s3", b"s4", b": h\r"))
        assert b"Idempotency-Key: id" in other.requests[0]


@on_both_loops
async def test_a_redirect_goes_only_where_a_call_may_go():
    for to in ("http://169.254.169.254/", "ftp://x/", "file:///etc/passwd", "http://u:p@x/", "//["):
        async with serving(moved(301, to)) as server, door() as out:
            e = await failure(send(out, server.url(), follow_redirects=True))
            assert e.may_have_arrived
            assert e.retryable == ("169" not in to)


@on_both_loops
async def test_redirects_without_end_are_given_up():
    async with serving(moved(301, "/")) as server, door(max_redirects=3) as out:
        e = await failure(send(out, server.url(), follow_redirects=True))
        assert "more than 3 redirects" in e.message
        assert len(server.requests) == 4


# Names


def looked_up(*addresses):
    def look_up(_, port):
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, port))
            for a in addresses
        ]

    return look_up


@on_both_loops
async def test_dead_dns_holds_up_only_those_who_wait_for_it():
    stuck = threading.Event()

    def look_up(host, port):
        if host != "good.test":
            stuck.wait()
        return looked_up("127.0.0.1")(host, port)

    async with serving() as server, door(resolver=Resolver(look_up)) as out:
        good = f"http://good.test:{server.port}/"
        await send(out, good)
        dead = [
            asyncio.create_task(send(out, f"http://dead{i % 40}.test/", within=0.3))
            for i in range(200)
        ]
        await asyncio.sleep(0)
        out._kept.clear_dns_cache()
        assert (await send(out, good)).status == 200
        assert (await send(out, good, "POST")).status == 200
        assert threading.active_count() < 100
        for call in dead:
            e = await failure(call)
            assert not e.may_have_arrived
        stuck.set()


@on_both_loops
async def test_a_name_is_judged_by_the_addresses_it_has_and_the_allowed_ones_are_tried():
    async with serving() as server:
        async with door(resolver=Resolver(looked_up("169.254.169.254", "127.0.0.1"))) as out:
            assert (await send(out, f"http://x.test:{server.port}/")).status == 200
        async with door(resolver=Resolver(looked_up("::ffff:169.254.169.254"))) as out:
            e = await failure(send(out, f"http://x.test:{server.port}/"))
            assert not e.retryable
        async with door(own=[("127.0.0.1", server.port)]) as out:
            e = await failure(send(out, server.url()))
            assert "this scheduler or its database" in e.message


@on_both_loops
async def test_the_socket_itself_is_the_last_look():
    async with door() as out:
        out._rules.refusal = out._rules.refusal_of_name = lambda *_: None
        e = await failure(send(out, "http://169.254.169.254/"))
        assert not e.retryable


@on_both_loops
async def test_an_ipv6_literal_is_called():
    try:
        listener = await asyncio.start_server(lambda _, w: (w.write(OK), w.close()), "::1", 0)
    except OSError:
        pytest.skip("no IPv6")
    async with door() as out, listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await send(out, f"http://[::1]:{port}/")).status == 200


# What may be written


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://x/", "http://"), ("x", "http://"), ("http:/x", "http://"), ("//x", "http://"),
        ("http://", "host"), ("http:///x", "host"), ("http://:80/", "host"), ("http://?x", "host"),
        ("http://u:p@x/", "header"), ("http://u@x/", "header"),
        ("http://x:0/", "port"), ("http://x:65536/", "port"), ("http://x:-1/", "host"),
        ("http://x:8a/", "host"), ("http://x:٣/", "host"),
        ("http://x/a b", "%20"), ("http://x/\r\nA: b", "%20"), ("http://x/\0", "%20"),
        (" http://x/", "%20"), ("http://x/\u2028", "%20"), ("http://x/\ud800", "control"),
        ("http://x\\@y/", "header"), ("http://x\\y/", "host"), ("http://a..b/", "host"),
        ("http://-a/", "host"), ("http://" + "a" * 64 + "/", "host"), ("http://x%2e/", "host"),
        ("http://[::1/", "host"), ("http://[fe80::1%25eth0]/", "zone"), ("http://[x]/", "IPv6"),
        ("http://127.1/", "four"), ("http://2130706433/", "four"), ("http://0x7f000001/", "four"),
        ("http://0177.0.0.1/", "four"), ("http://x/" + "a" * 8192, "8192"),
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_with_what_would_be_right(url, says):
    with pytest.raises(ValueError, match=says):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://x", "HTTPS://X.example.:443/?q#f", "http://bücher.example/ü", "http://[::1]:80/",
        "http://a_b.internal:8080", "http://127.0.0.1", "http://x:/", "http://x/?a=@:[]//",
    ],
)  # fmt: skip
def test_a_right_url_is_returned_as_it_is(url):
    assert check_url(url) == url


def test_a_name_beyond_ascii_is_sent_as_idna():
    assert b"Host: xn--bcher-kva.example\r\n" in prepare("GET", "http://bücher.example/", {}).head


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"), ("a b", "x"), ("a:", "x"), ("ä", "x"), ("a\r\nb", "x"), ("Content-Length", "1"),
        ("transfer-encoding", "chunked"), ("Connection", "close"), ("Upgrade", "x"), ("TE", "x"),
        ("Trailer", "x"), ("Keep-Alive", "x"), ("Proxy-Authorization", "x"),
        ("a", "b\r\nc: d"), ("a", "b\nc"), ("a", "b\0"), ("a", "\x7f"), ("a", " b"), ("a", "b\t"),
        ("a", "\ud800"),
    ],
)  # fmt: skip
def test_a_wrong_header_is_refused(name, value):
    with pytest.raises(ValueError, match=r"header|value|leave it out"):
        check_header(name, value)


def test_a_wrong_method_is_refused():
    for method in ("CONNECT", "get", "GET / HTTP/1.1\r\n"):
        with pytest.raises(ValueError, match="method"):
            prepare(method, "http://x", {})


TEXT = st.text(st.characters(max_codepoint=0x2FFF), max_size=40)


@settings(deadline=None, max_examples=300)
@given(TEXT, TEXT | st.sampled_from(["X-A", "Host", "Cookie"]), TEXT)
def test_whatever_passes_the_checks_is_sent_exactly(path, name, value):
    try:
        url = check_url("http://example.com/" + path)
        check_header(name, value)
    except ValueError:
        return
    head = prepare("GET", url, {name: value}).head
    lines = head.split(b"\r\n")

    sent = "".join(c if c.isascii() else quote(c) for c in path.split("#")[0])
    assert lines[0] == b"GET /" + sent.encode() + b" HTTP/1.1"
    assert f"{name}: {value}".encode() in lines
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
    assert len(lines) in {4, 5}
    assert b"\0" not in head
