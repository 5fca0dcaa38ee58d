"""Encoders turn sentences, written or spoken, into vectors; all of them look the same from here.

An encoder is named by a **spec**, one string that `load_encoder` understands and that lenses and manifests record:
`minilm`, `st:PATH_OR_HUB_ID[@REVISION]`, or whatever else `known_encoders()` lists. An existing folder, or
`OWNER/NAME[@REVISION]`, is a sentence-transformers model without the prefix; a folder wins over a Hub name.

Importing this package loads no model library: each adapter imports its own when it is asked for.
"""

from fliplens.encoders.protocol import BatchEncoder, EncodedBatch, Encoder, OnBad, Speech, SpeechEncoder, over_long
from fliplens.encoders.registry import PRECISIONS, canonical_spec, known_encoders, load_encoder, text_spec

__all__ = [
    "PRECISIONS",
    "BatchEncoder",
    "EncodedBatch",
    "Encoder",
    "OnBad",
    "Speech",
    "SpeechEncoder",
    "canonical_spec",
    "known_encoders",
    "load_encoder",
    "over_long",
    "text_spec",
]
