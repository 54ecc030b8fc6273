"""The scheduled jobs: integrity, rotation, usage and exports, in the server's process."""

from seline_workers.worker import Worker

__all__ = ["Worker"]
