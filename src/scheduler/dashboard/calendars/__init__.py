"""Pages of calendars: a year of each, its form, and what a change would do."""
