"""Who may call the admin API, and the log of what they changed."""
