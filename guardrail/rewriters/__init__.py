"""Rewriters: models that propose neutral text, and the verifier of what they propose."""
