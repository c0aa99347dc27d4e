"""What makes this project's own models and tables; importable in the checkout, in no wheel."""
