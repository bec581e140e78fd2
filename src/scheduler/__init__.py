"""A self-hosted scheduler for a team's HTTP calls: one process, one Postgres."""

__version__ = "0.5.0"
