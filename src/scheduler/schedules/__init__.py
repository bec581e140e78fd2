"""Schedules: tasks whose trigger is an RRULE, and their events, under older names."""
