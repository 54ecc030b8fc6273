"""Seline's cost compared with raw system calls, in the same run on the same file system."""
