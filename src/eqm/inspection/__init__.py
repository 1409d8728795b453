"""Inspection of parts: a detector of a folder of good ones, its report, and overlays of what it finds."""
