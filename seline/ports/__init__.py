"""What the policy asks of the outside: short Protocols whose docstrings are the law."""
