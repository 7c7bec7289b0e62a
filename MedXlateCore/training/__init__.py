"""Training: configuration, table of cases, cache, loop, checkpoints, validation."""
