"""The chat from the status to Undo, with the real objects of each library."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from seline.domain.alerts.sink_spec import SinkSpec
from seline.library import Seline
from seline.outbound.alert_sinks import ENCODERS
from tests.chat.screen import ALERT, NAME, ShownMessage

pytestmark = pytest.mark.prove(first=True)  # the libraries take seconds to import


def audit_lines(seline: Seline) -> list[dict[str, Any]]:
    path = Path(seline.settings.data_dir) / ".seline" / "audit.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def test_restore_and_undo_in_the_chat(bot: Any, seline: Seline) -> None:
    """Tap from the status to a restored document, and back."""
    await seline.data.save_json(NAME, {"name": "Ada", "level": 3})
    await seline.data.save_json(NAME, {"name": "Ada", "level": 4, "x_*[b": "<b>"})
    screen = bot.screen

    await bot.command()
    assert seline.settings.service in screen.text
    assert "No copy is off this volume" in screen.text
    await bot.press("Restore")
    assert f"1. {NAME}" in screen.text
    await bot.press(f"1. {NAME}")
    assert "1 backup" in screen.text
    assert "newest" in screen.text  # the reason for which it is kept
    await bot.press("1. 20")
    assert "level: 4 becomes 3" in screen.text
    assert 'x_*[b: "<b>" is removed' in screen.text
    await bot.press("Restore this one")
    assert "is restored as it was" in screen.text
    assert await seline.data.load_json(NAME) == {"name": "Ada", "level": 3}
    await bot.press("Undo")
    assert screen.text.startswith("Undone")
    assert (await seline.data.load_json(NAME))["level"] == 4
    await bot.press("Undo")
    assert (await seline.data.load_json(NAME))["level"] == 3
    assert len(screen.messages) == 1, "each step replaces the one before"
    await bot.stop()
    lines = audit_lines(seline)
    assert [line["what"].split("/")[:2] for line in lines] == [
        ["restore ", NAME],
        ["undo ", NAME],
        ["undo ", NAME],
    ]
    assert {(line["who"], line["outcome"]) for line in lines} == {(f"chat {bot.owner}", "done")}
    assert lines[0]["changes"][0]["document"] == NAME
    assert lines[0]["changes"][0]["before"] == lines[1]["changes"][0]["after"]
    await bot.start(seline)


async def test_strangers_and_groups_get_no_answer(bot: Any, seline: Seline) -> None:
    """Send nothing at all to anyone else, and leave what they send to the bot."""
    await seline.data.save_json(NAME, {"n": 1})
    await bot.command(user=8)
    await bot.command(private=False)
    await bot.command()
    data, calls = bot.screen.labelled("Restore"), len(bot.screen.calls)
    await bot.press(data, user=8)
    await bot.press(data, private=False)

    assert len(bot.screen.calls) == calls
    assert len(bot.screen.messages) == 1
    if bot.service == "telegram":
        assert bot.screen.unhandled == ["Message"] * 2 + ["CallbackQuery"] * 2
    await bot.press(data)
    assert "1 document" in bot.screen.text, "it is still valid for the owner"


async def test_other_messages_and_buttons_are_the_bots(bot: Any, seline: Seline) -> None:
    """Do not take what is not Seline's, even if an owner sends it."""
    if bot.service == "telegram":
        await bot.command(name="/selines")
        await bot.command(name="/seline@another_bot")
        await bot.command(name="hello")
        await bot.press("other:1", message="5")
        assert bot.screen.unhandled == ["Message"] * 3 + ["CallbackQuery"]
        assert not bot.screen.calls
        await bot.command(name="/seline@thebot")
    else:
        await bot.press("other:1", message="5")
        assert not bot.screen.calls
        await bot.command()
    assert len(bot.screen.messages) == 1


async def test_a_forged_button_does_nothing(bot: Any, seline: Seline) -> None:
    """Refuse data that was never sent, and data of a button that there is not."""
    await bot.command()
    real = bot.screen.labelled("Restore")
    for data in ("seline:AAAAAAAAAAAAAAAA.0", "seline:", f"{real[:-1]}9", f"{real}1", "seline:é"):
        await bot.press(data)
    assert len(bot.screen.notices) == 5
    assert "not valid any more" in bot.screen.notices[0]
    assert len(bot.screen.messages) == 1


async def test_a_replayed_act_is_done_once(bot: Any, seline: Seline) -> None:
    """Refuse the second press of Restore, and that of an older step."""
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.save_json(NAME, {"n": 2})
    await bot.command(NAME)
    await bot.press("1. 20")
    act = bot.screen.labelled("Restore this one")
    await bot.press(act)
    shown = bot.screen.text
    await seline.data.save_json(NAME, {"n": 3})
    await bot.press(act)

    assert await seline.data.load_json(NAME) == {"n": 3}
    assert bot.screen.text == shown
    assert len(bot.screen.notices) == 1


async def test_a_button_works_under_its_message_alone(bot: Any, seline: Seline) -> None:
    """Refuse the data of a button under another message."""
    await bot.command()
    await bot.press("Restore")
    await bot.press(bot.screen.labelled("Status"), message="99")

    assert len(bot.screen.notices) == 1
    await bot.press("Status")
    assert len(bot.screen.notices) == 1


async def test_a_document_that_is_gone_is_explained(bot: Any, seline: Seline) -> None:
    """Show the message and the next step of what went wrong."""
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.save_json(NAME, {"n": 2})
    await bot.command()
    await bot.press("Restore")
    await seline.data.delete(NAME, purge=True)
    await bot.press(f"1. {NAME}")
    assert NAME in bot.screen.text
    assert "Next: " in bot.screen.text
    await bot.press("Status")
    assert "Restore" in bot.screen.last.buttons


