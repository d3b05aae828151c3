"""Steps of `scripts/calibrate_population.py` and of `scripts/compare_population.py`."""
