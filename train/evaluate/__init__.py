"""What a finished reconstruction is worth: shape, masks and colours against ground truth, for results of every method."""
