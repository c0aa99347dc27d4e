"""A finished or running training as one HTML page."""
