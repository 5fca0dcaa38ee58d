"""FLiPLens: read what a sentence embedding says."""

__version__ = "0.1.0"
