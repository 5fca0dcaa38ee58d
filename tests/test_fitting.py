"""`fit` from end to end: a lens that reads words, its held-out rows, its records, and refused calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import WORDS, ToyEncoder, toy_corpus, toy_texts

import fliplens.encoders
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.encoders import canonical_spec
from fliplens.encoding.texts import encode_texts
from fliplens.errors import EmbeddingSpaceWarning, FliplensWarning, InputError, MissingExtraError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.preparation import _hold_out
from fliplens.training.recipes import TrainConfig
from fliplens.training.views import Rows

FAST = TrainConfig(passes=6, batch_size=32)


def test_three_lines_read_words() -> None:
    texts, embeddings = toy_corpus(600)
    lens = fit(texts, embeddings, config=FAST)
    read = lens.words(ToyEncoder().encode(["thunder velvet"])[0], n=2)
    assert {word.word for word in read} == {"thunder", "velvet"}


def test_files_arrays_and_tensors_give_the_same_lens(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(200)
    write_lines(tmp_path / "t.txt", texts)
    np.save(tmp_path / "v.npy", vectors)
    lenses = [
        fit(texts, vectors, config=FAST),
        fit(tmp_path / "t.txt", tmp_path / "v.npy", config=FAST),
        fit(texts, torch.from_numpy(vectors), config=FAST),
    ]
    for lens in lenses[1:]:
        assert torch.equal(lens.factors.E1, lenses[0].factors.E1)
        assert torch.equal(lens.factors.b, lenses[0].factors.b)


def test_the_lens_records_how_it_was_made() -> None:
    texts, vectors = toy_corpus(600)
    lens = fit(texts, vectors, encoder=ToyEncoder(), config=FAST)
    assert lens.encoder == "toy"
    assert lens.config["encoder"] == {"spec": "toy", "name": "toy encoder", "revision": "1"}
    data = lens.config["data"]
    assert data["rows"] == 600 and data["rows_trained"] + data["dev_rows"] == 600
    assert lens.config["recipe"] == FAST.to_json()
    assert lens.config["training"]["anchor"] == "words"
    dev = lens.config["metrics"]["dev"]
    best = lens.config["training"]["history"][lens.config["training"]["best_pass"]]
    assert dev["accuracy"]["with_prior"]["mean"] == pytest.approx(best["dev"], abs=1e-6)


@given(
    labels=st.lists(st.integers(0, 400), min_size=400, max_size=800),
    seed=st.integers(0, 5),
)
def test_held_out_rows_share_no_text_with_the_rest(labels: list[int], seed: int) -> None:
    texts = [f"text {label}" for label in labels]
    rows = Rows(texts, Embeddings([np.arange(len(texts), dtype=np.float32)[:, None]]), None)
    train, dev = _hold_out(rows, seed)
    if dev is None:
        assert min(Counter(labels).values()) > 0.05 * len(labels) - 1
        return
    assert len(dev.texts) <= 0.05 * len(labels)
    assert not set(train.texts) & set(dev.texts)
    together = np.concatenate([train.primary.to_numpy(), dev.primary.to_numpy()])[:, 0]
    assert sorted(together) == list(range(len(texts)))
    for part in (train, dev):
        assert [texts[int(row)] for row in part.primary.to_numpy()[:, 0]] == part.texts
    again, _ = _hold_out(rows, seed)
    assert again.texts == train.texts


def test_few_rows_are_all_trained_on() -> None:
    texts, vectors = toy_corpus(60)
    lens = fit(texts, vectors, config=FAST)
    assert lens.config["data"]["dev_rows"] == 0
    assert "metrics" not in lens.config
    more, more_vectors = toy_corpus(600)
    assert fit(more, more_vectors, config=FAST, hold_out=0).config["data"]["rows_trained"] == 600
    with pytest.raises(InputError, match="hold_out"):
        fit(more, more_vectors, hold_out=0.9)
    one_text = Rows(["same"] * 500, Embeddings([np.zeros((500, 1), np.float32)]), None)
    assert _hold_out(one_text, 0) == (one_text, None)


def test_the_vocabulary_comes_from_training_rows_only() -> None:
    texts, vectors = toy_corpus(300)
    dev_texts = ["xylophone " + text for text in toy_texts(50, seed=5)]
    lens = fit(texts, vectors, dev_texts=dev_texts, dev_embeddings=ToyEncoder().encode(dev_texts), config=FAST)
    assert "xylophone" not in lens.vocabulary
    assert set(lens.vocabulary.words) == set(WORDS)
    small = fit(texts, vectors, vocabulary=VocabularyConfig(size=7), config=FAST)
    assert len(small.vocabulary) == 7
    given_ = fit(texts, vectors, vocabulary=Vocabulary(("river", "stone")), config=FAST)
    assert given_.vocabulary.words == ("river", "stone")
    assert given_.config["data"]["rows_without_known_words"] > 0


def test_bad_rows_are_refused_by_number_or_dropped() -> None:
    texts, vectors = toy_corpus(300)
    paired = vectors.copy()
    vectors[7, 2], paired[9, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="from 0: 7"):
        fit(texts, vectors, config=FAST)
    lens = fit(texts, vectors, paired=paired, config=FAST, drop_bad_rows=True)
    assert lens.config["data"]["rows_dropped_not_finite"] == 2
    assert lens.config["data"]["rows"] == 298
    with pytest.raises(InputError, match="found none"):
        fit(texts, np.full_like(vectors, np.nan), config=FAST, drop_bad_rows=True)


def test_empty_rows_count_as_rows_and_teach_nothing() -> None:
    texts, vectors = toy_corpus(300)
    texts[3] = ""
    texts[4] = "!!!"
    lens = fit(texts, vectors, config=FAST)
    assert lens.config["data"]["rows_without_known_words"] >= 1


def test_two_views_train_one_lens() -> None:
    texts, clean = toy_corpus(600)
    noisy = ToyEncoder(noise=0.1).encode(texts)
    dev = toy_texts(200, seed=3)
    views: dict[str, Any] = {"dev_texts": dev, "dev_embeddings": ToyEncoder().encode(dev)}
    lens = fit(texts, clean, paired=noisy, dev_paired=ToyEncoder(noise=0.1).encode(dev), config=FAST, **views)
    assert set(lens.config["metrics"]["dev"]["views"]) == {"primary", "paired"}
    alone = fit(texts, clean, config=FAST, **views)
    found = [evaluate(one, dev, ToyEncoder(noise=0.1).encode(dev)).accuracy.with_prior.mean for one in (lens, alone)]
    assert found[0] > found[1] - 0.02
    with pytest.raises(InputError, match="--dev-paired"):
        fit(texts, clean, paired=noisy, config=FAST, **views)
    with pytest.raises(InputError, match="one without the other"):
        fit(texts, clean, dev_texts=dev, config=FAST)


def test_rows_that_are_not_parallel_are_refused() -> None:
    texts, vectors = toy_corpus(50)
    with pytest.raises(InputError, match="found 49 vectors .* and 50 lines in the training text"):
        fit(texts, vectors[:-1], config=FAST)
    with pytest.raises(InputError, match="49 vectors in training paired"):
        fit(texts, vectors, paired=vectors[:-1], config=FAST)
    with pytest.raises(InputError, match="16 dimensions"):
        fit(texts, vectors, dev_texts=texts, dev_embeddings=vectors[:, :5], config=FAST)
    called: list[int] = []

    class Counting(ToyEncoder):
        def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
            called.append(len(inputs))
            return super().encode(inputs, show_progress=show_progress)

    # Views of two widths are refused before anything is counted or encoded.
    narrow = vectors[:, :5].copy()
    pairs: list[dict[str, Any]] = [
        {"paired": narrow},
        {"paired": vectors, "dev_texts": texts, "dev_embeddings": vectors, "dev_paired": narrow},
    ]
    for pair in pairs:
        with pytest.raises(InputError, match="16 dimensions .*found 5 in (training|dev) paired embeddings"):
            fit(texts, vectors, encoder=Counting(), config=FAST, **pair)
    assert not called
    with pytest.raises(InputError, match="no .*term|found .*0 terms|found none|no word"):
        fit(["!!"] * 50, vectors, config=FAST)
    with pytest.raises(InputError, match="words of the vocabulary"):
        fit(texts, vectors, vocabulary=Vocabulary(("unheard",)), config=FAST)


def test_dev_text_without_known_words_warns_and_trains_on() -> None:
    texts, vectors = toy_corpus(100)
    with pytest.warns(FliplensWarning, match="last weights are kept"):
        lens = fit(texts, vectors, dev_texts=["qqq"], dev_embeddings=vectors[:1], config=FAST)
    assert lens.config["training"]["best_pass"] == 6


# The encoder ------------------------------------------------------------------------------------------------


def test_the_manifest_names_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = toy_texts(100)
    encode_texts(texts, ToyEncoder(), tmp_path / "v.npy")
    loaded: list[str] = []

    def load(spec: str, *, device: str = "auto", batch_size: int | None = None) -> Any:
        loaded.append(spec)
        return ToyEncoder()

    monkeypatch.setattr(fliplens.encoders, "load_encoder", load)
    lens = fit(texts, tmp_path / "v.npy", config=FAST)
    assert loaded == ["toy"] and lens.config["training"]["anchor"] == "words"
    assert lens.config["data"]["embeddings_sha256"] == open_embeddings(tmp_path / "v.npy").manifest.sha256  # type: ignore[union-attr]
    other = fit(texts, tmp_path / "v.npy", config=TrainConfig(passes=1, anchor="sentences"))
    assert loaded == ["toy"] and other.encoder == "toy"


def test_an_encoder_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = toy_corpus(100)

    def load(spec: str, **_: Any) -> Any:
        raise MissingExtraError(f"the encoder {spec}", "sentence-transformers")

    monkeypatch.setattr(fliplens.encoders, "load_encoder", load)
    with pytest.warns(FliplensWarning, match="starts from sentence means.*pip install"):
        lens = fit(texts, vectors, encoder="labse", config=FAST)
    assert lens.encoder == "labse" and lens.config["training"]["anchor"] == "sentences"
    with pytest.raises(MissingExtraError):
        fit(texts, vectors, encoder="labse", config=TrainConfig(anchor="words"))


def test_an_encoder_that_did_not_make_the_vectors_is_warned_about(tmp_path: Path) -> None:
    texts = toy_texts(100)
    encode_texts(texts, ToyEncoder(), tmp_path / "v.npy")
    other = ToyEncoder()
    other.spec = "other"
    with pytest.warns(EmbeddingSpaceWarning, match="toy made its vectors, but the encoder named is other"):
        fit(texts, tmp_path / "v.npy", encoder=other, config=TrainConfig(passes=1))


def test_a_spec_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    folder = f"st:{(tmp_path / 'model').resolve()}"
    assert {canonical_spec(spec) for spec in ("model", "./model", "st:model", folder)} == {folder}
    assert canonical_spec("OWNER/NAME") == canonical_spec("st:OWNER/NAME") == "st:OWNER/NAME"
    assert [canonical_spec(spec) for spec in ("minilm", "toy")] == ["minilm", "toy"]


def test_an_encoder_of_another_size_or_name_is_refused() -> None:
    texts, vectors = toy_corpus(100)
    narrow = ToyEncoder()
    narrow.dim = 8
    with pytest.raises(InputError, match="expected vectors of 8 dimensions"):
        fit(texts, vectors, encoder=narrow, config=FAST)
    with pytest.raises(InputError, match="minilm"):
        fit(texts, vectors, encoder="nosuch", config=FAST)


def test_a_control_on_shuffled_vectors_falls_to_the_frequency_baseline() -> None:
    texts, vectors = toy_corpus(800)
    shuffled = vectors[np.random.default_rng(0).permutation(800)]
    dev = toy_texts(300, seed=8)
    lens = fit(texts, shuffled, config=TrainConfig(passes=3, batch_size=64))
    found = evaluate(lens, dev, ToyEncoder().encode(dev)).accuracy.with_prior.mean
    assert found < 0.25
