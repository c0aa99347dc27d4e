"""What the detector is made of: texts, training, export."""
