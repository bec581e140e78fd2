"""The form of a task: its fields, its preview, its test call, and a task as text."""
