"""What a run does. An action is a value that its task stores; its file also holds its performer:
arguments in, an outcome out. No tables, no web framework.
"""

from scheduler.actions.command import Command
from scheduler.actions.http import Http
from scheduler.actions.operation import Operation
from scheduler.actions.outcome import Call, Expected, Leave, Outcome, Performer

Action = Http | Command | Operation

__all__ = [
    "Action",
    "Call",
    "Command",
    "Expected",
    "Http",
    "Leave",
    "Operation",
    "Outcome",
    "Performer",
]
