"""Settings of `fit`: names, types and spellings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fliplens.errors import InputError
from fliplens.settings import FitSettings, is_override, parse_override, read_yaml
from fliplens.text.choosing import VocabularyConfig
from fliplens.text.concepts import ConceptConfig
from fliplens.text.tokenisation import Tokeniser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("passes=3", ("passes", 3)),
        ("l1=1e-4", ("l1", "1e-4")),
        ("rank=full", ("rank", "full")),
        ("batch-size=64", ("batch_size", 64)),
        ("ngram_range=[1, 2]", ("ngram_range", [1, 2])),
        ("vocab_size=null", ("vocab_size", None)),
        # Paths are what they look like.
        ("output=007", ("output", "007")),
        ("texts=a=b.txt", ("texts", "a=b.txt")),
        ("encoder=yes", ("encoder", "yes")),
    ],
)
def test_key_value_pairs(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["=3", "passes", "passes=[1"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_override(text)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_override("passes=3") and is_override("training.batch_size=7")
    assert not is_override("./lr=1/config.yaml") and not is_override("config.yaml")
    (tmp_path / "lr=1").mkdir()
    (tmp_path / "lr=1" / "config.yaml").write_text("x: 1")
    assert not is_override("lr=1/config.yaml")


def test_strings_become_the_types_that_settings_have() -> None:
    settings = FitSettings.from_mapping(
        {"l1": "1e-4", "passes": "3", "rank": "16", "alpha": 1, "vocab_size": "all", "min_df": "0.5", "max_df": 2}
    )
    assert (settings.train.l1, settings.train.passes, settings.train.rank, settings.train.alpha) == (1e-4, 3, 16, 1.0)
    assert isinstance(settings.vocabulary, VocabularyConfig)
    assert (settings.vocabulary.size, settings.vocabulary.min_df, settings.vocabulary.max_df) == (None, 0.5, 2)
    paper = FitSettings.from_mapping({"recipe": "paper", "rank": "full", "tokeniser": "published"})
    assert isinstance(paper.vocabulary, VocabularyConfig)
    assert (paper.train.batch_size, paper.train.rank, paper.vocabulary.tokeniser.mode) == (6000, "full", "published")


def test_concepts_are_chosen_by_settings_of_their_own() -> None:
    assert FitSettings.from_mapping({"concepts": True}).vocabulary == ConceptConfig()
    settings = FitSettings.from_mapping(
        {"concepts": True, "min_frequency": "3", "min_pmi": 2, "unigrams": 7, "bigrams": "0", "min_length": 2}
    )
    assert settings.vocabulary == ConceptConfig(
        min_frequency=3, min_pmi=2.0, unigrams=7, bigrams=0, tokeniser=Tokeniser(min_length=2)
    )
    assert FitSettings.from_mapping({"concepts": False, "vocab_size": 5}).vocabulary == VocabularyConfig(size=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentum": 1}, "momentum"),
        ({"passes": "many"}, "passes"),
        ({"ngram_range": 2}, "ngram_range"),
        ({"tokeniser": "magic"}, "mode"),
        ({"hold_out": "half"}, "hold_out"),
        ({"recipe": "best"}, "recipe"),
        ({"concepts": "yes"}, "concepts to be true or false"),
        ({"concepts": True, "vocab_size": None}, "min_frequency.*with concepts=true, found vocab_size: leave"),
        ({"concepts": True, "ngram_range": [1, 2], "min_df": 2}, "found min_df, ngram_range"),
        ({"min_pmi": 1, "bigrams": 5}, "vocab_size.*with concepts=false, found min_pmi, bigrams: set concepts=true"),
        ({"concepts": True, "min_pmi": "high"}, "min_pmi"),
        ({"concepts": True, "unigrams": "2.5"}, "unigrams"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitSettings.from_mapping(values)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", "a: !!python/object/apply:os.system [ls]\n", "\x00"])
def test_yaml_that_is_no_plain_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_yaml(tmp_path / "c.yaml")
