"""Pages of tasks: the list, the acts on many, the page of one."""
