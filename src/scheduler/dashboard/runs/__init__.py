"""Pages of runs: the explorer, its files, the page of one."""
