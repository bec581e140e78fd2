"""Egress: which addresses may be called, and the connector that asks before it connects."""

import asyncio
import functools
import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from scheduler.config import Egress
from scheduler.errors import StartupError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NEVER: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(block), why)
    for block, why in (
        ("169.254.0.0/16", "a link-local or metadata address"),
        ("fe80::/10", "a link-local address"),
        ("100.100.100.200/32", "a metadata address"),  # Alibaba
        ("168.63.129.16/32", "a metadata address"),  # Azure
        ("192.0.0.192/32", "a metadata address"),  # Oracle
        ("fd00:ec2::/32", "a metadata address"),  # Amazon
        ("fd20:ce::254/128", "a metadata address"),  # Google
        ("0.0.0.0/8", "an unspecified address"),  # Linux connects 0.0.0.0 to itself
        ("::/128", "an unspecified address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
    )
)
LOW_32_BITS_ARE_IPV4 = tuple(
    IPv6Network(block)
    # RFC 4291 2.5.5.1 compatible, RFC 2765 translated, RFC 6052 and 8215 NAT64
    for block in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_]([a-z0-9_-]{0,62})")
LOOKUPS = 32
"""Names looked up at once, in each of two lanes."""


class Refused(OSError):
    """The rules forbid this address."""


class Rules:
    """The rules of egress, built once.

    Raises StartupError naming an entry of the settings that is no CIDR, address or name.
    """

    def __init__(self, settings: Egress, own: Iterable[tuple[str, int]] = ()) -> None:
        self._deny = _List("egress.deny", settings.deny)
        self._allow = _List("egress.allow", settings.allow)
        self._public_only = settings.public_only
        self._own: set[tuple[str | Address, int]] = set()
        for host, port in own:
            self.add_own(host, port)

    def add_own(self, host: str, port: int) -> None:
        """Forbid what this program listens on, or its database.

        A name is looked up here and now, blocking: for start-up only.
        """
        if not host or host.startswith("/"):
            return  # a Unix socket
        name = _plain(host)
        self._own.add((name, port))
        with suppress(OSError, UnicodeError):
            for found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
                self._own.add((_address(str(found[4][0])), port))

    def refusal_of_name(self, host: str, port: int) -> str | None:
        """Return why this host may not even be looked up, else None."""
        name = _plain(host)
        if (name, port) in self._own:
            return f"{host}:{port} is this scheduler or its database"
        if self._deny.has_name(name):
            return f"{host} is in egress.deny"
        if self._allow and not self._allow.networks and not self._allow.has_name(name):
            return f"{host} is not in egress.allow"
        return None

    def refusal(self, host: str, address: str, port: int) -> str | None:
        """Return why `host`, found at `address`, may not be called there, else None."""
        actual = _address(address)
        forms = _forms(actual)
        for form in forms:
            why = self._refusal_of_form(form, port)
            if why:
                return f"{address} {why}"
        if self._public_only and not all(form.is_global for form in forms):
            return f"{address} is not a public address, and egress.public_only is set"
        if self._allow and not self._allow.has_name(_plain(host)):
            return None if self._allow.has_address(actual) else f"{address} is not in egress.allow"
        return None

    def _refusal_of_form(self, form: Address, port: int) -> str | None:
        for network, why in NEVER:
            if form in network:
                return f"is {why}"
        if self._is_own(form, port):
            return f"port {port} is this scheduler or its database"
        return "is in egress.deny" if self._deny.has_address(form) else None

    def _is_own(self, form: Address, port: int) -> bool:
        if (form, port) in self._own:
            return True
        return any(
            isinstance(own, (IPv4Address, IPv6Address)) and own.is_unspecified and _is_here(form)
            for own, own_port in self._own
            if own_port == port
        )


