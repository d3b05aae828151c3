"""The extension in a real Blender: times, blocks of the window and memory; the commands are in `__main__`."""
