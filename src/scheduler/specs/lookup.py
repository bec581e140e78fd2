"""Looking specs up for the calls that go through them."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from uuid import UUID

from scheduler import db
from scheduler.specs import model
from scheduler.specs.gathering import Gathered
from scheduler.specs.model import Called
from scheduler.specs.way import Way

FRESH_S = 1.0
"""How long what was read of a spec that can be called holds."""
REMEMBERED = 2000
"""Endpoints."""

Wanted = tuple[UUID, str, str]
"""Service, name of the spec, endpoint."""
Found = Called | Exception


class Lookup:
    """Reads specs, those wanted at the same time together, and knows them for a second."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._known: OrderedDict[Wanted, tuple[float, Called]] = OrderedDict()
        """With when reading began, on the loop's clock; what is too old goes: it may be large."""
        self._gathered = Gathered(self._read)

    async def called(self, wanted: Wanted, since: float) -> Called | None:
        """Return what stands behind an endpoint: as it was `since` then, or later.

        On the loop's clock; a second ago at the earliest. None where there is no such spec. What
        cannot be called is read anew each time: it may be there now. Raises SealError, what
        `db.is_away` knows, and what comes of a row that somebody broke.
        """
        known = self._known.get(wanted)
        now = asyncio.get_running_loop().time()
        if known is not None and known[0] >= max(since, now - FRESH_S):
            return known[1]
        found = await self._gathered.get(wanted)
        if isinstance(found, Exception):
            raise found
        return found

    def forget(self, wanted: Wanted) -> None:
        """Have an endpoint be read anew: what was known of it holds no more."""
        self._known.pop(wanted, None)

    async def _read(self, wanted: Sequence[Wanted]) -> Mapping[Wanted, Found]:
        began = asyncio.get_running_loop().time()
        found: dict[Wanted, Found] = {}
        async with self._way.open() as conn:
            for each in wanted:
                try:
                    called = await model.called(conn, self._way.vault, *each)
                except Exception as e:  # of the one whose row is broken, and of no other
                    if db.is_away(e):
                        raise
                    found[each] = e
                    continue
                self._learn(each, began, called)
                if called is not None:
                    found[each] = called
        return found

    def _learn(self, wanted: Wanted, began: float, called: Called | None) -> None:
        if called is None or called.serving is None or called.operation is None:
            self._known.pop(wanted, None)
            return
        self._known.pop(wanted, None)
        self._known[wanted] = began, called
        while len(self._known) > REMEMBERED or self._oldest() < began - FRESH_S:
            self._known.popitem(last=False)

    def _oldest(self) -> float:
        """Return when that was read which has been known for longest."""
        return next(iter(self._known.values()))[0]
