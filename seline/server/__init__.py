"""The process: start and stop the library, the admin API, the jobs and the alerts in order."""

from seline.server.process import run_server
from seline.server.serving import Serving, alone, answer_commands, serving

__all__ = ["Serving", "alone", "answer_commands", "run_server", "serving"]
