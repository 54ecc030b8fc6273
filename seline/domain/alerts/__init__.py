"""Alerts as pure values: their lifecycle, their words, and when to retry."""
