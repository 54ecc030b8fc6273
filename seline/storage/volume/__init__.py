"""The volume store: documents as readable files in one directory, committed in batches.

Opening: `open` wires the parts, `lock` and `directory` hold the directory, `mounts` and
`capabilities` look at its place. Reading: `inspect` judges files, `cache` remembers them, `current`
finds a sound content, `backup_index` lists backups, `snapshots` keep an instant. Writing: `writer`
queues, `batches` plans and answers, `admission` and `disk_usage` limit, `commit/` publishes,
`rotation` removes backups, `reopen` follows a failed sync. `files` makes every system call that
changes the disk. `store` and `medium` implement the ports.
"""
