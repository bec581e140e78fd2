"""The gate: which service a request acts for, and how large a body it may send."""

import base64
import ipaddress
import re
import time
from collections.abc import Mapping
from uuid import UUID

import msgspec

from scheduler import config, db, services, tokens
from scheduler.db import Conn
from scheduler.errors import PayloadTooLarge, Unauthorized
from scheduler.service import By, Service


class Caller(msgspec.Struct, frozen=True):
    """What of a request says who calls; header names in lower case."""

    headers: Mapping[str, str]
    address: str | None
    """The peer's address."""


class Gate:
    """Finds the service that a request acts for, and remembers it for a moment."""

    MOST = 10_000

    def __init__(self, auth: config.Auth, quotas: config.Quotas | None = None) -> None:
        self._auth = auth
        self._quotas = quotas or config.Quotas()
        self._from = [ipaddress.ip_network(cidr) for cidr in auth.anonymous_from]
        self._known: dict[tuple[str, bytes], tuple[float, Service]] = {}
        self._used: set[UUID] = set()

    async def admit(self, database: db.Database, caller: Caller) -> Service:
        """Return the calling service. Raises Unauthorized."""
        pair = credentials(caller.headers)
        if pair is None:
            return await self._anonymous(database, caller)
        user, token = pair
        if "\x00" in user:  # no text in Postgres can hold one
            raise Unauthorized
        key = (user, tokens.digest(token))
        known = self._known.get(key)
        if known and known[0] > time.monotonic():
            return known[1]
        async with database.api.connect() as conn:
            found = await services.check(conn, user, key[1])
        if found is None:
            raise Unauthorized(services.UNKNOWN)
        service = self._limited(found[0], By("api", found[1]))
        self._remember(key, service, found[1])
        return service

    def _limited(self, service: Service, by: By) -> Service:
        limits = service.quotas.within(self._quotas)
        return msgspec.structs.replace(service, limits=limits, by=by)

    def _remember(self, key: tuple[str, bytes], service: Service, token_id: UUID) -> None:
        if len(self._known) >= self.MOST:
            self._known.clear()
        self._known[key] = (time.monotonic() + self._auth.cache_seconds, service)
        self._used.add(token_id)

    def visited(self, service: Service, token_id: UUID) -> Service:
        """Note that a token was used, by a browser's session; return the service as admitted."""
        self._used.add(token_id)
        return self._limited(service, By("dashboard", token_id))

    async def _anonymous(self, database: db.Database, caller: Caller) -> Service:
        name = self._auth.anonymous_service
        if not name or not self._may_be_anonymous(caller):
            raise Unauthorized
        async with database.api.connect() as conn:
            found = await services.find(conn, name)
        if found is None:
            raise Unauthorized(f"auth.anonymous_service: there is no service {name}")
        return self._limited(found, By("api"))

    def _may_be_anonymous(self, caller: Caller) -> bool:
        """Say whether a request comes from here, by itself, and means this host.

        A page in a browser sends Origin, a proxy a forwarding header, and a page whose name was
        pointed at us (DNS rebinding) a Host that is not ours.
        """
        headers = caller.headers
        if "origin" in headers or any(FORWARDING.search(name) for name in headers):
            return False
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return False
        if not _is_local(headers.get("host", "")):
            return False
        try:
            address = ipaddress.ip_address(caller.address or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._from)

    def forget(self, service_id: UUID) -> None:
        """Believe no token of a service any more without asking: it was changed here."""
        for key in [k for k, (_, service) in self._known.items() if service.id == service_id]:
            del self._known[key]

    async def flush(self, conn: Conn) -> None:
        """Write down which tokens were used since the last time."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await tokens.touch(conn, list(used))
        except BaseException:
            self._used |= used  # the next time tells it
            raise


class Scale:
    """Weighs a request's body as it comes. Raises PayloadTooLarge."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._read = 0

    def announced(self, length: str | None) -> None:
        """Look at Content-Length, before anything is read."""
        if length is not None and length.isascii() and length.isdecimal():
            self._weigh(int(length[:20]))

    def add(self, piece: bytes) -> None:
        """Weigh a piece; the length of a chunked body is not announced."""
        self._read += len(piece)
        self._weigh(self._read)

    def _weigh(self, length: int) -> None:
        if length > self._most:
            raise PayloadTooLarge(
                f"the body is larger than this service's max_body_bytes, {self._most}"
            )


FORWARDING = re.compile(
    r"^(forwarded.*|via|x-forwarded.*|x-original.*|x-real-ip|.*(client|connecting)-?ip.*"
    r"|x-(remote|proxyuser)-(ip|addr)|x-scheme|x-(envoy|azure|appengine)-.*|cf-.*|cdn-loop)$"
)
"""What proxies add."""


def _is_local(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def credentials(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (service id or name, token) as a request sends them, or None.

    Raises Unauthorized where only half of the pair is there, or Basic cannot be read.
    """
    user, token = _first(headers, *USER), _first(headers, *TOKENS)
    if user and token:
        return user, token
    basic = headers.get("authorization", "")
    if basic[:6].lower() == "basic ":
        return _basic(basic[6:])
    if "authorization" in headers or any(name in headers for name in (*USER, *TOKENS)):
        raise Unauthorized  # half a pair, or another scheme: that is not "no credentials"
    return None


USER = ("service_id", "service-id", "x-service-id")
TOKENS = ("token", "x-token")


def _first(headers: Mapping[str, str], *names: str) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)


def _basic(encoded: str) -> tuple[str, str]:
    """Read the user-id and password of RFC 7617."""
    try:
        user, colon, token = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # binascii.Error and UnicodeDecodeError are ones
        raise Unauthorized("the Basic credentials are not base64 of user:password") from None
    if not (user and colon and token):
        raise Unauthorized
    return user, token
