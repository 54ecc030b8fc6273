"""The volume store: documents as readable files in one directory, committed in groups.

`disk` makes the calls, `ground` holds the directory, `judging` looks, `shelf` knows the backups,
`commit` changes, `writer` queues, `opening` mends at start, `store` is the port's face.
"""
