"""JSON Merge Patch (RFC 7396): a patch that has the shape of the document that it changes."""

from seline.domain.document import Json


def merged(value: Json, patch: Json) -> Json:
    """Return `value` changed by `patch`; both stay as they are, and the result may share parts.

    An object is merged member by member, and a null removes the member. Any other patch replaces
    the whole value.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result
