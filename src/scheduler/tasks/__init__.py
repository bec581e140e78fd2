"""The room of tasks: `/tasks`."""
