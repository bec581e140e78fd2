"""From an operation of a client and what it is called with to the request that is sent."""

import base64
from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec

from scheduler.documents.addresses import SEND_URL, address, base, expressions
from scheduler.documents.bodies import body
from scheduler.documents.client import Operation, Parameter, Scheme
from scheduler.documents.messages import Request
from scheduler.documents.styles import (
    WRITTEN_MOST,
    WrongCall,
    decoded,
    deep,
    encoded,
    in_path,
    missing,
    pairs,
    plain,
    reserved,
    shape_of,
    shaped,
    simple,
    within,
)
from scheduler.target import check_header, check_url

__all__ = ["Arguments", "WrongCall", "build", "merged"]

Headers = dict[str, tuple[str, str]]
"""By name in lower case: the name as written, and the value."""
OF_THE_BODY = {"accept", "authorization", "content-type"}
"""Header parameters of these names are not looked at (OpenAPI 3.1, 4.8.12.2)."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation is called with; `read` makes it of JSON texts."""

    headers: dict[str, str] = msgspec.field(default_factory=dict)
    query: dict[str, Any] = msgspec.field(default_factory=dict)
    path: dict[str, Any] = msgspec.field(default_factory=dict)
    body: bytes | None = None
    """JSON."""
    url: str | None = None
    """Wins over the servers of the document."""

    @classmethod
    def read(
        cls,
        *,
        headers: dict[str, str],
        query_params: str | None = None,
        url_params: str | None = None,
        req_body: str | None = None,
        url: str | None = None,
    ) -> Self:
        """Return what the JSON texts of an action hold, numbers as written. Raises WrongCall."""
        return cls(
            headers=headers,
            query=_object("query_params", query_params),
            path=_object("url_params", url_params),
            body=None if req_body is None else req_body.encode(),
            url=url,
        )


def _object(name: str, text: str | None) -> dict[str, Any]:
    value = decoded(name, text) if text else {}
    if not isinstance(value, dict | None):
        raise WrongCall(f"{name} must be an object")
    return value or {}


def build(
    operation: Operation, arguments: Arguments, *, headers: dict[str, str], url: str | None
) -> Request:
    """Return the request of a call. Raises WrongCall.

    `headers` and `url` are the spec's own; those of the arguments win. A parameter gets its value
    from where it belongs: `query`, `path`, or the merged headers. Parameters in headers and cookies
    are also looked for in `query`, and those in cookies among the headers, under their names. What
    a security scheme puts into the query or a cookie is taken from a header of its name, as is any
    value of a scheme from a header that is called like the scheme; without one, nothing is sent.
    A default is sent where a required parameter is not given; the others are the server's business.
    In `query`, what the document does not name is sent as it is; in `path` it has no place.
    """
    if operation.refused and not (arguments.url and operation.refused.endswith(SEND_URL)):
        raise WrongCall(operation.refused)
    call = _Call(operation, arguments, merged(headers, arguments.headers))
    try:
        request = call.request(url)
    except UnicodeEncodeError:
        raise WrongCall("a value has half a surrogate pair in it; it must be text") from None
    except ValueError:
        raise WrongCall("a number has more than 4300 digits; send it as text") from None
    _check(request)
    return request


def _check(request: Request) -> None:
    """Raise WrongCall where a request could not be sent as it stands."""
    try:
        check_url(request.url)
    except ValueError as error:
        raise WrongCall(f"url: {error}") from None
    try:
        for name, value in request.headers:
            check_header(name, value)
    except ValueError as error:
        raise WrongCall(f"headers: {error}") from None


def merged(*headers: dict[str, str]) -> Headers:
    """Return headers with later ones in place of earlier ones of the same name."""
    return {name.lower(): (name, value) for each in headers for name, value in each.items()}


