"""The process: start and stop the library, the admin API, the jobs and the alerts in order."""

from seline.server.listening import control_socket, control_socket_path
from seline.server.process import run_server
from seline.server.serving import Serving, alone, serving

__all__ = ["Serving", "alone", "control_socket", "control_socket_path", "run_server", "serving"]
