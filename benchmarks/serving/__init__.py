"""Load, faults and long runs of the server; the commands are in `__main__`."""
