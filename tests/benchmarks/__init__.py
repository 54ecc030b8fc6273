"""What Seline costs beside the raw system calls, measured in one run on one file system."""
