"""How values become documents under one store's limits."""

from dataclasses import dataclass

from seline.domain.document import Content, Json
from seline.domain.json_codec import decode, encode
from seline.errors import DocumentTooLarge


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The limits: bytes of a document, and levels of nesting."""

    document_bytes_max: int
    depth_max: int

    def content(self, value: object) -> Content:
        """Return a value's content. Raises NotSerializable, DocumentTooLarge."""
        return self.checked(encode(value, depth_max=self.depth_max))

    def copied(self, value: object) -> Json:
        """Return a copy of a value as it will be read back. Raises as `content` does."""
        data = encode(value, depth_max=self.depth_max)
        self._check_size(data)
        return decode(data)

    def checked(self, data: bytes) -> Content:
        """Return the content of bytes that are encoded already. Raises DocumentTooLarge."""
        self._check_size(data)
        return Content.of(data)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self.document_bytes_max:
            raise DocumentTooLarge(
                f"The document would have {len(data)} bytes; {self.document_bytes_max} are "
                "allowed. Nothing was written.",
                size_bytes=len(data),
                size_bytes_max=self.document_bytes_max,
            )
