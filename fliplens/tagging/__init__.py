"""Named entities of raw text: taggers, all alike from here, and the file that they write.

A tagger is named by a **spec**, one string that `load_tagger` understands and that manifests record:

| spec | tagger |
|---|---|
| `gazetteer:FILE` | names listed in a text file, one a line |
| `transformers:PATH_OR_HUB_ID[@REVISION]` | a token-classification model, from a folder or the Hugging Face Hub |
| `gemini`, `gemini:MODEL` | a Gemini model, asked through Google's API |

Importing this package loads no model library: each adapter imports its own when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fliplens.errors import InputError
from fliplens.tagging.tagger import DecliningTagger, Tagger
from fliplens.tagging.writing import Tagged, tag_texts

if TYPE_CHECKING:
    from fliplens.tagging.gazetteer import WordRule

__all__ = ["DecliningTagger", "Tagged", "Tagger", "load_tagger", "tag_texts"]


def load_tagger(
    spec: str,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    match_case: bool | None = None,
    tokeniser: WordRule | None = None,
    labels: Sequence[str] | None = None,
    base_url: str | None = None,
) -> Tagger:
    """Load the tagger that `spec` names (see the table at the top of this package).

    Args:
        spec: `gazetteer:FILE`, `transformers:PATH_OR_HUB_ID[@REVISION]`, `gemini` or `gemini:MODEL`.
        device: where a transformers model computes: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: windows of text that go through a transformers model at once, or sentences in a call to Gemini.
        match_case: of a gazetteer: ask for its capital letters.
        tokeniser: of a gazetteer: "icu" finds names in Chinese, Japanese, Thai, Lao, Khmer and Burmese as well.
        labels: of a transformers model: which of its labels count, such as PER, ORG, LOC; None for all but O.
        base_url: of Gemini: another server than Google's, a proxy say.

    Raises:
        InputError: no tagger goes by that spec, an option is not this tagger's, or there is no such file or model.
        MissingExtraError: the library that runs this tagger is not installed.
        FliplensError: the model could not be loaded.
    """
    kind, _, name = spec.partition(":")
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "match_case": match_case,
        "tokeniser": tokeniser,
        "labels": labels,
        "base_url": base_url,
    }
    known = {
        "gazetteer": ("match_case", "tokeniser"),
        "transformers": ("batch_size", "labels"),
        "gemini": ("batch_size", "base_url"),
    }
    if kind not in known or (kind != "gemini" and not name):
        raise InputError(
            f"expected a tagger of gazetteer:FILE, transformers:PATH_OR_HUB_ID or gemini[:MODEL], found {spec!r}: "
            "name one of these"
        )
    for option, value in options.items():
        if value is not None and option not in known[kind]:
            owner = " or ".join(one for one in known if option in known[one])
            raise InputError(f"expected {option} with the tagger {owner} alone, found it with {kind}: leave it out")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"expected a batch_size of 1 or more, found {batch_size}")
    given = {option: value for option, value in options.items() if value is not None}
    if kind == "gazetteer":
        from fliplens.tagging.gazetteer import GazetteerTagger

        return GazetteerTagger.load(name, **given)
    if kind == "transformers":
        from fliplens.tagging.transformers import load

        return load(name, device=device, **given)
    from fliplens.tagging.gemini import GeminiTagger

    if name:
        given["model"] = name
    return GeminiTagger(**given)
