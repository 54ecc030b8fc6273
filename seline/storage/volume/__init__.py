"""The volume store: documents as readable files in one directory, committed in groups.

`files` makes the system calls, `directory` holds the directory, `inspect` reads and judges,
`backup_index` lists the backups, `commit` writes, `writer` queues, `opening` repairs at start,
`store` implements the port.
"""
