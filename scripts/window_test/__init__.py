"""Drives a real Blender with a real window as a user would; `scripts/try_in_blender.py` and `benchmarks/blender` use it.

`inspector.py` runs inside Blender and says what is really there; everything else runs outside and only has mouse, keys and pictures.
"""
