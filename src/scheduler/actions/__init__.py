"""What a run does. An action is a value that its task stores; its file also holds its performer:
arguments in, an outcome out. No tables, no web framework.
"""

from scheduler.actions.http import Http
from scheduler.actions.outcome import Call, Expected, Outcome, Performer

Action = Http

__all__ = ["Action", "Call", "Expected", "Http", "Outcome", "Performer"]
