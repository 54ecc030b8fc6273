"""What the tests of the chat need without importing a library: a person, an alert, a screen."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from seline.domain.alerts.lifecycle import Alert, AlertType, Severity

OWNER, STRANGER = 7, 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "user_profile.json"
ALERT = Alert(
    id="0123456789abcdef",
    type=AlertType.RECOVERY,
    severity=Severity.WARNING,
    state="open",
    document=NAME,
    summary=f"recovered {NAME}",
    details={},
    fix="",
    first_at=NOW,
    last_at=NOW,
    count=1,
)


@dataclass
class ShownMessage:
    """A message as it is on the screen: its text, and the data of each button by its label."""

    text: str
    buttons: dict[str, str]


@dataclass
class Screen:
    """What the service got."""

    messages: dict[str, ShownMessage] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    unhandled: list[str] = field(default_factory=list)
    """What the bot's own handlers got."""

    @property
    def last(self) -> ShownMessage:
        """The newest message."""
        return list(self.messages.values())[-1]

    @property
    def text(self) -> str:
        return self.last.text

    def labelled(self, words: str) -> str:
        """Return the data of the first button whose label has the words."""
        return next(data for label, data in self.last.buttons.items() if words in label)
