"""Services for the bot, in the words of the owner's document."""
