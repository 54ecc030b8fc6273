"""The commit: make one batch of documents current on the volume, or leave everything as it was."""
