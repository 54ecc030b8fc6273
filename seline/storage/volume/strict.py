"""Strict mode (`SELINE_STRICT=1`, for tests): verify the store after each commit.

A failure is a defect of Seline's: its AssertionError ends the writer's thread and the store.
"""

from seline.domain.document import DocumentKey
from seline.domain.verdict import Verdict
from seline.storage.volume.commit.base import Committer
from seline.storage.volume.current import CurrentDocuments

DOCUMENTS_MAX = 200
"""Only so many documents of a space are verified, to bound the time."""


def verify_after_commit(committer: Committer, current_documents: CurrentDocuments) -> None:
    """Assert that the commit left no temporary file, and that backups are in order."""
    if not committer.unpublished:  # a file that cannot be published may stay in staging/
        assert not (left := committer.leftovers()), f"a commit left {left}"
    volume = current_documents.inspector.volume
    for space in volume.spaces:
        for name in volume.document_names(space)[:DOCUMENTS_MAX]:
            if current_documents.find(DocumentKey(space, name)).judged.verdict is Verdict.SOUND:
                backups = current_documents.backup_index(space).of(name)
                stamps = [backup.stamp for backup in backups if backup.ours]
                assert stamps == sorted(stamps, reverse=True), f"{name}: backups out of order"
