"""How values become documents within the limits of the settings: bytes, and levels of nesting."""

from typing import TypeVar

import msgspec

from seline.domain.document import Content, Json
from seline.domain.json_codec import decode, encode, encode_given
from seline.domain.json_splice import Splice
from seline.errors import DocumentTooLarge, WrongShape
from seline.settings import Storage

T = TypeVar("T")


def content_of(value: object, limits: Storage) -> Content:
    """Return a value's content. Raises NotSerializable, DocumentTooLarge."""
    return checked_content(encode(value, depth_max=limits.depth_max), limits)


def given_content(text: bytes, limits: Storage) -> Content:
    """Return the content of a text that a person or a program gives.

    Raises NotJson, DocumentTooLarge.
    """
    return checked_content(encode_given(text, depth_max=limits.depth_max), limits)


def json_copy(value: object, limits: Storage) -> Json:
    """Return a copy of a value as it will be read back. Raises as `content_of` does."""
    data = encode(value, depth_max=limits.depth_max)
    _check_size(len(data), limits)
    return decode(data)


def typed(name: str, data: bytes, type: type[T]) -> T:
    """Return a document's value as a value of `type`. Raises WrongShape."""
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        raise WrongShape(
            f"{name} is not a {getattr(type, '__name__', type)}: {error}.", document=name
        ) from error


def checked_content(data: bytes, limits: Storage) -> Content:
    """Return the content of bytes that `encode` made. Raises DocumentTooLarge."""
    _check_size(len(data), limits)
    return Content.of(data, is_encoded=True)


def spliced_content(before: Content, splice: Splice, limits: Storage) -> Content:
    """Return an encoded content with a value replaced. Raises DocumentTooLarge."""
    _check_size(before.size_bytes - (splice.end - splice.at) + len(splice.new), limits)
    return before.spliced(splice.at, splice.end, splice.new, splice.value_at)


def _check_size(size_bytes: int, limits: Storage) -> None:
    if size_bytes > limits.document_bytes_max:
        raise DocumentTooLarge(
            f"The document would have {size_bytes} bytes; {limits.document_bytes_max} are "
            "allowed. Nothing was written.",
            size_bytes=size_bytes,
            size_bytes_max=limits.document_bytes_max,
        )
