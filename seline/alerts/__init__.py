"""Alerts: from signals to notifications that reach every sink, across restarts."""
