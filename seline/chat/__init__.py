"""The chat: what the owner sees and does in the bot's own chat, on the operations of this process.

`core` answers requests of the owners; it knows no service. `seline.chat.aiogram`,
`seline.chat.telegram` (python-telegram-bot) and `seline.chat.discord` (discord.py) each translate
for one library, which is imported with that module alone.
"""