async def test_a_deleted_document_comes_back_and_goes_again(bot: Any, seline: Seline) -> None:
    """Find a deleted document, bring it back, undo that, and undo that."""
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.delete(NAME)
    await bot.command()
    await bot.press("Restore")
    await bot.press("Deleted documents")
    assert "newest backup 20" in bot.screen.text
    await bot.press(f"1. {NAME}")
    assert "does not exist now" in bot.screen.text
    await bot.press("1. 20")
    await bot.press("Restore this one")
    assert await seline.data.load_json(NAME) == {"n": 1}
    await bot.press("Undo")
    assert await seline.data.load_json(NAME, None) is None
    await bot.press("Undo")
    assert await seline.data.load_json(NAME) == {"n": 1}


async def test_a_document_that_changed_since_the_preview_is_shown_again(
    bot: Any, seline: Seline
) -> None:
    """Do not restore over a content that the owner has not seen."""
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.save_json(NAME, {"n": 2})
    await bot.command(NAME)
    await bot.press("1. 20")
    await seline.data.save_json(NAME, {"n": 3})
    await bot.press("Restore this one")
    assert "has changed since you looked" in bot.screen.text
    assert "n: 3 becomes 1" in bot.screen.text
    assert await seline.data.load_json(NAME) == {"n": 3}
    await bot.press("Restore this one")
    assert await seline.data.load_json(NAME) == {"n": 1}


async def test_long_names_and_contents_fit(bot: Any, seline: Seline) -> None:
    """Stay within the limits of the service, which the fake one checks."""
    names = [f"{'n' * 94}{number}.json" for number in range(9)]
    for name in names:
        await seline.data.save_json(name, {str(key): "😀" * 90 for key in range(60)})
        await seline.data.save_json(name, {str(key): "_*`" * 30 for key in range(60)})
    await bot.command()
    await bot.press("Restore")
    assert "Page 1 of 2" in bot.screen.text
    labels = [label for label in bot.screen.last.buttons if ".json" in label]
    assert len(labels) == 8
    await bot.press("▶")
    assert names[8] in bot.screen.text
    await bot.press("1. n")
    await bot.press("1. 20")
    assert "more changes" in bot.screen.text
    await bot.press("Restore another backup")
    await bot.press("Show")
    assert "This is the beginning" in bot.screen.text


async def test_the_export_arrives_as_a_file(bot: Any, seline: Seline) -> None:
    """Send one .tar with the manifest, after a warning that it is readable."""
    await seline.data.save_json(NAME, {"n": 1})
    await bot.command()
    await bot.press("Export now")
    assert "NOT encrypted" in bot.screen.text
    await bot.press("Send the file")
    [(name, data)] = bot.screen.files.items()
    assert name in bot.screen.text
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [member.rpartition("/")[2] for member in tar.getnames()]
    assert members == ["pack-0001.tar.zst", "manifest.json"]


async def test_an_alert_has_buttons_where_the_bot_sends_it(bot: Any, seline: Seline) -> None:
    """Show the document under the alert, more than once, and keep the alert."""
    if bot.service == "discord":
        pytest.skip("a webhook of Discord has no buttons that reach the bot")
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.save_json(NAME, {"n": 2})
    await bot.begin()

    def sent(**values: str) -> list[dict[str, str]]:
        fields = {"token": "1:offline", "chat_id": "7", **values}
        spec = SinkSpec(kind="telegram", name="t", **fields)
        payload = ENCODERS["telegram"](seline.settings, spec, ALERT).payload
        return payload.get("reply_markup", {"inline_keyboard": [[]]})["inline_keyboard"][0]

    assert not sent(token="2:another"), "another bot does not get the press"
    assert not sent(chat_id="-5"), "a group gets no answer"
    buttons = {each["text"]: each["callback_data"] for each in sent()}
    assert list(buttons) == ["Show", "Restore another backup"]
    bot.screen.messages["50"] = ShownMessage("the alert", buttons)
    await bot.press("Show", message="50")
    assert '"n": 2' in bot.screen.text
    await bot.press(buttons["Restore another backup"], message="50")
    assert "1 backup" in bot.screen.text
    assert bot.screen.messages["50"].text == "the alert"
    await bot.press("1. 20")
    await bot.press("Restore this one")
    assert await seline.data.load_json(NAME) == {"n": 1}


@pytest.mark.parametrize("seline", [{"alerts__language": "fr"}], indirect=True)
async def test_the_chat_speaks_french(bot: Any, seline: Seline) -> None:
    """Use the language of the alerts."""
    await seline.data.save_json(NAME, {"n": 1})
    await seline.data.save_json(NAME, {"n": 2})
    await bot.command()
    await bot.press("Restaurer")
    await bot.press(f"1. {NAME}")
    assert "· parmi les 5 plus récentes" in bot.screen.text
    await bot.press("1. 20")
    assert "n : 2 devient 1" in bot.screen.text
    await bot.press("Restaurer celle-ci")
    assert "est restauré tel qu'il était" in bot.screen.text


@pytest.mark.parametrize("seline", [{"alerts__language": "fr"}], indirect=True)
async def test_an_error_is_french_in_the_chat(bot: Any, seline: Seline) -> None:
    """Show a document that was deleted since it was listed."""
    await seline.data.save_json(NAME, {"n": 1})
    await bot.command()
    await bot.press("Restaurer")
    await bot.press(f"1. {NAME}")
    await seline.data.delete(NAME)
    await bot.press("Afficher")
    assert bot.screen.text.startswith(f"Il n'y a pas de document {NAME}.")
    assert (
        f"Ensuite : `seline documents` donne les noms ; `seline restore {NAME}`" in bot.screen.text
    )
