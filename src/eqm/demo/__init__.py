"""The demo: trains on handwritten digits, tries every use and writes a report."""
