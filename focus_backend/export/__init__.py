"""What a reconstruction leaves on disk: OBJ, GLB, pictures and result.json, written all or nothing."""