class _Call:
    """A request in the making."""

    def __init__(self, operation: Operation, arguments: Arguments, headers: Headers) -> None:
        self.operation = operation
        self.arguments = arguments
        self.headers = headers
        self.query = dict(arguments.query)
        self.pairs: list[str] = []
        self.cookies: list[str] = []
        self.path: dict[str, str] = {}
        self.left = WRITTEN_MOST

    def request(self, url: str | None) -> Request:
        operation = self.operation
        self._secure()
        for parameter in operation.parameters:
            self._place(parameter)
        for name in expressions(operation.path):
            if name not in self.path:
                self._place(Parameter(name=name, in_="path", required=True, style="simple"))
        for name, value in self.query.items():
            self._write(self.pairs, _unnamed(name, value))
        where = base(operation.servers, given=self.arguments.url, url=url)
        found = address(where, operation.path, self.path, self.pairs)
        content = self.headers.get("content-type")
        kind, written = body(operation, self.arguments.body, content and content[1])
        if kind:
            self.headers["content-type"] = (content[0] if content else "Content-Type", kind)
        if self.cookies:
            name, value = self.headers.get("cookie", ("Cookie", ""))
            self.headers["cookie"] = (name, "; ".join([*filter(None, [value]), *self.cookies]))
        return Request(operation.method, found, list(self.headers.values()), written)

    # Parameters

    def _place(self, parameter: Parameter) -> None:
        if (
            parameter.in_ == "header"
            and parameter.name.lower() in OF_THE_BODY | self.headers.keys()
        ):
            return
        value = self._given(parameter)
        if parameter.in_ == "cookie" and parameter.name in self._sent_cookies():
            return
        shape = shape_of(parameter, value)
        if shape is None and parameter.required:
            value = parameter.default
            shape = shape_of(parameter, value)
            if shape is None:
                raise missing(parameter.name)
        if shape is None:
            return
        name, style, explode = parameter.name, parameter.style, parameter.explode
        encode = reserved if parameter.allow_reserved else encoded
        if parameter.in_ == "path":
            self.path[name] = in_path(parameter, shape)
            if not self.path[name]:
                raise WrongCall(f"{name} must not be empty: it is a part of the path")
        elif parameter.in_ == "query":
            self._write(self.pairs, pairs(name, style, value, shape, encode, explode=explode))
        elif parameter.in_ == "cookie":
            self._write(self.cookies, pairs(name, style, value, shape, encoded, explode=explode))
        else:
            self.headers[name.lower()] = (name, simple(shape, plain, explode=explode))

    def _write(self, to: list[str], written: Iterator[str]) -> None:
        begun = len(to)
        to += within(self.left, written, "query_params")
        self.left -= sum(map(len, to[begun:]))

    def _given(self, parameter: Parameter) -> Any:
        name = parameter.name
        if parameter.in_ == "path":
            return self.arguments.path.get(name)
        if parameter.in_ == "query":
            return self.query.pop(name, None)
        if (
            parameter.in_ == "cookie"
            and name.lower() in self.headers.keys() - self._named_headers()
        ):
            return self.headers.pop(name.lower())[1]
        if any(each.in_ == "query" and each.name == name for each in self.operation.parameters):
            return None
        return self.query.pop(name, None)

    def _sent_cookies(self) -> set[str]:
        name_and_value = self.headers.get("cookie", ("", ""))[1].split(";")
        return {each.partition("=")[0].strip() for each in name_and_value}

    # Security

    def _schemes(self) -> Iterable[tuple[str, Scheme]]:
        for alternative in self.operation.security:
            yield from alternative.items()

    def _named_headers(self) -> set[str]:
        """Return what has to stay a header."""
        named = {each.name.lower() for each in self.operation.parameters if each.in_ == "header"}
        named |= {each.name.lower() for _, each in self._schemes() if each.in_ == "header"}
        return named | {"content-type", "cookie"}

    def _secure(self) -> None:
        for called, scheme in self._schemes():
            if scheme.kind == "apiKey" and scheme.in_ != "header":
                self._secure_elsewhere(called, scheme)
            elif scheme.kind != "other" and scheme.name.lower() not in self.headers:
                value = self._taken(called)
                if value is not None:
                    self.headers[scheme.name.lower()] = (scheme.name, _credentials(scheme, value))

    def _secure_elsewhere(self, called: str, scheme: Scheme) -> None:
        value = self._taken(scheme.name, called)
        if value is None:
            return
        if scheme.in_ == "query":
            self.query.setdefault(scheme.name, value)
        elif scheme.name not in self._sent_cookies():
            self.cookies.append(f"{encoded(scheme.name)}={encoded(value)}")

    def _taken(self, *names: str) -> str | None:
        """Return the value of the first header of these names; none of them is sent as one."""
        free = self.headers.keys() - self._named_headers()
        found = dict.fromkeys(map(str.lower, names))
        values = [self.headers.pop(each)[1] for each in found if each in free]
        return values[0] if values else None


def _credentials(scheme: Scheme, value: str) -> str:
    """Return the value of an Authorization header (RFC 7617, RFC 6750), of what may be one."""
    if scheme.kind == "apiKey" or value.lower().startswith(f"{scheme.kind} "):
        return value
    if scheme.kind == "basic":
        text = base64.b64encode(value.encode()).decode() if ":" in value else value
        return f"Basic {text}"
    return f"Bearer {value}"


def _unnamed(name: str, value: Any) -> Iterator[str]:
    """Return what the document does not name: arrays repeated, objects in brackets."""
    shape = shaped(value)
    if shape is None:
        return iter(())
    if isinstance(value, dict):
        return deep(encoded(name), value, encoded, repeated=True)
    return pairs(name, "form", value, shape, encoded, explode=True)
