"""Where long work on a whole corpus runs: what an engine does, the work there is for one, and Ray.

Encoding and reading on this machine need no engine: `fliplens.encoding.texts` and `fliplens.lenses.reading_files`.
An engine runs pieces of rows wherever there is room; each writes its own file of Parquet, whole or not at all, with
the number of every row, and a run that was killed or stopped goes on with the pieces that have no file.
"""

from __future__ import annotations

from fliplens.engines.protocol import Engine, Outcome, Piece, Work

__all__ = ["Engine", "Outcome", "Piece", "Work"]
