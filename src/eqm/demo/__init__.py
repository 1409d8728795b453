"""The demonstration: train on handwritten digits, put the landscape to each of its uses, and
report."""
