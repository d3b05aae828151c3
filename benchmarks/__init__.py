"""Speed and accuracy as commands that print a figure beside its baseline."""
