"""A request to a target, checked and made ready to be sent many times."""

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from yarl import URL

from scheduler import masking

MAX_URL = 8192
METHODS = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"}
BREAKS_FRAMING = {
    "connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"
}  # fmt: skip
AUTHORITY = re.compile(r"(?:(\[[^\]]*\])|([^:\[\]]*))(?::([0-9]*))?")
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = re.compile(rf"(?:{LABEL}\.)*{LABEL}\.?")
ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
END_OF_AUTHORITY = re.compile(r"[/?#]")


@dataclass(slots=True, eq=False)
class Target:
    """A request made ready by `prepare`, to be sent many times."""

    method: str
    url: str
    headers: dict[str, tuple[str, str]]
    """By name in lower case: the name as written, and the value."""
    body: bytes
    follow_redirects: bool
    secret: frozenset[str]
    origin: URL
    place: str
    """`host:port`, for messages."""
    head: bytes
    """Request line and headers, each with its line end."""


def check_url(url: str) -> str:
    """Return the URL, or raise ValueError that says what would be right."""
    _split(url)
    return url


def check_header(name: str, value: str) -> None:
    """Raise ValueError where a header cannot be sent exactly as it stands (RFC 9110 5.5, 5.6.2)."""
    if not TOKEN.fullmatch(name):
        raise ValueError("a header name is made of letters, digits and !#$%&'*+-.^_`|~")
    if name.lower() in BREAKS_FRAMING or name.lower().startswith("proxy-"):
        raise ValueError(f"{name} is set by the connection itself; leave it out")
    if NOT_IN_VALUE.search(value) or not _is_encodable(value):
        raise ValueError(f"the value of {name} has a line break or another control character")
    if value != value.strip(" \t"):
        raise ValueError(f"the value of {name} begins or ends with a space; it would be lost")


def prepare(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    follow_redirects: bool = False,
    secret: Collection[str] = (),
) -> Target:
    """Make a request ready to be sent many times; of a header given twice, the last counts.

    `secret` names headers that a redirect to another origin must not carry, besides those whose
    name says so. Raises ValueError like `check_url` and `check_header`.
    """
    if method not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(sorted(METHODS))}")
    scheme, host, port, path = _split(url)
    for name, value in headers.items():
        check_header(name, value)
    given = {name.lower(): (name, value) for name, value in headers.items()}
    origin = _origin(scheme, host, port)
    place = f"{host}:{port}"
    sent = {"host": ("Host", host if port == _default_port(scheme) else place)}
    sent["accept-encoding"] = ("Accept-Encoding", "identity")
    sent |= given
    if body or method in {"POST", "PUT", "PATCH"}:
        sent["content-length"] = ("Content-Length", str(len(body)))
    head = f"{method} {path} HTTP/1.1\r\n" + header_lines(dict(sent.values()))
    names = frozenset(name.lower() for name in secret)
    return Target(method, url, given, body, follow_redirects, names, origin, place, head.encode())


def _split(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port, and path with query as they are sent."""
    if len(url) > MAX_URL:
        raise ValueError(f"a URL has at most {MAX_URL} characters")
    if re.search(r"[\x00-\x20\x7f-\x9f\s]", url) or not _is_encodable(url):
        raise ValueError("a URL has no spaces or control characters; write a space as %20")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in {"http", "https"} or not separator:
        raise ValueError("a URL begins with http:// or https://")
    found = END_OF_AUTHORITY.search(rest)
    end = found.start() if found else len(rest)
    host, port = _authority(rest[:end], _default_port(scheme))
    path = rest[end:].partition("#")[0]
    return scheme, host, port, quote(path if path.startswith("/") else "/" + path, safe=PRINTABLE)


@lru_cache(4096)
def _origin(scheme: str, host: str, port: int) -> URL:
    return URL.build(scheme=scheme, host=host.strip("[]"), port=port)


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


@lru_cache(4096)
def _authority(text: str, default_port: int) -> tuple[str, int]:
    if "@" in text:
        raise ValueError("a URL holds no credentials; put them into an Authorization header")
    match = AUTHORITY.fullmatch(text)
    if not match:
        raise ValueError("after the scheme come a host and perhaps a port, as in example.com:8080")
    port = match[3] or str(default_port)
    if len(port) > 5 or not 1 <= int(port) <= 65_535:
        raise ValueError("the port must be from 1 to 65535")
    return _host(match[1] or match[2]), int(port)


def _host(host: str) -> str:
    """Return the host in ASCII and lower case, an IPv6 address in its brackets."""
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1] if '%' not in host else '')}]"
        except ValueError:
            raise ValueError("between [ and ] stands an IPv6 address without zone") from None
    try:
        ascii_host = host if host.isascii() else URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        ascii_host = ""
    if not HOST.fullmatch(ascii_host) or len(ascii_host) > 254:
        raise ValueError("the host must be a name like example.com or an IP address")
    if ENDS_IN_NUMBER.fullmatch(ascii_host):
        try:
            ipaddress.IPv4Address(ascii_host)
        except ValueError:
            raise ValueError("an IPv4 address is written as four numbers from 0 to 255") from None
    return ascii_host.lower()


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def header_lines(headers: Mapping[str, str]) -> str:
    """Return header lines. Raises ValueError where a value would make a line of its own."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not text.count("\n") == text.count("\r") == len(headers) or "\0" in text:
        raise ValueError("a header has a line break or NUL in it")
    return text


def is_secret(target: Target, name: str) -> bool:
    """Return whether another origin must not see the header; the id for retries is none."""
    lower = name.lower()
    if lower in target.secret or lower == "webhook-signature":
        return True
    return lower != "idempotency-key" and masking.is_secret(lower)
