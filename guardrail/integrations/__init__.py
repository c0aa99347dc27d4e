"""Ways in: decorator, command line, server, files, and other frameworks."""
