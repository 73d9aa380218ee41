"""Measures of speed and footprint; see docs/benchmarks.md. Figures are kept, never asserted."""
