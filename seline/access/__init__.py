"""Access to the admin API: its tokens, and the audit log of changes."""
