"""Records what was changed and why."""
