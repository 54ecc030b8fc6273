"""The admin API.

`routes` is the table of routes, `app` assembles it, `access` authenticates, `problems` maps errors
to answers, `requests` parses and `rendering` renders. `answers` has the types of the JSON, and
`openapi` describes the routes with them and with `parameters`. Each other file has the handlers of
one subject: a handler parses, calls one operation, and renders. `connections` has the limits of the
clients; there, `known_documents` answers reads of documents in memory before the app is asked.
"""

from typing import Final

PREFIX: Final = "/api/v1/data-admin"
"""Every path of the API begins with this, but the probes' and that of the metrics."""
MERGE_PATCH: Final = "application/merge-patch+json"
"""The type of the body of a PATCH (RFC 7396)."""
