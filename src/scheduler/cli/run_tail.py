"""`scheduler runs tail`: each run as it ends, live.

`/runs` stands by `scheduled_for`, and a run may end long after that. So each look reads the end
states of a bounded stretch before the look before, and beside them the live runs older than half
of that stretch; of these it remembers the ids, and one that is not live any more is asked for by
itself. A run that lived between two looks alone shows as long as it was due in the stretch.
"""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import click
import msgspec
from msgspec import Raw

from scheduler.cli import completers, times
from scheduler.cli import output as out
from scheduler.cli.client import PAGE, Api, RunPage
from scheduler.cli.failures import Refused, Unreached, Usage
from scheduler.cli.options import Sectioned, talks
from scheduler.cli.output import Listing, Output
from scheduler.cli.run_filters import Filters, read, run_filters
from scheduler.cli.run_show import reason_of
from scheduler.cli.task_show import Json, text

LONGEST, SHORTEST = timedelta(minutes=5), timedelta(seconds=10)
"""The stretch that is read again: long while there is little in it."""
MUCH = 2 * PAGE
REST_MOST_S = 5.0
HEADINGS = ("Ended", "Task", "State", "Attempt", "Took", "Run", "Reason")
ENDS = ",".join(completers.END_STATES)
LIVE = ",".join(completers.LIVE_STATES)


class Seen(msgspec.Struct):
    """What of a run says whether it was shown."""

    id: str
    state: str
    attempt: int
    scheduled_for: str | None
    finished_at: str | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str, int, str | None]:
        """A replay ends anew, and shows anew."""
        return self.id, self.state, self.attempt, self.finished_at


class Tail:
    """Looks at the ledger again and again; `look` returns what is new."""

    def __init__(self, api: Api, filters: Filters) -> None:
        self._api = api
        self._reason = filters.get("reason")
        self._wanted = frozenset((filters.pop("state", None) or ENDS).split(","))
        self._filters = filters
        self._shown: dict[tuple[Any, ...], str] = {}
        self._older: set[str] = set()
        """Live runs that the next look does not find by their time."""
        self._looked: datetime | None = None
        self._stretch = LONGEST
        self._away_from: datetime | None = None
        self._away_to: datetime | None = None

    def begin(self, lines: int) -> list[Raw]:
        """Take what is there as seen, and return the newest `lines` of it. Raises as `look`."""
        found = self.look()
        return found[len(found) - min(lines, len(found)) :]

    def look(self) -> list[Raw]:
        """Return the runs that have come into a wanted state since the last look, oldest first.

        Raises Unreached and Refused; the next look then makes up for it.
        """
        now = self._now()
        since = self._since(now)
        live = dict(self._live(now))
        found = [self._one(gone) for gone in self._older - live.keys()]
        ends = self._ended(since)
        new = dict(self._new([*(each for each in found if each), *ends, *live.values()]))
        self._stretch = max(self._stretch / 2, SHORTEST) if len(ends) > MUCH else self._stretch
        border = times.rfc3339(now - self._stretch / 2)
        self._older = {i for i, raw in live.items() if (_seen(raw).scheduled_for or "") < border}
        self._looked = now
        self._forget(times.rfc3339(since))
        return list(new.values())

    def missed(self) -> None:
        """Note that a look failed: what was due meanwhile may run for a while after."""
        self._away_from = self._away_from or self._looked

    # What is asked

    def _now(self) -> datetime:
        """Return the server's time; ours may be wrong."""
        answer = self._api.ask("GET", "/runs", params={**self._filters, "limit": 1})
        try:
            return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError):
            return datetime.now(UTC)

    def _since(self, now: datetime) -> datetime:
        since = (self._looked or now) - self._stretch
        if self._away_from is not None:
            self._away_to = self._away_to or now + LONGEST
            since = min(since, self._away_from - self._stretch)
            if now > self._away_to:
                self._away_from = self._away_to = None
        return since

    def _live(self, now: datetime) -> Iterator[tuple[str, Raw]]:
        if self._wanted.isdisjoint(completers.LIVE_STATES):
            border = times.rfc3339(now - self._stretch / 2)
        else:
            border = None
        asked = {name: each for name, each in self._filters.items() if name != "reason"}
        for raw in self._pages({**asked, "state": LIVE, "to": border}):
            yield _seen(raw).id, raw

    def _ended(self, since: datetime) -> list[Raw]:
        states = self._wanted.intersection(completers.END_STATES)
        if not states:
            return []
        asked = {**self._filters, "state": ",".join(states), "from": times.rfc3339(since)}
        return list(self._pages(asked))

    def _pages(self, asked: Filters) -> Iterator[Raw]:
        query = {**asked, "limit": PAGE}
        for page in self._api.cursor("/runs", query, RunPage):
            yield from page.runs

    def _one(self, run_id: str) -> Raw | None:
        """Return a run as a list shows it; None where an edit took it back."""
        try:
            found = self._api.ask("GET", "/runs", params={"q": run_id, "limit": 1})
        except Refused as e:
            if e.status == 404:
                return None
            raise
        runs = self._api.read(found, RunPage).runs
        return runs[0] if runs and _seen(runs[0]).id == run_id else None

    # What is new

    def _new(self, found: Iterable[Raw]) -> Iterator[tuple[Any, Raw]]:
        new = [(seen, raw) for raw in found if self._fits(seen := _seen(raw))]
        new.sort(key=lambda each: each[0].finished_at or each[0].scheduled_for or "")
        for seen, raw in new:
            if seen.key not in self._shown:
                self._shown[seen.key] = seen.scheduled_for or ""
                yield seen.key, raw

    def _fits(self, seen: Seen) -> bool:
        said = self._reason is None or seen.reason == self._reason
        return seen.state in self._wanted and said

    def _forget(self, since: str) -> None:
        kept = self._older
        self._shown = {k: at for k, at in self._shown.items() if at >= since or k[0] in kept}


