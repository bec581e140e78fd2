"""Which names hold secrets, and what stands in their place.

Words of any kind are read in one pass each, forwards only: nothing in here costs more than a
constant for each character, whoever wrote the text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import msgspec

MASK = "********"
SECRET = re.compile(r"^(proxy-)?authorization$|^(set-)?cookie$|token|secret|key", re.IGNORECASE)
HIDDEN = re.compile(
    r"token|secret|key|authorization|cookie|passw|passwd|passphrase|pwd|credential|signature|jwt"
    r"|session|private|bearer|csrf|xsrf|^sig$|^auth$|^pass$|^pin$|^otp$"
)
"""Of a name in lower case, without what stands between its words."""


def is_secret(name: str) -> bool:
    """Say whether a header of this name is masked wherever it is shown."""
    return SECRET.search(name) is not None


def is_hidden(name: str) -> bool:
    """Say whether a value of this name is masked in logs: a header's, a field's, a parameter's.

    Wider than `is_secret`. The name may be percent-encoded, or escaped as in JSON.
    """
    return _is_hidden(name) if len(name) < 100 else _is_hidden.__wrapped__(name)


@lru_cache(4096)
def _is_hidden(name: str) -> bool:
    plain = unquote(ESCAPED.sub(lambda found: chr(int(found[1], 16)), name))
    return HIDDEN.search(BETWEEN.sub("", plain.lower())) is not None


ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
BETWEEN = re.compile(r"[^a-z0-9]+")

# URLs ---------------------------------------------------------------------------------------------

USERINFO = re.compile(r"(?<=//)[^\s/]*@")
"""Up to the last @ before the path: who writes a password does not always encode it."""
PARAMETER = re.compile(r"([?&;#])([^=&;?#\s]++)=[^&;\s'\"]++")
ADDRESS = re.compile(r"(?<=//)\S*+")
ASKED = re.compile(r"[?#]")


def mask(text: str) -> str:
    """Return text without user information and secret parameters in its URLs."""
    return PARAMETER.sub(_parameter, USERINFO.sub(f"{MASK}@", text))


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if is_hidden(unquote_plus(found[2])) else found[0]


def _address(found: re.Match[str]) -> str:
    """Leave a URL its host and path: what it asks is not for the log.

    Who writes a password does not always encode it: it may hold any sign, and ends at the last @.
    """
    before, at, rest = found[0].rpartition("@")
    if at and ASKED.search(before):  # or the @ is part of what it asks
        return MASK
    asked = ASKED.search(rest)
    shown = rest if asked is None else f"{rest[: asked.end()]}{MASK}"
    return f"{MASK}@{shown}" if at else shown


# Words --------------------------------------------------------------------------------------------

PLAIN = re.compile(r"[A-Za-z0-9./-]*\Z")
"""What holds no secret that words alone could tell."""
PAIR = re.compile(
    r"(?<![\w%.\-\\$])([\w%.\-\\$]++)"
    r"(?:[\"']\s*+,\s*+(?=b?\\*[\"'])|[\"']?\s*+(?::|=>?))"
)
"""A name, and what stands between it and its value: `name=`, `"name":`, `('name', `."""
OPENING = re.compile(r"\s*+[bBuUrRfF]{0,2}(\\*+)([\"'])")
QUOTES = {
    '"': re.compile(r'(?<!\\)(\\*+)"'),
    "'": re.compile(r"(?<!\\)(\\*+)'"),
}
BRACKET = re.compile(r"\s*+[\[{(]")
BRACKETS = re.compile(r"[\[{(]|[\]})]")
PLACEHOLDER = re.compile(r"\s?\$\d{1,3}(?=[\s,):]|\Z)|\s?\*{8}")
"""Of a statement: what stands where a value comes. And what is masked already."""
TO_WORD = re.compile(r"\s*+[^\s&]*+")
TO_AND = re.compile(r"[^&\r\n]*+")
TO_LINE = re.compile(r"\s*+[^\r\n]*+")
WHOLE = re.compile(r"authorization|cookie", re.IGNORECASE)
"""Names whose values have several words."""
INNOCENT = re.compile(
    r"\s*+(?:bearer|basic)\s++(?:with|or|and|token|credentials|realm=\S*+)(?=[\s,.;]|\Z)"
    r"|\s*+(?:bearer|basic)(?=[,.;]|\s*+\Z)",
    re.IGNORECASE,
)
"""What our own sentences say of a header, and a challenge."""
SCHEME = re.compile(
    r"\b(bearer|basic)((?:[ \t]|%20)++)"
    r"(?!realm=|(?:with|or|and|credentials)(?:\s|\Z))[^\s\"'&<>]++",
    re.IGNORECASE,
)
SIGNING = re.compile(r"whsec_[\w+/=%-]++")
JWT = re.compile(r"(?<![\w-])eyJ[\w-]++\.[\w-]++(?:\.[\w-]*+)?")
PEM = re.compile(
    r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----).*?(?:-----END[^-]*+-----|\Z)", re.DOTALL
)
OUR_OWN: set[str] = set()
"""Secrets that this process knows, as they are and percent-encoded."""
SHORT = 6
"""A secret of so few characters is part of too many words."""


def know(secrets: Iterable[str]) -> None:
    """Have these masked in words from now on, wherever they stand."""
    for secret in secrets:
        if len(secret) > SHORT:
            OUR_OWN.update((secret, quote(secret, safe=""), quote(secret)))


def mask_words(text: str, *, body: bool = False) -> str:
    """Return words as they may be logged: values of secret names, credentials and queries masked.

    With `body` they are a request's that could not be parsed: rather too much is masked.
    """
    for secret in OUR_OWN:
        if secret in text:
            text = text.replace(secret, MASK)
    if "eyJ" in text:
        text = JWT.sub(MASK, text)
    if PLAIN.match(text):
        return text
    if "PRIVATE KEY" in text:
        text = PEM.sub(rf"\1{MASK}", text)
    text = _pairs(text, body=body)
    text = SCHEME.sub(rf"\1\2{MASK}", text)
    if "//" in text:
        text = ADDRESS.sub(_address, text)
    return SIGNING.sub(f"whsec_{MASK}", text)


def _pairs(text: str, *, body: bool) -> str:
    parts, done, skip, named = [], 0, 0, -NEAR
    for found in PAIR.finditer(text):
        if found.start() < skip:
            continue
        name, at = found[1], found.end()
        said = NAMED.match(text, at) if name.lower() in ("key", "name") else None
        if said is not None and is_hidden(said[1]):
            named = skip = said.end()
            continue
        paired = _is_value(name) and found.start() - named < NEAR
        if not (paired or is_hidden(name) or (body and _is_sent(name))):
            continue
        skip = _end_of_value(text, at, found[0], body=body)
        if skip > at:
            parts += [text[done:at], MASK]
            done = skip
    return "".join([*parts, text[done:]]) if parts else text


NAMED = re.compile(r"\s*+\\{0,3}+[\"']([\w-]{1,64}+)\\{0,3}+[\"']")
NEAR = 20
"""So far apart are the halves of `"key": "Authorization", "value": "..."` at most."""


SENT = {
    "payload", "body", "reqbody", "env", "header", "headers", "headervalue", "value", "val",
    "command", "curl",
}  # fmt: skip


def _is_sent(name: str) -> bool:
    """Say whether a field holds what is sent to a target: its owner's, and nobody else's."""
    return BETWEEN.sub("", name.lower()) in SENT


def _end_of_value(text: str, at: int, before: str, *, body: bool) -> int:
    """Return where the value that begins at `at` ends; `at` itself where there is none to mask."""
    opening = OPENING.match(text, at)
    if opening is not None:
        return _end_of_quoted(text, opening)
    if PLACEHOLDER.match(text, at) or INNOCENT.match(text, at):
        return at
    bracket = BRACKET.match(text, at)
    if bracket is not None:
        return len(text) if body else _end_of_bracketed(text, bracket.end() - 1)
    if body:
        kind = TO_AND if before.endswith("=") else TO_LINE
    else:
        kind = TO_LINE if WHOLE.search(before) else TO_WORD
    found = kind.match(text, at)
    return found.end() if found else at


def _end_of_bracketed(text: str, at: int) -> int:
    """Return the end of the line in which the bracket at `at` is closed; of all, where it is not.

    Brackets within quotes count, too: then there is more than one thinks, and more is masked.
    """
    depth = 0
    for found in BRACKETS.finditer(text, at):
        depth += 1 if found[0] in "[{(" else -1
        if not depth:
            line = text.find("\n", found.end())
            return len(text) if line < 0 else line
    return len(text)


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """Return the end of a quoted value, at whatever depth of escaping; of all, where it is open.

    A quote inside has more backslashes than the one that opens: n of them make 2n + 1 one level
    further in, so that the one that closes has n modulo 2n + 2.
    """
    depth = len(opening[1])
    for found in QUOTES[opening[2]].finditer(text, opening.end()):
        if len(found[1]) % (2 * depth + 2) == depth:
            return found.end()
    return len(text)


# Values -------------------------------------------------------------------------------------------

DEPTH_MOST = 20
NODES_MOST = 2000
"""What of a value is looked at; the rest is left out."""
TEXT_MOST = 64 << 10
LEFT_OUT = "..."
HARMLESS = re.compile(
    r"^(accept(-[a-z]+)?|cache-control|connection|content-(encoding|length|type)|host|user-agent)$"
)
"""Headers of a task whose values are shown; of any other nobody knows what it holds."""


def mask_value(value: Any, *, body: bool = False) -> Any:
    """Return a value as it may be logged, in JSON's types; nested ones to any depth that is shown.

    With `body` it is a request's: what a task sends to its target is masked too.
    """
    return _Walk(body=body).shown(value, 0)


class _Walk:
    def __init__(self, *, body: bool) -> None:
        self._body = body
        self._left = NODES_MOST

    def shown(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value[:TEXT_MOST])
        if value is None or isinstance(value, (bool, int, float)):
            return value
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MOST:
            return LEFT_OUT
        if isinstance(value, msgspec.Struct):
            value = {name: getattr(value, name, None) for name in value.__struct_fields__}
        if isinstance(value, Mapping):
            return dict(self._fields(value, depth))
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, depth)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return mask_bytes(bytes(value))
        return mask_words(str(value)[:TEXT_MOST])

    def _text(self, text: str) -> str:
        return mask_words(text, body=self._body and JSON.match(text) is not None)

    def _items(self, values: Iterable[Any], depth: int) -> Any:
        """Mask a list; a name and what belongs to it as such: so headers come over the wire."""
        shown = [self.shown(value, depth + 1) for value in islice(values, max(self._left, 0))]
        if 2 <= len(shown) <= 3 and isinstance(shown[0], str) and is_hidden(shown[0]):
            return [shown[0], *map(_hidden, shown[1:])]
        return shown

    def _fields(self, of: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
        pair = _named(of)
        for key, value in of.items():
            name = str(key)[:TEXT_MOST]
            self._left -= 1
            if self._left < 0:
                yield LEFT_OUT, LEFT_OUT
                return
            if pair is not None and name.lower() in ("key", "name"):
                yield name, self.shown(value, depth + 1)
            elif is_hidden(name) or (pair is not None and is_hidden(pair) and _is_value(name)):
                yield mask_words(name), _hidden(value)
            elif self._body and BETWEEN.sub("", name.lower()) in ("header", "headers"):
                yield name, self._header(value)
            elif self._body and _is_sent(name):
                yield name, _hidden(value)
            else:
                yield mask_words(name), self.shown(value, depth + 1)

    def _header(self, value: Any) -> Any:
        """Mask the headers of a task, an object or a list of names and values."""
        if isinstance(value, Mapping):
            return {mask_words(str(k)): _harmless(str(k), v) for k, v in value.items()}
        if isinstance(value, list):
            names = [_named(each) if isinstance(each, Mapping) else None for each in value]
            return [MASK if name is None else {mask_words(name): MASK} for name in names]
        return _hidden(value)


def _is_value(name: str) -> bool:
    return name.lower() in ("value", "val")


def _named(of: Mapping[Any, Any]) -> str | None:
    """Return the name in `{"key": name, "value": ...}` or `{"name": name, "value": ...}`."""
    plain = {str(key).lower(): value for key, value in of.items()} if len(of) < 10 else {}
    if "value" not in plain and "val" not in plain:
        return None
    name = plain.get("key", plain.get("name"))
    return name if isinstance(name, str) else None


def _harmless(name: str, value: Any) -> Any:
    plain = isinstance(value, str) and HARMLESS.match(name.lower())
    return mask_words(value) if plain else _hidden(value)


def _hidden(value: Any) -> Any:
    """Return what stands for a secret; that there is none is none."""
    return value if value is None or value == "" or value is True or value is False else MASK


def mask_bytes(value: bytes) -> str:
    """Return bytes as words, where they are any, else how many they are."""
    try:
        text = value[:TEXT_MOST].decode()
    except UnicodeDecodeError:
        return f"<{len(value)} bytes>"
    return mask_words(text)


# Bodies -------------------------------------------------------------------------------------------


def mask_body(raw: bytes, kind: str, *, whole: bool = True) -> Any:
    """Return a request's body as it may be logged: JSON as it is nested, or as text, or its size.

    `kind` is its Content-Type; `whole` says that `raw` is all of it.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _form(raw)
    if whole:
        try:
            return mask_value(msgspec.json.decode(raw), body=True)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
    size = f"<{len(raw)} bytes{f' of {mask_words(kind)}' if kind else ''}>"
    if kind and not TEXTUAL.search(kind):
        return size
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        if whole or e.end < len(raw) - 3:
            return size
        text = raw[: e.start].decode()  # it is cut within a letter
    if not whole:  # and maybe within an address, between a password and the @ that tells
        last = max(text.rfind(c) for c in ' \n",&')
        text = text[:last] if "//" in text[last:] else text
    return mask_words(text, body=True) if JSON.match(text) else size


TEXTUAL = re.compile(r"json|text/plain|yaml")
JSON = re.compile(r"\s*+[\[{\"]")
"""How JSON begins; of any other text, XML or YAML or a mail, nobody knows where a secret ends."""


PROOF = "form"
"""What the forms of our pages send along to show that they are ours."""


def _form(raw: bytes) -> str:
    pairs = raw.decode("latin-1").split("&")[:NODES_MOST]
    return "&".join(_pair(pair) for pair in pairs)


def _pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    plain = unquote_plus(name)
    # A call's own fields have names of their own: `header:X-Account`, `body:note`.
    if plain == PROOF or is_hidden(plain) or _is_sent(plain) or _is_sent(plain.partition(":")[0]):
        return f"{mask_words(name)}={MASK}"
    return f"{mask_words(name)}{equals}{mask_words(unquote_plus(value), body=True)}"
