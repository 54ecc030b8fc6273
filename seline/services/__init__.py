"""What speaks the bot's language, and what speaks the operator's."""
