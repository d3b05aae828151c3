"""One photo in, its faces out: fitting, and the result it leaves."""
