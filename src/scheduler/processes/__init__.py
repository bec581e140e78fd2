"""Processes: asynchronous calls through a spec."""
