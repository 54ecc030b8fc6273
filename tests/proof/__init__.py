"""What the fault suites share: the operations they break, the judge, the figures."""
