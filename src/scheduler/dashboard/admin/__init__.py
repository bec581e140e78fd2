"""Pages of an admin: the door of its own, and services."""
