"""Unpacking: answers that come compressed, inflated up to a limit (RFC 9110, 8.4.1)."""

import math
import zlib
from collections.abc import Callable

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
"""What zlib calls the three ways in which deflated bytes are wrapped."""
RATIO = 1032
"""What a byte of deflated ones may stand for."""
MOST_CODINGS = 3
MOST_MEMBERS = 64
"""Of one gzip body (RFC 1952, 2.2); programs write one."""


class PackedError(Exception):
    """A body cannot be unpacked: the message says why, and whether another try may help."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


def codings(header: str) -> list[str]:
    """Return what a Content-Encoding names, in the order in which it was applied."""
    found = [part.strip(" \t").lower() for part in header.split(",")]
    return [each for each in found if each not in ("", "identity")]


def most_of(size: int, header: str, limit: int) -> int:
    """Return how many bytes `unpack` may make of so many."""
    return min(size * math.prod(RATIO for _ in codings(header)), limit)


def unpack(body: bytes, header: str, limit: int) -> bytes:
    """Return a body inflated, or just over `limit` bytes of it. It takes time: call it in a thread.

    Raises PackedError.
    """
    applied = codings(header)
    if len(applied) > MOST_CODINGS:
        raise PackedError(f"the answer is packed {len(applied)} times over", retryable=False)
    for coding in reversed(applied):
        inflate = CODINGS.get(coding)
        if inflate is None:
            raise PackedError(
                f"the answer is packed as {coding[:20]!r}, which cannot be unpacked here; "
                "ask for gzip, deflate or identity in Accept-Encoding",
                retryable=False,
            )
        try:
            body = inflate(body, limit)
        except zlib.error:
            raise PackedError(f"the answer is not the {coding} it says", retryable=True) from None
        if len(body) > limit:
            break
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    found = b""
    for _ in range(MOST_MEMBERS):
        member = zlib.decompressobj(GZIP)
        found += member.decompress(body, limit + 1 - len(found))
        if len(found) > limit:
            return found
        if not member.eof:
            break
        body = member.unused_data.lstrip(b"\0")  # padding, as gzip itself lets pass
        if not body:
            return found
    raise zlib.error


def _inflate(body: bytes, limit: int) -> bytes:
    try:
        return _whole(zlib.decompressobj(ZLIB), body, limit)
    except zlib.error:  # some servers leave the wrapping out
        return _whole(zlib.decompressobj(RAW), body, limit)


def _whole(stream: "zlib._Decompress", body: bytes, limit: int) -> bytes:
    found = stream.decompress(body, limit + 1)
    if len(found) <= limit and not stream.eof:
        raise zlib.error
    return found


CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
}
