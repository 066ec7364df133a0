"""The checkers: safety while the simulation runs (`Checks`), liveness when its faults have ended (`settled`)."""
