"""Speech by way of text: recognisers of both kinds, and the encoder behind them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speech import made_up, spoken, tiny_cascade, tiny_wav2vec2, tiny_whisper

from fliplens.encoders import BatchEncoder, Encoder, SpeechEncoder, canonical_spec, load_encoder, text_spec
from fliplens.encoders.registry import FAMILIES
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError

pytest.importorskip("sentence_transformers")
pytest.importorskip("soundfile")

import torch

from fliplens.encoders import cascade
from fliplens.encoders.cascade import Recogniser

SOUNDS = [made_up(seed, seconds) for seed, seconds in enumerate([1.0, 0.3, 2.5, 0.05, 1.7])]


@pytest.fixture(scope="module", params=["whisper", "wav2vec2"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_encoder(tiny_cascade(tmp_path_factory.mktemp("cascade"), recogniser=request.param), device="cpu")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import build_sentence_transformer

    return build_sentence_transformer(tmp_path_factory.mktemp("text") / "tiny")


def test_it_is_a_speech_encoder_in_the_space_of_its_text(encoder: Any) -> None:
    for protocol in (Encoder, BatchEncoder, SpeechEncoder):
        assert isinstance(encoder, protocol)
    text = encoder.text_encoder
    assert (encoder.modality, text.modality) == ("speech", "text")
    assert (encoder.dim, encoder.normalised, encoder.language) == (text.dim, text.normalised, text.language)
    assert encoder.precision == text.precision and encoder.max_tokens is None
    assert encoder.revision.count("sha256:") == 2 and encoder.name == f"asr and {text.name}"
    assert load_encoder(encoder.spec, device="cpu").spec == encoder.spec == canonical_spec(encoder.spec)
    assert text_spec(encoder.spec) == text.spec


def test_vectors_are_those_of_the_transcripts(encoder: Any) -> None:
    transcripts = encoder.transcribe(SOUNDS)
    assert len(transcripts) == 5 and len(set(transcripts)) > 2
    vectors = encoder.encode(SOUNDS)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(vectors, encoder.text_encoder.encode(transcripts), atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim) and encoder.transcribe([]) == []


def test_spoken_files_go_through(encoder: Any, tmp_path: Path) -> None:
    paths = spoken(tmp_path)
    assert encoder.encode(paths).shape == (4, encoder.dim)
    assert encoder.transcribe([str(path) for path in paths]) == encoder.transcribe(paths)


def test_batches_do_not_show(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = encoder.transcribe(SOUNDS)
    assert [encoder.transcribe([sound])[0] for sound in SOUNDS] == together
    monkeypatch.setattr(encoder, "batch_size", 2)
    assert encoder.transcribe(SOUNDS) == together
    batches = list(encoder.batches(SOUNDS))
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(5))
    assert max(len(batch.rows) for batch in batches) == 2


def test_a_recogniser_that_must_not_see_padding_sees_none(tmp_path: Path, text_folder: Path) -> None:
    folder = tiny_wav2vec2(tmp_path / "asr", masked=False)
    encoder: Any = load_encoder(f"cascade:{folder}#encoder=st:{text_folder}", device="cpu")
    assert [encoder.transcribe([sound])[0] for sound in SOUNDS] == encoder.transcribe(SOUNDS)


def plain_ctc(folder: Path, sound: Any) -> str:
    """Decode one recording by hand: the best label of each frame, repeats once, blanks out, bars as spaces."""
    from transformers import Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    vocabulary = json.loads((folder / "vocab.json").read_text())
    letters = {number: token for token, number in vocabulary.items()}
    x = (sound.astype(np.float64) - sound.mean()) / np.sqrt(sound.astype(np.float64).var() + 1e-7)
    with torch.inference_mode():
        best = model(torch.tensor(x[None], dtype=torch.float32)).logits[0].argmax(dim=-1).tolist()
    kept = [one for position, one in enumerate(best) if position == 0 or best[position - 1] != one]
    special = {"<pad>", "<s>", "</s>", "<unk>"}
    return "".join(letters[one] for one in kept if letters[one] not in special).replace("|", " ").strip()


@pytest.mark.filterwarnings("ignore")
def test_ctc_is_the_plain_decoding(tmp_path: Path, text_folder: Path) -> None:
    folder = tiny_wav2vec2(tmp_path / "asr", seed=3)
    encoder: Any = load_encoder(f"cascade:{folder}#encoder=st:{text_folder}", device="cpu")
    expected = [plain_ctc(folder, sound) for sound in SOUNDS]
    assert [" ".join(one.split()) for one in encoder.transcribe(SOUNDS)] == [
        " ".join(one.split()) for one in expected
    ]


def test_whisper_is_told_the_language(tmp_path: Path, text_folder: Path) -> None:
    folder = tiny_whisper(tmp_path / "asr", languages=("en", "de"))

    def load(options: str) -> Any:
        return load_encoder(f"cascade:{folder}#{options}encoder=st:{text_folder}", device="cpu")

    german, english = load("language=de,"), load("language=en,")
    assert german.spec == f"cascade:{folder}#language=de,encoder=st:{text_folder}"
    assert german.transcribe(SOUNDS) != english.transcribe(SOUNDS)
    with pytest.raises(InputError, match="expected language= as one of de, en for asr, found 'fr': name one"):
        load("language=fr,")
    plain = tiny_wav2vec2(tmp_path / "plain")
    with pytest.raises(InputError, match="a recogniser of several languages with language=de, found plain"):
        load_encoder(f"cascade:{plain}#language=de,encoder=st:{text_folder}", device="cpu")


def test_long_recordings_are_told(tmp_path: Path) -> None:
    encoder: Any = load_encoder(tiny_cascade(tmp_path, recogniser="whisper"), device="cpu")
    long = made_up(0, 31.0)
    assert encoder.longest == 600 and encoder.reads.startswith("the 30 s or ")
    with pytest.warns(FliplensWarning, match=r"^1 of 2 recordings are longer than the 30 s or .*: only their start"):
        vectors = encoder.encode([SOUNDS[0], long])
    with pytest.warns(FliplensWarning, match="^1 of 1 recordings"):
        assert encoder.transcribe([long]) == encoder.transcribe([long[: 30 * 16_000]])
    np.testing.assert_allclose(vectors[1], encoder.encode([long[: 30 * 16_000]])[0], atol=1e-6)


def test_recognisers_that_read_all_have_a_bound(tmp_path: Path) -> None:
    encoder: Any = load_encoder(tiny_cascade(tmp_path), device="cpu")
    with pytest.raises(InputError, match="recording 1 of 1: expected 80 s of audio or less"):
        encoder.encode([np.zeros(81 * 16_000, np.float32)])


def test_a_long_transcript_is_told_too(tmp_path: Path) -> None:
    from tiny_models import build_sentence_transformer

    short = build_sentence_transformer(tmp_path / "short", max_seq_length=4)
    encoder: Any = load_encoder(tiny_cascade(tmp_path, encoder=f"st:{short}"), device="cpu")
    with pytest.warns(FliplensWarning, match="recordings are longer than the 4 tokens of transcript"):
        encoder.encode(SOUNDS)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("cascade", "expected cascade:ASR_MODEL"),
        ("cascade:OWNER/ASR", "found no encoder=SPEC"),
        ("cascade:OWNER/ASR#language=en", "found no encoder=SPEC"),
        ("cascade:OWNER/ASR#beam=3,encoder=minilm", "options out of language, encoder"),
        ("cascade:./nowhere#encoder=minilm", "found none: check the path"),
        (
            "cascade:OWNER/ASR#encoder=nothing",
            "expected an encoder, found 'nothing': .*behind encoder= in 'cascade:O",
        ),
        ("cascade:OWNER/ASR#encoder=minilm,language=en", "found 'minilm,language=en': .*other options come before"),
        ("cascade:OWNER/ASR#encoder=hf:minilm#beam=3", "options out of layer, pool, normalise .* found beam"),
    ],
)
def test_specs_that_are_none_are_refused(spec: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_encoder(spec)


@pytest.mark.parametrize("inner", ["sonar-speech-eng", "sonar-speech:FOLDER", "cascade:OWNER/OTHER#encoder=minilm"])
def test_an_encoder_of_speech_behind_the_recogniser_is_refused_before_anything_is_loaded(
    inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "load", lambda *_, **__: pytest.fail("it was loaded"))
    spec = f"cascade:OWNER/ASR#encoder={inner}"
    with pytest.raises(
        InputError, match=f"expected an encoder of text as encoder= in .*, found {inner}, one of speech"
    ):
        load_encoder(spec)
    assert canonical_spec(spec) == spec


def test_models_that_do_not_recognise_speech_are_refused(tmp_path: Path, text_folder: Path) -> None:
    def refused(folder: Path, match: str, kind: type[Exception] = InputError) -> None:
        with pytest.raises(kind, match=match) as caught:
            load_encoder(f"cascade:{folder}#encoder=st:{text_folder}", device="cpu")
        assert "\n" not in str(caught.value)

    refused(text_folder, "trained to recognise speech .*, found BertModel")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"found no config\.json")
    good = tiny_wav2vec2(tmp_path / "good")
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    refused(broken, "could not load it", FliplensError)
    headless = tmp_path / "headless"
    shutil.copytree(good, headless)
    from safetensors.torch import load_file, save_file

    tensors = load_file(good / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("lm_head")}, headless / "model.safetensors")
    refused(headless, r"found lm_head\.\w+ without weights")


def test_another_sampling_rate_is_refused() -> None:
    class Features:
        sampling_rate = 8000

    with pytest.raises(InputError, match="expected a recogniser of 16000 samples a second, found x, of 8000"):
        Recogniser(None, Features(), None, name="x", ctc=True)


def test_missing_libraries_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"fliplens\[speech\]"):
        load_encoder("cascade:OWNER/ASR#encoder=minilm")


# --- specs and fitting ---------------------------------------------------------------------------------------------


def test_which_encoder_gives_texts_their_vectors() -> None:
    assert text_spec("minilm") == "minilm" and text_spec("what is this") == "what is this"
    assert text_spec("sonar-speech-eng") is None
    assert text_spec("cascade:OWNER/ASR@v1#language=en,encoder=st:OWNER/NAME@v2") == "st:OWNER/NAME@v2"
    assert {name for name, family in FAMILIES.items() if family.modality == "speech"} == {"sonar-speech", "cascade"}


def test_a_nested_folder_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asr").mkdir()
    (tmp_path / "text").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = canonical_spec("cascade:asr#encoder=text")
    assert spec == f"cascade:{tmp_path / 'asr'}#encoder=st:{tmp_path / 'text'}"
    assert canonical_spec(spec) == spec


def test_words_have_vectors_by_the_text_encoder_alone(encoder: Any) -> None:
    from toys import toy_texts

    from fliplens.embeddings import Embeddings, Manifest
    from fliplens.training.fitting import fit
    from fliplens.training.recipes import TrainConfig

    texts = toy_texts(60)
    vectors = encoder.text_encoder.encode(texts)
    config = TrainConfig(passes=1, batch_size=32)

    def fitted(spec: str, given: Any) -> Any:
        made = Manifest(encoder=spec, revision=None, dim=encoder.dim, dtype="float32", normalised=True)
        return fit(texts, Embeddings([vectors], manifest=made), encoder=given, config=config, explain_away=False)

    def factor(lens: Any) -> Any:
        return lens.tensors()[0]["E1"].numpy()

    by_text, by_cascade = fitted(encoder.text_encoder.spec, None), fitted(encoder.spec, None)
    np.testing.assert_array_equal(factor(by_text), factor(by_cascade))
    assert by_cascade.encoder == encoder.spec
    np.testing.assert_array_equal(factor(by_text), factor(fitted(encoder.spec, encoder)))
    with pytest.warns(FliplensWarning, match="sentence means, as sonar-speech-eng encodes speech"):
        by_means = fitted("sonar-speech-eng", None)
    assert by_means.encoder == "sonar-speech-eng" and not np.array_equal(factor(by_means), factor(by_text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="an encoder of text for the vectors of words, found sonar-speech-eng"):
            fit(
                texts,
                vectors,
                encoder="sonar-speech-eng",
                config=TrainConfig(passes=1, anchor="words"),
                explain_away=False,
            )
