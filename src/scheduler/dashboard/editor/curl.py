"""A curl command that someone pasted, as the call that it makes; and what of it cannot be kept."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import get_args
from urllib.parse import quote_plus

import msgspec

from scheduler.actions.http import Method
from scheduler.dashboard.editor import shell

MOST = 100_000
"""Characters of a command."""
FORM = "application/x-www-form-urlencoded"
VALUED = {
    "-X": "--request", "-H": "--header", "-d": "--data", "-u": "--user", "-b": "--cookie",
    "-A": "--user-agent", "-e": "--referer", "-m": "--max-time", "-F": "--form", "-o": "--output",
    "-T": "--upload-file", "-x": "--proxy", "-E": "--cert", "-c": "--cookie-jar",
    "-w": "--write-out", "-K": "--config", "-D": "--dump-header", "-r": "--range",
    "-z": "--time-cond", "-U": "--proxy-user", "-y": "--speed-time", "-Y": "--speed-limit",
    "-C": "--continue-at", "-P": "--ftp-port", "-Q": "--quote", "-t": "--telnet-option",
}  # fmt: skip
"""Short options that a value follows."""
FLAGS = {
    "-L": "--location", "-k": "--insecure", "-G": "--get", "-I": "--head", "-s": "--silent",
    "-S": "--show-error", "-v": "--verbose", "-i": "--include", "-f": "--fail", "-g": "--globoff",
    "-#": "--progress-bar", "-N": "--no-buffer", "-O": "--remote-name",
    "-J": "--remote-header-name", "-n": "--netrc", "-q": "--disable", "-Z": "--parallel",
    "-a": "--append", "-l": "--list-only", "-j": "--junk-session-cookies", "-p": "--proxytunnel",
    "-0": "--http1.0", "-1": "--tlsv1", "-4": "--ipv4", "-6": "--ipv6", "-R": "--remote-time",
}  # fmt: skip
"""Short options without a value."""
LONG_VALUED = {
    *VALUED.values(), "--data-raw", "--data-binary", "--data-ascii", "--data-urlencode", "--json",
    "--url", "--url-query", "--retry", "--oauth2-bearer", "--form-string", "--connect-timeout",
    "--resolve", "--connect-to", "--interface", "--limit-rate", "--max-redirs", "--cacert",
    "--capath", "--key", "--key-type", "--cert-type", "--ciphers", "--tls-max", "--proto",
    "--proto-redir", "--noproxy", "--socks5", "--socks5-hostname", "--unix-socket", "--retry-delay",
    "--retry-max-time", "--keepalive-time", "--dns-servers", "--trace", "--trace-ascii", "--stderr",
    "--aws-sigv4", "--max-filesize", "--output-dir", "--create-file-mode", "--pinnedpubkey",
    "--variable", "--expand-url", "--expand-data", "--expand-header", "--request-target",
    "--netrc-file", "--pass", "--proxy-header", "--preproxy", "--alt-svc", "--hsts", "--ech",
}  # fmt: skip
HARMLESS = {
    "--silent", "--show-error", "--verbose", "--include", "--fail", "--fail-with-body", "--globoff",
    "--progress-bar", "--no-progress-meter", "--no-buffer", "--compressed", "--http1.1", "--http2",
    "--http2-prior-knowledge", "--http3", "--tlsv1.2", "--tlsv1.3", "--no-keepalive", "--ipv4",
    "--path-as-is", "--disable", "--retry-connrefused", "--retry-all-errors", "--styled-output",
    "--tcp-nodelay", "--no-alpn", "--parallel",
}  # fmt: skip
"""Options that change nothing about what is sent, or what a task does anyway."""


class Parsed(msgspec.Struct):
    """A call as a curl command makes it."""

    url: str = ""
    method: Method | None = None
    """None for what is usual: POST with a payload, else GET."""
    headers: list[tuple[str, str]] = msgspec.field(default_factory=list)
    payload: str | None = None
    follow_redirects: bool = False
    timeout_seconds: float | None = None
    max_retries: int | None = None
    notes: list[str] = msgspec.field(default_factory=list)
    """Sentences about what is not kept of it."""


def parse(text: str) -> Parsed:
    """Return the call of a curl command; what cannot be kept of it is in the notes."""
    if len(text) > MOST:
        return Parsed(notes=[f"the command is too long: {MOST:,} characters are read at most"])
    if re.match(r"\s*(Invoke-WebRequest|\$session\s*=|fetch\()", text):
        return Parsed(
            notes=["this is no curl command; in the browser choose Copy as cURL (bash) or (cmd)"]
        )
    read = shell.words(text)
    words = read.words
    while words and words[0] in ("$", "%", ">", "sudo", "time"):
        words = words[1:]
    if words and re.fullmatch(r"(?:.*[/\\])?curl(?:\.exe)?", words[0]):
        words = words[1:]
    elif words and not words[0].startswith(("-", "http://", "https://")):
        return Parsed(notes=["this is no curl command: it begins with curl"])
    command = _Command(read.notes)
    command.read(words)
    return command.made()


class _Command:
    def __init__(self, notes: list[str]) -> None:
        self.notes = list(notes)
        self.url = ""
        self.method: str | None = None
        self.headers: list[tuple[str, str | None]] = []
        """In their order; None for one that is not to be sent."""
        self.data: list[str] = []
        self.query: list[str] = []
        self.json: list[str] = []
        self.cookies: list[str] = []
        self.own: dict[str, str] = {}
        """Headers that an option of their own sets."""
        self.get = self.head = self.follow = False
        self.timeout_s: float | None = None
        self.retries: int | None = None
        self._takes: dict[str, Callable[[str], None]] = {
            "--request": self._request,
            "--header": self._header,
            "--data": self._data,
            "--data-ascii": self._data,
            "--data-binary": self._data,
            "--data-raw": self.data.append,
            "--data-urlencode": self._encoded,
            "--url-query": self._url_query,
            "--json": self._json,
            "--user": self._user,
            "--oauth2-bearer": lambda v: self.own.update({"Authorization": f"Bearer {v}"}),
            "--cookie": self._cookie,
            "--user-agent": lambda v: self.own.update({"User-Agent": v}),
            "--referer": lambda v: self.own.update({"Referer": v.removesuffix(";auto")}),
            "--url": self._url,
            "--max-time": self._max_time,
            "--retry": self._retry,
            "--form": self._form,
            "--form-string": self._form,
        }

    def read(self, words: list[str]) -> None:
        left = iter(words)
        for word in left:
            if word == "--":
                for each in left:
                    self._url(each)
            elif word.startswith("--") and len(word) > 2:
                self._long(word, left)
            elif word.startswith("-") and len(word) > 1:
                self._short(word, left)
            elif word == "curl":
                self.notes.append("there are several commands; only the first is read")
                return
            else:
                self._url(word)

    def _long(self, word: str, left: Iterator[str]) -> None:
        name, equals, value = word.partition("=")
        if equals and name in LONG_VALUED:
            self._valued(name, value)
        elif word in LONG_VALUED:
            self._valued(word, next(left, None))
        else:
            self._flag(word)

    def _short(self, word: str, left: Iterator[str]) -> None:
        for at in range(1, len(word)):
            short = f"-{word[at]}"
            if short in VALUED:
                rest = word[at + 1 :]
                self._valued(VALUED[short], rest or next(left, None))
                return
            self._flag(FLAGS.get(short, short))

    def _valued(self, name: str, value: str | None) -> None:
        take = self._takes.get(name)
        if value is None:
            self.notes.append(f"{name} is left out: its value is missing")
        elif take is None:
            self.notes.append(f"{name} {_short(value)} is left out: a task has nothing like it")
        else:
            take(value)

    def _flag(self, name: str) -> None:
        if name == "--location":
            self.follow = True
        elif name == "--get":
            self.get = True
        elif name == "--head":
            self.head = True
        elif name == "--insecure":
            self.notes.append("-k is left out: the certificate of a target is always checked here")
        elif name == "--location-trusted":
            self.follow = True
            self.notes.append("--location-trusted is -L here: secret headers go to no other host")
        elif name not in HARMLESS:
            self.notes.append(f"{_short(name)} is left out: a task has nothing like it")

    # Options with a value

    def _url(self, value: str) -> None:
        if self.url:
            self.notes.append(f"a task calls one address; {_short(value)} is left out")
        elif "://" in value:
            self.url = value
        else:
            self.url = f"http://{value}"
            self.notes.append("the address names no scheme; curl takes http://")

    def _request(self, value: str) -> None:
        if value.upper() in get_args(Method):
            self.method = value.upper()
        else:
            known = ", ".join(get_args(Method))
            self.notes.append(f"-X {_short(value)} is left out: a task knows {known}")

    def _header(self, value: str) -> None:
        if value.startswith("@"):
            self.notes.append(f"-H {_short(value)} is left out: it names a file of your machine")
            return
        name, colon, rest = value.partition(":")
        if colon:
            self.headers.append((name.strip(), rest.strip() or None))
        elif value.rstrip().endswith(";"):
            self.headers.append((value.rstrip()[:-1].strip(), ""))
        else:
            self.notes.append(f"-H {_short(value)} is left out: it has no colon")

    def _data(self, value: str) -> None:
        if value.startswith("@"):
            self.notes.append(f"the data in the file {_short(value[1:])} is left out: paste it in")
        else:
            self.data.append(value)

    def _encoded(self, value: str) -> None:
        made = self._percent(value)
        if made is not None:
            self.data.append(made)

    def _url_query(self, value: str) -> None:
        made = value[1:] if value.startswith("+") else self._percent(value)
        if made is not None:
            self.query.append(made)

    def _percent(self, value: str) -> str | None:
        """Return what curl makes of `content`, `=content`, `name=content`; None for a file's."""
        found = re.match(r"[^=@]*@", value)
        if found and "=" not in value[: found.end()]:
            place = value[found.end() :]
            self.notes.append(f"the data in the file {_short(place)} is left out: paste it in")
            return None
        name, equals, content = value.partition("=")
        if not equals:
            return quote_plus(value, safe="-._~").replace("+", "%20")
        encoded = quote_plus(content, safe="-._~").replace("+", "%20")
        return f"{name}={encoded}" if name else encoded

    def _json(self, value: str) -> None:
        if value.startswith("@"):
            self._data(value)
        else:
            self.json.append(value)

    def _user(self, value: str) -> None:
        if ":" not in value:
            self.notes.append("-u names no password, and curl would ask for it; it is left empty")
            value += ":"
        encoded = base64.b64encode(value.encode()).decode()
        self.own["Authorization"] = f"Basic {encoded}"

    def _cookie(self, value: str) -> None:
        if "=" in value:
            self.cookies.append(value)
        else:
            self.notes.append(f"-b {_short(value)} is left out: it names a file of your machine")

    def _max_time(self, value: str) -> None:
        try:
            self.timeout_s = float(value)
        except ValueError:
            self.notes.append(f"--max-time {_short(value)} is left out: it is no number")

    def _retry(self, value: str) -> None:
        if value.isascii() and value.isdecimal() and len(value) < 10:
            self.retries = int(value)
        else:
            self.notes.append(f"--retry {_short(value)} is left out: it is no whole number")

    def _form(self, value: str) -> None:
        self.notes.append(
            f"-F {_short(value)} is left out: a form of parts (multipart) is a payload "
            "to be written out"
        )

    # What it makes

    def made(self) -> Parsed:
        payload: str | None = None
        if self.json:
            payload = "".join(self.json)
        if self.data:
            joined = "&".join(self.data)
            payload = joined if payload is None else f"{payload}&{joined}"
        query, sends = list(self.query), payload is not None
        if self.get and payload is not None:
            query.append(payload)
            payload = None
        if not self.url:
            self.notes.append("the command names no address")
        if payload is not None and (self.method or "POST") in ("GET", "HEAD"):
            self.notes.append(f"a {self.method} with a payload is unusual; it is kept as it is")
        return Parsed(
            url=_asking(self.url, query),
            method=self._method(payload),
            headers=self._headers(sends and not self.get),
            payload=payload or None,
            follow_redirects=self.follow,
            timeout_seconds=self.timeout_s,
            max_retries=self.retries,
            notes=list(dict.fromkeys(self.notes)),
        )

    def _method(self, payload: str | None) -> Method | None:
        if self.method is not None:
            return self.method  # type: ignore[return-value]
        if self.head:
            return "HEAD"
        # Of an empty payload a task makes none, and would then send GET.
        return "POST" if payload == "" else None

    def _headers(self, sends: bool) -> list[tuple[str, str]]:  # noqa: FBT001
        usual = dict(self.own)
        if self.cookies:
            usual["Cookie"] = "; ".join(self.cookies)
        if self.json:
            usual |= {"Content-Type": "application/json", "Accept": "application/json"}
        elif sends:
            usual["Content-Type"] = FORM
        said = {name.lower() for name, _ in self.headers}
        found = [(name, value) for name, value in usual.items() if name.lower() not in said]
        kept: dict[str, tuple[str, str]] = {}
        for name, value in self.headers:
            if value is None or not name:
                continue
            before = kept.get(name.lower())
            if before is not None:  # as one line it means the same (RFC 9110, 5.3)
                between = "; " if name.lower() == "cookie" else ", "
                kept[name.lower()] = (name, f"{before[1]}{between}{value}")
            else:
                kept[name.lower()] = (name, value)
        return [*kept.values(), *found]


def _asking(url: str, query: list[str]) -> str:
    if not query:
        return url
    before, hash_, rest = url.partition("#")
    return f"{before}{'&' if '?' in before else '?'}{'&'.join(query)}{hash_}{rest}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."
