"""The room of runs: `/runs`, the ledger."""
