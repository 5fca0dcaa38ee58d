"""SONAR's text encoder on random weights, compared with the model's own call, one text at a time, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from test_encoder_contract import SENTENCES

from fliplens.encoders import load_encoder
from fliplens.errors import InputError

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_sonar_text(tmp_path_factory.mktemp("sonar") / "m")


def mean_of_tokens(folder: Path, texts: list[str], language: str) -> Any:
    """Return (n, d): code, tokens and end of each text through the encoder alone, and the mean of what comes out."""
    import torch
    from transformers import NllbTokenizer
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    tokenizer = NllbTokenizer.from_pretrained(folder)
    model = M2M100Encoder.from_pretrained(folder, dtype=torch.float64).eval()
    vectors = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [tokenizer.convert_tokens_to_ids(language), *ids, tokenizer.convert_tokens_to_ids("</s>")]
        with torch.no_grad():
            vectors.append(model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("language", tiny.LANGUAGES)
def test_the_vector_is_the_mean_over_the_tokens_with_the_languages_code(folder: Path, language: str) -> None:
    encoder: Any = load_encoder(f"sonar-text:{folder}#language={language}", device="cpu", precision="float32")
    expected = mean_of_tokens(folder, SENTENCES, language)
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=2e-5)
    again = encoder.in_language("eng_Latn").in_language(language)
    assert again.spec == encoder.spec
    np.testing.assert_allclose(again.encode(SENTENCES), expected, atol=2e-5)


def test_the_language_is_english_unless_another_is_named_and_changes_the_vector(folder: Path) -> None:
    encoder: Any = load_encoder(f"sonar-text:{folder}", device="cpu", precision="float32")
    vectors = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors, mean_of_tokens(folder, SENTENCES, "eng_Latn"), atol=2e-5)
    french = encoder.in_language("fra_Latn")
    assert french.spec == f"sonar-text:{folder}#language=fra_Latn"
    assert np.abs(french.encode(SENTENCES) - vectors).max(axis=1).min() > 0.01
    # The first one still reads English.
    np.testing.assert_array_equal(encoder.encode(SENTENCES), vectors)


def test_its_layers_can_be_read_too(folder: Path) -> None:
    encoder: Any = load_encoder(f"sonar-text:{folder}#layer=1", device="cpu", precision="float32")
    layers = encoder.encode_layers(SENTENCES)
    assert layers.shape == (3, len(SENTENCES), 16)
    np.testing.assert_allclose(encoder.encode(SENTENCES), layers[1], atol=1e-5)
    np.testing.assert_allclose(layers[2], mean_of_tokens(folder, SENTENCES, "eng_Latn"), atol=2e-5)
    np.testing.assert_allclose(
        encoder.with_layer(2).in_language("fra_Latn").encode(SENTENCES),
        mean_of_tokens(folder, SENTENCES, "fra_Latn"),
        atol=2e-5,
    )


def test_codes_come_from_the_tokeniser(folder: Path) -> None:
    encoder: Any = load_encoder(f"sonar-text:{folder}", device="cpu")
    assert encoder.languages == sorted(tiny.LANGUAGES)


@pytest.mark.parametrize(
    ("code", "hint"),
    [("fra", "fra_Latn"), ("FRA_Latn", "fra_Latn"), ("en", "eng_Latn"), ("klingon", "_"), ("<s>", "_")],
)
def test_a_code_that_the_tokeniser_does_not_know_is_told_what_is_near(folder: Path, code: str, hint: str) -> None:
    with pytest.raises(InputError, match=rf"knows \(4 of them\), found '{code}': use, say, .*{hint}") as caught:
        load_encoder(f"sonar-text:{folder}#language={code}", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_model_without_languages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="language codes .* for a model without languages use hf:"):
        load_encoder(f"sonar-text:{tiny.build_bert(tmp_path / 'm')}", device="cpu")