def _seen(raw: Raw) -> Seen:
    return msgspec.json.decode(raw, type=Seen)


# The command -------------------------------------------------------------------------------------


@click.command(cls=Sectioned)
@run_filters(times=False)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=10,
    help="Of the last minutes, first; 10.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=1.0,
    metavar="SECONDS",
    help="How often it looks; 1.",
)
@Output
@talks
def tail(api: Api, lines: int, interval: float, output: str, **filters: Any) -> None:
    """Show each run as it ends, until you press Ctrl-C.

    \b
      scheduler runs tail
      scheduler runs tail --task hello --state failed,expired
      scheduler runs tail -o json | jq -r .task_id

    With --state it shows runs as they come into these states, live ones too. -o json is a run a
    line. While the server is away it waits, and then shows what ended meanwhile.
    """
    which = read(filters)
    states = set((which.get("state") or "").split(",")) - {""}
    known = {*completers.LIVE_STATES, *completers.END_STATES}
    if not states <= known:
        raise Usage(f"--state is one or more of {', '.join(sorted(known))}, with commas")
    following = Tail(api, which)
    listing = Listing(*HEADINGS, spare=("Took", "Attempt", "Run"))
    _print(following.begin(lines), listing, output)
    is_away, rest = False, interval
    while True:
        time.sleep(rest)
        begun = time.monotonic()
        try:
            found = following.look()
        except (Unreached, Refused) as e:
            if isinstance(e, Refused) and e.status < 500 and e.status != 429:
                raise
            following.missed()
            if not is_away:
                why = e.told.partition("\n")[0]
                out.note(f"{why}. Still looking; what ends meanwhile is shown then")
            is_away, rest = True, min(max(rest * 1.5, interval), REST_MOST_S)
            continue
        is_away = False
        # A server that answers slowly is not asked all the time.
        rest = max(interval, min(time.monotonic() - begun, REST_MOST_S))
        if found:
            _print(found, listing, output)


def _print(found: list[Raw], listing: Listing, shown: str) -> None:
    if shown == "json":
        for each in found:
            out.print_line(each)
        return
    listing.add(_row(msgspec.json.decode(each, type=Json)) for each in found)


def _row(run: Json) -> list[str]:
    return [
        text(run, "finished_at") or text(run, "started_at") or text(run, "scheduled_for"),
        text(run, "task_id") or text(run, "trace_id"),
        text(run, "state"),
        text(run, "attempt"),
        times.milliseconds(run.get("duration_ms")),
        text(run, "id"),
        reason_of(run),
    ]
