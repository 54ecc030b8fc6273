"""Shared by the fault suites: the operations under test, the checks, the figures."""
