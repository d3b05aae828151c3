"""What the commands of `focus-backend` do, apart from how their options are spelled."""
