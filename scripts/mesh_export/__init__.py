"""Photos to mesh files in bulk, through Blender: outside it with the `bpy` package, or inside it with the installed extension."""
