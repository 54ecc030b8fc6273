"""Alerts: what happened becomes a notification, kept across restarts and delivered to each sink."""
