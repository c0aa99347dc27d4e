"""What detectors and rewriters are measured by."""
