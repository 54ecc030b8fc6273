"""Measure what a save costs on one disk: the disk's limits, Seline, and sqlite3 beside it."""
