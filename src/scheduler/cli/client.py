"""The API as commands see it: where it is, who asks, pages, and errors as sentences."""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import msgspec
from msgspec import Raw

from scheduler import __version__, config, home
from scheduler.cli.failures import Failed, Refused, Unreached, Usage
from scheduler.masking import mask

CONNECT_S, READ_S = 5.0, 30.0
PAGE = 1000
WELL_KNOWN = ("SCHEDULER_URL", "SCHEDULER_SERVICE_ID", "SCHEDULER_TOKEN")
TRY = "is `scheduler serve` running there? `scheduler doctor` looks closer"

Params = Mapping[str, str | int | None]


# Where, and who ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connection:
    """Where the API is, and the pair that is sent to it; its token is never shown."""

    url: str
    service: str | None
    token: str | None = field(repr=False)
    source: str
    """Where the token comes from, in words."""


def find(
    file: str | None,
    url: str | None = None,
    service: str | None = None,
    token: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """Return what is meant: each of the three by its flag, else the environment, else the
    credentials file; `file` is that of the settings. Raises Usage.
    """
    source = "--token" if token else "SCHEDULER_TOKEN"
    flags = (url, service, token)
    given = [
        said or environ.get(name) or None for said, name in zip(flags, WELL_KNOWN, strict=True)
    ]
    if None in given:
        kept, where = _kept(file, needed=given[0] is None)
        if kept is not None:
            source = source if given[2] else where
            stored = (kept.url, kept.service_id, kept.token)
            given = [said or there for said, there in zip(given, stored, strict=True)]
    at, service, token = given
    if bool(service) != bool(token):
        has, lacks = ("service id", "token") if service else ("token", "service id")
        flag = "--" + lacks.replace(" ", "-")
        raise Usage(f"there is a {has} and no {lacks}: give {flag} too")
    for name, value in (("service id", service), ("token", token)):
        if value and not value.isprintable():
            raise Usage(f"the {name} holds a line end, or another character that is not seen")
    return Connection(_address(at or ""), service, token, source)


def _kept(file: str | None, *, needed: bool) -> tuple[home.Credentials | None, str]:
    """Return what the credentials file holds, and its path. Raises Usage where it is needed."""
    path = home.data_dir(config.load(file=file)) / home.CREDENTIALS
    otherwise = f"set {', '.join(WELL_KNOWN[:2])} and {WELL_KNOWN[2]}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=home.Credentials), str(path)
    except FileNotFoundError:
        why = f"{path} is not there: start `scheduler serve` once, which writes it, or {otherwise}"
    except OSError as e:
        why = (
            f"{path} cannot be read ({e.strerror}): run this as the user that `scheduler serve` "
            f"runs as, or {otherwise}"
        )
    except (msgspec.MsgspecError, UnicodeDecodeError):
        why = f"{path} does not hold url, service_id and token as JSON: mend it, or {otherwise}"
    if needed:
        raise Usage(why)
    return None, str(path)


def _address(url: str) -> str:
    try:
        split = urlsplit(url)
        fits = split.scheme in ("http", "https") and split.hostname and split.port != 0
        if "@" in split.netloc:
            raise Usage("the URL holds credentials; give --service-id and --token in their place")
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        fits = False
    if not fits or split.query or split.fragment or not url.isprintable() or " " in url:
        raise Usage(f"the URL must be like http://127.0.0.1:8080, is {mask(url)!r}")
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


# Asking ------------------------------------------------------------------------------------------


class Api:
    """The API of one server; one connection is kept, and closed at the end of `with`."""

    def __init__(self, connection: Connection) -> None:
        self.at = connection
        headers = {"User-Agent": f"scheduler-cli/{__version__}", "Accept": "application/json"}
        auth = None
        if connection.service and connection.token:
            if connection.service.isascii() and connection.token.isascii():
                # Not Basic, which belongs to a proxy where one asks for it; no underscores,
                # which proxies drop.
                headers |= {"x-service-id": connection.service, "x-token": connection.token}
            else:
                auth = httpx.BasicAuth(connection.service, connection.token)
        secure = connection.url.startswith("https:")
        # The system's certificates, which may hold a company's own; none are read for http.
        tls = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(
            headers=headers,
            auth=auth,
            verify=tls,
            trust_env=not _is_loopback(connection.url),
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        wait_s: float = READ_S,
        key: str | None = None,
    ) -> httpx.Response:
        """Return the API's answer; `wait_s` seconds at most between two of its bytes.

        `key` is an Idempotency-Key. Raises Refused for an error, and Unreached.
        """
        sent = {name: value for name, value in (params or {}).items() if value not in (None, "")}
        headers = {"Content-Type": kind} if body is not None else {}
        headers |= {"Idempotency-Key": key} if key else {}
        try:
            answer = self._http.request(
                method,
                self.at.url + path,
                params=sent or None,
                content=body,
                headers=headers,
                timeout=httpx.Timeout(wait_s, connect=CONNECT_S),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as e:
            raise Unreached(f"{self.at.url} cannot be reached ({_why(e)}): {TRY}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            maybe = "" if method == "GET" else "; what was asked may have been done all the same"
            raise Unreached(f"{self.at.url} did not answer ({_why(e)}){maybe}: {TRY}") from None
        except UnicodeEncodeError:
            raise Usage("an argument is not valid UTF-8") from None
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def get(self, path: str, params: Params | None = None) -> bytes:
        """Return the body of an answer."""
        return self.ask("GET", path, params=params).content

    def pages(
        self, path: str, params: Params, limit: int | None = None
    ) -> Iterator[tuple[list[Raw], int | None]]:
        """Yield a list page by page, as its `Link` headers lead; `limit` elements at most.

        With each page, how many there are in all, where the API says so.
        """
        query: dict[str, Any] = {**params, "count": min(limit or PAGE, PAGE)}
        left = limit
        while True:
            answer = self.ask("GET", path, params=query)
            found = self.read(answer, list[Raw])
            total = answer.headers.get("X-Total-Count", "")
            yield found[:left], int(total) if total.isdecimal() else None
            left = None if left is None else left - len(found)
            following = answer.links.get("next", {}).get("url")
            if following is None or (left is not None and left <= 0):
                return
            # Its query alone: a proxy may have the API at another path.
            query = dict(parse_qsl(urlsplit(following).query, keep_blank_values=True))

    def cursor(
        self,
        path: str,
        params: Params,
        of: type["Cursored"],
        limit: int | None = None,
        wait_s: float = READ_S,
    ) -> Iterator[Any]:
        """Yield the answers of a list that goes on at `next_cursor`; `limit` of each at most."""
        query: dict[str, Any] = {**params}
        if limit is not None:
            query["limit"] = min(limit, PAGE)
        while True:
            found = self.read(self.ask("GET", path, params=query, wait_s=wait_s), of)
            yield found
            if found.next_cursor is None:
                return
            query["cursor"] = found.next_cursor

    def read(self, answer: httpx.Response, of: type[Any]) -> Any:
        """Return what an answer says. Raises Refused for what is not the scheduler's."""
        try:
            return msgspec.json.decode(answer.content, type=of)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Refused(self._strange(answer), answer.status_code) from None

    # Errors

    def _refusal(self, answer: httpx.Response) -> Failed:
        try:
            error = msgspec.json.decode(answer.content, type=_Envelope).error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Refused(self._strange(answer), answer.status_code)
        trace = answer.headers.get("X-Trace-Id", "none")
        after = answer.headers.get("Retry-After", "")
        refused = ApiRefused(error, answer.status_code, trace, after)
        if answer.status_code == 401:
            refused.say_besides(
                f"{self.at.url} does not take these credentials ({self._who()}): check them, or "
                "make a new token with `scheduler services rotate`"
            )
        return refused

    def _who(self) -> str:
        if self.at.token is None:
            return "none were sent"
        return f"service {self.at.service}, its token from {self.at.source}"

    def _strange(self, answer: httpx.Response) -> str:
        hint = "is it the scheduler's address, or does something stand between?"
        target = answer.headers.get("Location")
        if answer.is_redirect and target:
            hint = f"it leads to {mask(target)}; give that address"
        return f"{self.at.url} answered {answer.status_code}, and not as the scheduler does: {hint}"


class Cursored(msgspec.Struct):
    """An answer that may go on."""

    next_cursor: str | None


class RunPage(Cursored):
    """A page of runs."""

    runs: list[Raw]


class Detail(msgspec.Struct):
    """What is wrong with one field."""

    field: str
    message: str


class Error(msgspec.Struct):
    """The one shape in which the API says no."""

    code: str
    message: str
    details: list[Detail] = []


class _Envelope(msgspec.Struct):
    error: Error


class ApiRefused(Refused):
    """The API's own error; `name` says later how its fields are called on the command line."""

    def __init__(self, error: Error, status: int, trace: str, retry_after: str = "") -> None:
        super().__init__("", status, error.code)
        self.error = error
        self.trace = trace
        self.retry_after = retry_after
        self.besides: list[str] = []
        self.name({})

    def say_besides(self, sentence: str) -> None:
        """Add what this side knows of it."""
        self.besides.append(sentence)
        self.name({})

    def name(self, flags: Mapping[str, str]) -> None:
        """Tell the error again, with fields by the names of their flags."""
        lines = [self.error.message]
        if self.error.details:
            many = len(self.error.details) > 1
            lines = ["these are refused:" if many else "this is refused:"]
            lines += [f"  {_flag(d.field, flags)}: {d.message}" for d in self.error.details]
        lines += [f"  {sentence}" for sentence in self.besides]
        if self.retry_after:
            lines.append(f"  try again in {self.retry_after} s")
        self.told = "\n".join([*lines, f"  trace id {self.trace}"])


def _flag(name: str, flags: Mapping[str, str]) -> str:
    """Return a field by its flag: `header.X-A` is `--header`, its part stays beside it.

    So does a place: `dates[0].to` is `--date [0].to`.
    """
    first = re.split(r"[.\[]", name, maxsplit=1)[0]
    rest = name[len(first) :].removeprefix(".")
    return flags[first] + (f" {rest}" if rest else "") if first in flags else name


def _why(error: Exception) -> str:
    return mask(str(error)) or type(error).__name__


def part(text: str) -> str:
    """Return a name as one part of a path."""
    # Two dots would be resolved on the way.
    return quote(text, safe="").replace(".", "%2E")


def encoded(fields: Mapping[str, Any] | Iterable[Any]) -> bytes:
    """Return a body. Raises Usage for text that is no text."""
    try:
        return msgspec.json.encode(fields)
    except UnicodeEncodeError:
        raise Usage("an argument is not valid UTF-8") from None
