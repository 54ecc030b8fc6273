"""Values that Seline keeps in its own state documents, with instants in UTC."""

from datetime import datetime

import msgspec

from seline.clock import in_utc


class Stored(msgspec.Struct, frozen=True):
    """The base of such values. Every instant in it is aware and in UTC.

    An instant without an offset is taken as UTC. Raises ValueError for one outside the years 1 to
    9999 in UTC, which makes decoding raise `msgspec.ValidationError`.
    """

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, datetime):
                msgspec.structs.force_setattr(self, name, in_utc(value))
