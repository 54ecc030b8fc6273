"""The sentences of errors, checks and jobs in other languages than English."""
