"""Calendars: their table, and what those that a task names exclude."""
