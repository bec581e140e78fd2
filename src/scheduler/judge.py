"""The judge: a child process that looks at a recurrence rule before the loop expands it."""
