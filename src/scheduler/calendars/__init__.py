"""Calendars: named sets of times in which tasks do not run."""
