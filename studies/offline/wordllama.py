"""Make a sentence-transformers folder of WordLlama, whose weights come with its Python package.

pip install --no-deps wordllama
python studies/offline/wordllama.py runs/wordllama
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer

WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENISER = "tokenizers/l2_supercat_tokenizer_config.json"


def main(folder: Path) -> None:
    """Write the folder."""
    package = Path(str(distribution("wordllama").locate_file("wordllama")))
    (weights,) = load_file(package / WEIGHTS).values()
    tokeniser = Tokenizer.from_file(str(package / TOKENISER))
    static = StaticEmbedding(tokeniser, embedding_weights=weights.float().numpy())
    SentenceTransformer(modules=[static, Normalize()], device="cpu").save(str(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
