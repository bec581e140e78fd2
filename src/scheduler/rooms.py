"""What the rooms hand the machine, which imports none of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from scheduler.actions import Command, Http, Operation, Performer
from scheduler.actions.http import HttpPerformer
from scheduler.actions.step import Step
from scheduler.admin import acts
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.engine import Rooms
from scheduler.outbound import Outbound
from scheduler.processes import callback
from scheduler.processes.callback import Callback, CallbackPerformer, Callbacks
from scheduler.processes.retention import SECONDS, Retention
from scheduler.processes.source import ProcessSource
from scheduler.runner import Performers
from scheduler.sources import Sources
from scheduler.specs.aide import Aides
from scheduler.specs.performer import OperationPerformer
from scheduler.specs.steps import Overseer, StepPerformer, StepSource
from scheduler.tasks.undoing import Pruning
from scheduler.ticks import Chore


class Furnished(Rooms):
    """And what the API needs of them beside."""

    aides: Aides
    operations: OperationPerformer


@asynccontextmanager
async def furnished(
    settings: Settings,
    database: Database,
    outbound: Outbound,
    commands: Performer,
    wake: Callable[[int], None],
) -> AsyncIterator[Furnished]:
    """Open the rooms of one process; `wake(ms)` tells its engine that a run is due."""
    async with Aides(settings.specs) as aides:
        http = HttpPerformer(outbound)
        operations = OperationPerformer(settings, database, outbound, aides)
        performers: Performers = {
            Http: http,
            Callback: CallbackPerformer(database, http),
            Command: commands,
            Operation: operations,
            Step: StepPerformer(settings.specs, database, aides, wake),
        }
        processes = ProcessSource(settings.worker.max_retries)
        sources: Sources = {"process": processes, "spec": StepSource(settings.specs)}
        overseer = Overseer(database)
        callbacks, retention = Callbacks(database, wake), Retention(database)
        chores = [
            Chore("specs", overseer.SECONDS, overseer.look),
            *operations.chores,
            Chore("callbacks", callback.SECONDS, callbacks.step, callbacks.due),
            Chore("processes", SECONDS, retention.step),
            Chore("undo", Pruning.SECONDS, Pruning(database).step),
        ]
        yield Furnished(
            performers, sources, chores, {"process": callbacks.note}, acts.ROOMS, aides, operations
        )
