"""Training and evaluation of the networks; imports `focus_backend`, never the other way round."""
