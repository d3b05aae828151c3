"""How the Blender extension is packed: wheels, archives, repository."""
