"""Coming back: find the copy for a volume that never held a document."""

import logging
from collections.abc import Sequence
from typing import Final

from seline.domain.copy import Copy
from seline.errors import CopyNotFound, ExportFailed, SelineError
from seline.operations.copies import Copies
from seline.ports.destinations import ObjectForbidden, Target
from seline.ports.sealing import Sealer

AUTO: Final = "auto"
OFF: Final = "off"
_log = logging.getLogger("seline.restore")


async def find_copy(
    targets: Sequence[Target], sealer: Sealer, *, restore_from: str, place: str
) -> Copy | None:
    """Return the copy to restore onto the empty volume at `place`, None if there is none.

    It is of the first destination that has a whole copy; one that fails is passed over if another
    has a copy. Raises ExportFailed if none of the others has: to begin empty would look as if
    everything were lost.
    """
    failed: SelineError | None = None
    for target in targets:
        name = target.destination.name
        if restore_from not in (AUTO, name):
            continue
        try:
            return await Copies(target.destination, sealer).find()
        except CopyNotFound:
            _log.info("%s has no copy", name)
        except ObjectForbidden as error:
            _log.warning("%s cannot be asked for a copy: %s", name, error.message)
        except SelineError as error:
            failed = failed or ExportFailed(
                f"The volume at {place} is empty, and the copy at {name} cannot be taken: "
                f"{error.message}",
                hint=f"{error.hint} To begin empty, set `exports.restore_from = off`.",
            )
    if failed is not None:
        raise failed
    return None
