"""What is ahead of a service: its tasks, by what makes them due and what they keep clear of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from scheduler.agenda import Alike
from scheduler.clock import Slice
from scheduler.planning import Planned
from scheduler.triggers.excluded import Excluded


class Ahead(msgspec.Struct, frozen=True):
    """Tasks that are due alike, and what they keep clear of; `left` instants each, at most."""

    of: Alike
    excluded: Excluded | None = None
    left: int | None = None
    tasks: int = 1


async def ahead(
    alike: Sequence[Alike],
    calendars: Mapping[str, Excluded],
    plans: Mapping[UUID, Planned],
) -> list[Ahead]:
    """Return what is to be reckoned: each task for itself where `max_runs` bounds it."""
    found, turn = list[Ahead](), Slice()
    for of in alike:
        await turn.give_way()
        named = [each for name in of.bounds.calendars if (each := calendars.get(name))]
        clear = Excluded(*(c for each in named for c in each.calendars)) if named else None
        most = of.bounds.max_runs
        if most is None:
            found.append(Ahead(of, clear, None, of.tasks))
            continue
        lefts = Counter(most - (plans[key].runs if key in plans else 0) for key in of.keys)
        found += [Ahead(of, clear, left, many) for left, many in lefts.items() if left > 0]
    return found
