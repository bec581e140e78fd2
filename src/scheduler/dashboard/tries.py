"""Failed sign-ins: how many an address may have."""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from weakref import WeakValueDictionary

from scheduler.errors import TooManyRequests

MOST = 10
"""Failed sign-ins that an address may have in ten minutes: a person needs fewer, a guesser more."""
WINDOW_S = 600
ADDRESSES_MOST = 10_000
"""Addresses that are remembered; those that failed longest ago are forgotten first."""


class Tries:
    """Remembers failures, in this process."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, address: str) -> asyncio.Lock:
        """Return what to hold during a try: one at a time, or those under way count as failed."""
        return self._turns.setdefault(_network(address), asyncio.Lock())

    def begin(self, address: str, now: float) -> None:
        """Count a try as failed until that is taken back. Raises TooManyRequests.

        `now` in seconds of any clock that only grows.
        """
        key = _network(address)
        failed = self._failed.setdefault(key, deque())
        while failed and failed[0] <= now - WINDOW_S:
            failed.popleft()
        if len(failed) >= MOST:
            wait = int(failed[0] + WINDOW_S - now) + 1
            raise TooManyRequests(
                f"too many sign-ins from your address failed; try again in {wait} s",
                retry_after=wait,
            )
        failed.append(now)
        self._failed.move_to_end(key)
        while len(self._failed) > ADDRESSES_MOST:
            self._failed.popitem(last=False)

    def taken_back(self, address: str) -> None:
        """Take back the count of a try: it succeeded, or nobody could say."""
        failed = self._failed.get(_network(address))
        if failed:
            failed.pop()


def _network(address: str) -> str:
    """Return what one person has: an IPv4 address, or the 64 bits before an IPv6 one's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)
