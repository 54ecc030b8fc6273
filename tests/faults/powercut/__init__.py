"""A power cut at every step: what a process changed, what a conservative disk may keep of it."""
