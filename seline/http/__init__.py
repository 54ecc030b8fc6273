"""The admin API: requests come in here, through one table of routes.

`routes` is the table, `app` assembles it, `access` lets people in, `problems` maps errors,
`requests` parses, `rendering` renders, and the handlers stand by subject.
"""
