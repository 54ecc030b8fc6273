"""The domain's values and decisions: no disk, no clock, no threads."""
