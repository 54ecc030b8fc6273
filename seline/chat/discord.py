"""The chat in a bot with discord.py: `await bot.add_cog(SelineCog())`."""

import io
from collections.abc import Mapping
from typing import Any, cast

import discord
from discord import app_commands
from discord.ext import commands

from seline.chat.core import ChatCore
from seline.chat.messages import COMMAND, MARK, ChatReply, ChatRequest
from seline.library import Seline


class SelineCog(commands.Cog):
    """Answers `/seline` and its buttons to the owners of `chat.owners`, in direct messages."""

    def __init__(self, seline: Seline | None = None) -> None:
        """Work over `seline`, else over the instance that is open in this process."""
        self._core = ChatCore(seline)

    async def cog_unload(self) -> None:
        """Close the audit log."""
        self._core.close()

    @app_commands.command(name=COMMAND, description="See, restore and undo: for the owners")
    @app_commands.allowed_contexts(guilds=False, dms=True, private_channels=False)
    @app_commands.describe(word="A part of the name of a document")
    async def seline(self, interaction: discord.Interaction[Any], word: str = "") -> None:
        """Answer the command."""
        await self._answer(interaction, _request(interaction, word=word.strip()))

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Answer the press of a button; those that do not begin with MARK are the bot's."""
        data = cast("Mapping[str, Any]", interaction.data or {})
        button = str(data.get("custom_id", ""))
        is_press = interaction.type is discord.InteractionType.component
        if is_press and button.startswith(MARK):
            await self._answer(interaction, _request(interaction, button=button))

    async def _answer(self, interaction: discord.Interaction[Any], request: ChatRequest) -> None:
        if not self._core.admits(request):
            return
        await interaction.response.defer(thinking=not request.button)
        reply = await self._core.handle(request)
        if reply is not None:
            await _send(interaction, reply)


def _request(
    interaction: discord.Interaction[Any], *, word: str = "", button: str = ""
) -> ChatRequest:
    return ChatRequest(
        service="discord",
        user=str(interaction.user.id),
        chat=str(interaction.channel_id),
        is_private=interaction.guild_id is None and interaction.context.dm_channel,
        word=word,
        button=button,
        message=str(interaction.message.id) if interaction.message else "",
    )


async def _send(interaction: discord.Interaction[Any], reply: ChatReply) -> None:
    """Send a reply as an embed: escaped, its text may be twice as long, and it mentions no one."""
    if reply.kind == "notice":
        await interaction.followup.send(_escaped(reply.text), ephemeral=True)
        return
    if reply.file is not None:
        file = discord.File(io.BytesIO(reply.file.data), reply.file.name)
        await interaction.followup.send(file=file)
    embed, view = discord.Embed(description=_escaped(reply.text)), _view(reply)
    if reply.kind == "edit":
        await interaction.edit_original_response(embed=embed, view=view)
    else:
        await interaction.followup.send(embed=embed, view=view)


def _escaped(text: str) -> str:
    return discord.utils.escape_markdown(text, ignore_links=False)


def _view(reply: ChatReply) -> discord.ui.View:
    """Return the buttons. The view is stopped: `on_interaction` gets the presses, also later."""
    view = discord.ui.View(timeout=None)
    for number, row in enumerate(reply.rows):
        for button in row:
            view.add_item(discord.ui.Button(label=button.label, custom_id=button.data, row=number))
    view.stop()
    return view
