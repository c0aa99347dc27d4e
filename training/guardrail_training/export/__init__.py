"""Trained models as folders that others can use: merged weights, manifest, model card; a hub."""
