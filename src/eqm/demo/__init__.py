"""The demonstration: train on handwritten digits, put the landscape to each use, and report."""
