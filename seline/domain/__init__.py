"""Pure values and decisions: no I/O, no clock, no threads. `now` is always an argument."""
