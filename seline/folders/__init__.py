"""Folders on this machine that an import reads: an older bot's files, or an export."""
