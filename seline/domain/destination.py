"""What a destination receives: dated exports, the mirror of the newest changes, or both."""

from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["export", "mirror", "both"]
