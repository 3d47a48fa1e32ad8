"""A run: its configuration, its folder, its checkpoints and its pictures."""
