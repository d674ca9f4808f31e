"""One step on many machines at once, as `schedule` and `simulate` have it: see `evaluate` and `front`."""
