"""Training and evaluation of the networks. May import `focus_backend`; only the CLI's `train` and `evaluate` groups import it."""
