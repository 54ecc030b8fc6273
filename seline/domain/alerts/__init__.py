"""Alerts as pure values: their life cycle, their texts, and when to retry a delivery."""
