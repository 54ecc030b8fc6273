"""The interfaces that other rooms implement: Protocols whose docstrings are the contract."""
