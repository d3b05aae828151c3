"""What the networks are trained on: photos of people, and synthetic faces with known truth."""