class _List:
    """One of the two lists, read."""

    def __init__(self, setting: str, entries: Sequence[str]) -> None:
        self.networks: list[Network] = []
        self._names: set[str] = set()
        for entry in entries:
            self._read(setting, entry)

    def __bool__(self) -> bool:
        return bool(self.networks or self._names)

    def _read(self, setting: str, entry: str) -> None:
        name = _plain(entry)
        try:
            self.networks.append(ipaddress.ip_network(name))
        except ValueError as e:
            # What ends in a number is a mistyped address: no top-level domain does.
            if "/" in name or name.rpartition(".")[2].isdigit() or not NAME.fullmatch(name):
                raise StartupError(
                    f"{setting}: {entry!r} is not a CIDR (10.0.0.0/8), an IP address"
                    f" or a host name (example.com, *.example.com): {e}"
                ) from None
            self._names.add(name)

    def has_address(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def has_name(self, name: str) -> bool:
        if name in self._names:
            return True
        labels = name.split(".")
        return any(
            "*." + ".".join(labels[start:]) in self._names for start in range(1, len(labels))
        )


def _plain(host: str) -> str:
    """Return a host as it is compared: lower case, IDNA, without brackets and final dot."""
    host = host.strip("[]").rstrip(".").lower()
    if host.isascii():
        return host
    with suppress(UnicodeError):
        return host.encode("idna").decode()
    return host


def _address(text: str) -> Address:
    """Read an address, without its zone; `::ffff:10.0.0.1` is 10.0.0.1."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _forms(address: Address) -> list[Address]:
    """Return the address, and the IPv4 addresses that a tunnel or translator makes of it."""
    if isinstance(address, IPv4Address):
        return [address]
    forms: list[Address] = [address]
    if any(address in block for block in LOW_32_BITS_ARE_IPV4) and int(address) > 1:
        forms.append(IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour:
        forms.append(address.sixtofour)
    forms.extend(address.teredo or ())
    return forms


def _is_here(address: Address) -> bool:
    """Return whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, which asks the rules about every address before it connects.

    Pooled connections belong to one host and port and are not asked about again.
    """

    def __init__(
        self, rules: Rules, protocol: functools.partial[ResponseHandler], **options: Any
    ) -> None:
        super().__init__(limit=0, socket_factory=self._socket, **options)
        self._rules = rules
        self._factory = protocol

    @property
    def open(self) -> int:
        """Connections in use, being made, or idle."""
        return len(self._acquired) + sum(map(len, self._conns.values()))

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """Return an idle connection, but none over which something came unasked.

        A server that says 408 to an idle connection would answer the next request with it.
        """
        while connection := await super()._get(key, traces):
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None

    async def _resolve_host(
        self, host: str, port: int, traces: Sequence[Trace] | None = None
    ) -> list[ResolveResult]:
        why = self._rules.refusal_of_name(host, port)
        if why:
            raise Refused(why)
        found = await super()._resolve_host(host, port, traces)
        refusals = [self._rules.refusal(host, each["host"], port) for each in found]
        allowed = [each for each, why in zip(found, refusals, strict=True) if not why]
        if refusals and not allowed:
            raise Refused(refusals[0])
        return allowed

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make a socket: the last look at the address connected to, whatever led here."""
        for form in _forms(_address(info[4][0])):
            if any(form in network for network, _ in NEVER):
                raise Refused(f"{form} is never called")
        return socket.socket(info[0], info[1], info[2])


LookUp = Callable[[str, int], Iterable[tuple[Any, ...]]]


class Resolver(AbstractResolver):
    """Looks names up in threads of its own, so that dead DNS holds up nothing but itself.

    A stuck getaddrinfo cannot be stopped; it keeps its thread. So names that were found before
    have a lane of their own, which names never found cannot fill, and the threads are daemons,
    which do not hold up the end of the program. The connector asks once for all who wait for a
    name, and remembers the answer for ten seconds.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or functools.partial(
            socket.getaddrinfo, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        self._found: dict[str, None] = {}
        self._lane_of_found = asyncio.Semaphore(LOOKUPS)
        self._lane_of_others = asyncio.Semaphore(LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        async with self._lane_of_found if host in self._found else self._lane_of_others:
            infos = await _in_daemon_thread(functools.partial(self._look_up, host, port))
        self._remember(host)
        return [
            ResolveResult(hostname=host, host=a[4][0], port=port, family=a[0], proto=0, flags=0)
            for a in infos
            if family in {socket.AF_UNSPEC, a[0]}
        ]

    def _remember(self, host: str) -> None:
        self._found.pop(host, None)
        self._found[host] = None
        if len(self._found) > 10_000:
            del self._found[next(iter(self._found))]

    async def close(self) -> None:
        """Nothing to close."""


def _in_daemon_thread(call: Callable[[], Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if answer.done():
            return
        if error:
            answer.set_exception(error)
        else:
            answer.set_result(value)

    def run() -> None:
        outcome: tuple[Any, Exception | None]
        try:
            outcome = (call(), None)
        except UnicodeError as e:  # a label that is too long
            outcome = (None, OSError(str(e)))
        except Exception as e:  # noqa: BLE001 (it belongs to whoever waits)
            outcome = (None, e)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="look-up", daemon=True).start()
    return answer
