"""Where vectors that are made already can lie, and how each kind of place is read.

A source is one string (`fliplens.sources.specs`): a path, or `KIND:PLACE`, with options behind `#`. Files are read in
place by `fliplens.embeddings.open_embeddings`; stores (Qdrant, PostgreSQL) are brought to the disk once, by
`fliplens.sources.importing`. Each kind has its adapter, whose library is imported when it is asked for.
"""

from __future__ import annotations

from fliplens.sources.registry import known_sources
from fliplens.sources.specs import SourceSpec

__all__ = ["SourceSpec", "known_sources"]
