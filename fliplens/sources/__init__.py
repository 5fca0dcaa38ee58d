"""Where rows that are made already can lie, and how each kind of place is read.

A source is one string (`fliplens.sources.specs`): a path, or `KIND:PLACE`, with options behind `#`.
"""

from __future__ import annotations

from fliplens.sources.specs import Source

__all__ = ["Source"]
