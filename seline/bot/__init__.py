"""Services for the bot: its user's profile and its lessons learned."""
