"""Speech by way of text: a recogniser of transformers writes what it hears, a text encoder encodes what it wrote.

Beside a direct encoder of speech it shows what that one loses or keeps: what a lens reads from the cascade's vector
was in the transcript, which `transcribe` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.audio import LONGEST, RATE
from fliplens.devices import resolve_device
from fliplens.encoders.collecting import collect, warn_of_cut
from fliplens.encoders.protocol import BatchEncoder, Encoder, Speech
from fliplens.encoders.specs import LANGUAGE, NESTED, Spec
from fliplens.encoders.speech import LocalSpeechEncoder, Samples, check_list
from fliplens.errors import InputError, MissingExtraError
from fliplens.pretrained import check_hub_name, commit_of, load_error, quiet, revision_of
from fliplens.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CascadeEncoder", "Recogniser", "load"]

LONGEST_WHOLE = 80.0
"""Seconds for recognisers that read all of a recording: the cost of attention grows with their square."""


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> CascadeEncoder:
    """Load the recogniser and the text encoder of a spec.

    Args:
        spec: `cascade:ASR_MODEL[@REVISION]#encoder=SPEC`, with `language=` before it for a recogniser of several.
        device: see `load_encoder`; of both.
        batch_size: recordings that go through the recogniser at once; None bounds their seconds instead.
        precision: of the text encoder, see `load_encoder`; the recogniser's is float32.

    Raises:
        InputError: no such model or revision, a model that does not recognise speech, or a language that the
            recogniser does not know; the device is not there.
        MissingExtraError: transformers, or what the text encoder needs, is not installed.
        FliplensError: the Hub could not be reached, or the files do not load.
    """
    from fliplens.encoders.registry import canonical_spec, load_encoder

    if find_spec("transformers") is None:
        raise MissingExtraError("a recogniser of speech", "speech")
    folder = spec.folder
    if folder is None:
        check_hub_name(spec.model)
    text = load_encoder(spec.options[NESTED], device=device, precision=precision)
    recogniser = _load_recogniser(spec, folder, device)
    return CascadeEncoder(recogniser, text, spec=canonical_spec(str(spec)), batch_size=batch_size)


class Recogniser:
    """A speech recogniser of transformers: sequence to sequence (Whisper and its kin) or CTC (wav2vec2 and its).

    Args:
        model: the `PreTrainedModel`, on its device, in evaluation mode.
        features: its feature extractor.
        tokenizer: its tokeniser.
        name: the Hub id or the folder's name.
        revision: which version of the weights, if known.
        ctc: whether it labels frames, rather than write token after token.
        language: what is spoken, for a model of several languages that is told; None leaves it to the model.

    Raises:
        InputError: the model wants another sampling rate, or does not know the language.
    """

    def __init__(
        self,
        model: Any,
        features: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        ctc: bool,
        language: str | None = None,
    ) -> None:
        if getattr(features, "sampling_rate", RATE) != RATE:
            raise InputError(
                f"expected a recogniser of {RATE} samples a second, found {name}, of {features.sampling_rate}: name "
                "another model"
            )
        self.name, self.revision, self.language = name, revision, language
        self._model, self._features, self._tokenizer, self._ctc = model, features, tokenizer, ctc
        # Whisper's features are of one length, to which longer recordings are cut.
        seconds = getattr(features, "chunk_length", None) if hasattr(features, "n_samples") else None
        self.window: float | None = None if seconds is None else float(seconds)
        # A model without a mask must not see padding: what it hears would depend on what else is in the batch.
        self._padded = self.window is not None or bool(getattr(features, "return_attention_mask", False))
        if language is not None:
            self._check_language(language)

    @property
    def device(self) -> str:
        """Where it runs."""
        return str(self._model.device)

    def transcribe(self, sounds: Sequence[Samples]) -> list[str]:
        """Return what is said in each recording, in the model's own spelling."""
        if self._padded:
            return self._write(list(sounds))
        return [text for sound in sounds for text in self._write([sound])]

    def _write(self, sounds: list[Samples]) -> list[str]:
        import torch

        more = {} if self.window is not None else {"padding": True}
        inputs = self._features(
            sounds, sampling_rate=RATE, return_tensors="pt", return_attention_mask=self._padded, **more
        ).to(self._model.device)
        with torch.inference_mode(), quiet():
            if not self._ctc:
                told = {} if self.language is None else {"language": self.language, "task": "transcribe"}
                written = self._model.generate(**inputs, do_sample=False, num_beams=1, **told)
                texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
                return [text.strip() for text in texts]
            labels = self._model(**inputs).logits.argmax(dim=-1).cpu()
        mask = inputs.get("attention_mask")
        lengths = [labels.shape[1]] * len(sounds)
        if mask is not None and hasattr(self._model, "_get_feat_extract_output_lengths"):
            lengths = self._model._get_feat_extract_output_lengths(mask.sum(dim=-1)).tolist()
        return [self._spelt(row[:length]) for row, length in zip(labels, lengths, strict=True)]

    def _spelt(self, labels: Any) -> str:
        """Return the text of the best labels of frames (t,): repeats once, blanks out.

        Told to skip special tokens, these tokenisers drop the blank between two letters before they join repeats, and
        hear "helo": so marks are taken out of the text instead.
        """
        text: str = self._tokenizer.decode(labels, skip_special_tokens=False)
        kept = {self._tokenizer.pad_token, getattr(self._tokenizer, "word_delimiter_token", None)}
        for mark in self._tokenizer.all_special_tokens:
            if mark not in kept:
                text = text.replace(mark, "")
        return text.strip()

    def _check_language(self, language: str) -> None:
        known = getattr(getattr(self._model, "generation_config", None), "lang_to_id", None)
        if self._ctc or not known:
            raise InputError(
                f"expected a recogniser of several languages with language={language}, found {self.name}: leave out "
                "language="
            )
        codes = sorted(token.strip("<|>") for token in known)
        if language not in codes:
            raise InputError(
                f"expected language= as one of {', '.join(codes)} for {self.name}, found {language!r}: name one of "
                "them, or leave it out"
            )


class CascadeEncoder(LocalSpeechEncoder):
    """A recogniser and a text encoder behind the `SpeechEncoder` protocol. Made by `load`.

    Args:
        recogniser: writes what it hears.
        text: encodes what was written; vectors are its own.
        spec: what `load_encoder` takes to get both again.
        batch_size: recordings that go through the recogniser at once.
    """

    def __init__(self, recogniser: Recogniser, text: Encoder, *, spec: str, batch_size: int | None = None) -> None:
        revisions = [one.revision for one in (recogniser, text)]
        super().__init__(
            spec=spec,
            name=f"{recogniser.name} and {text.name}",
            revision=None if revisions == [None, None] else "+".join(one or "unknown" for one in revisions),
            language=text.language,
            dim=text.dim,
            normalised=text.normalised,
            precision=getattr(text, "precision", "float32"),
            device=recogniser.device,
            batch_size=batch_size,
            longest=LONGEST_WHOLE if recogniser.window is None else LONGEST,
        )
        self.recogniser = recogniser
        self._text = text

    @property
    def text_encoder(self) -> Encoder:
        """The encoder of what was recognised: texts have vectors in the same space."""
        return self._text

    @property
    def reads(self) -> str:
        """How much of a recording it reads, for people; "" if all."""
        window, tokens = self.recogniser.window, getattr(self._text, "max_tokens", None)
        limits = [f"{window:g} s"] if window is not None else []
        limits += [f"{tokens} tokens of transcript"] if tokens is not None else []
        return f"the {' or '.join(limits)}" if limits else ""

    def transcribe(self, inputs: Sequence[Speech], *, show_progress: bool = False) -> list[str]:
        """Return what the recogniser writes of each recording, in their order.

        Args:
            inputs: see `encode`.
            show_progress: show a bar on stderr.

        Raises:
            InputError: a recording cannot be read.

        Warns:
            FliplensWarning: only the start of some recordings was read.
        """
        check_list(inputs)
        texts, cut = [""] * len(inputs), 0
        with Progress("transcribe", total=len(inputs), unit="recordings", show=show_progress) as bar:
            for rows, sounds in self._sound_batches(inputs, None):
                for row, text in zip(rows.tolist(), self.recogniser.transcribe(sounds), strict=True):
                    texts[row] = text
                cut += self._cut(sounds)
                bar.update(len(rows))
        warn_of_cut(self, cut, len(inputs))
        return texts

    def _vectors(self, sounds: list[Samples]) -> tuple[NDArray[np.float32], int]:
        texts, cut = self.recogniser.transcribe(sounds), self._cut(sounds)
        if not isinstance(self._text, BatchEncoder):
            return self._text.encode(texts), cut
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        cut += collect(self._text.batches(texts), vectors)
        return vectors, min(cut, len(sounds))

    def _cut(self, sounds: list[Samples]) -> int:
        window = self.recogniser.window
        return 0 if window is None else sum(len(sound) > window * RATE for sound in sounds)

    def _seconds(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        window = self.recogniser.window
        return seconds if window is None else np.full(len(seconds), window)


def _load_recogniser(spec: Spec, folder: Path | None, device: str) -> Recogniser:
    """Load a recogniser quietly, and say in one line what went wrong if it does."""
    import torch
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModelForCTC,
        AutoModelForSpeechSeq2Seq,
        AutoTokenizer,
    )

    where = resolve_device(device)
    source = spec.model if folder is None else str(folder)
    revision = spec.revision if folder is None else None
    if folder is not None and not (folder / "config.json").is_file():
        raise InputError(
            f"expected a recogniser of speech in {folder}, found no config.json: name the folder that "
            "save_pretrained() wrote"
        )
    # Weights that the files lack are drawn at random: the caller's random state is kept.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            config = AutoConfig.from_pretrained(source, revision=revision)
            built_as = config.architectures or []
            ctc = any(name.endswith("ForCTC") for name in built_as)
            writes = any(name.endswith(("ForConditionalGeneration", "ForSpeechSeq2Seq")) for name in built_as)
            model = report = features = tokenizer = None
            if ctc or writes:
                kind = AutoModelForCTC if ctc else AutoModelForSpeechSeq2Seq
                model, report = kind.from_pretrained(source, revision=revision, output_loading_info=True)
                features = AutoFeatureExtractor.from_pretrained(source, revision=revision)
                tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        except Exception as error:  # whatever the model's files and the network make these libraries raise
            raise load_error(
                "a recogniser of speech", "cascade:PATH#encoder=SPEC", source, revision, error
            ) from error
    # What masks frames in training is often not published; everything else must be trained.
    keys = [] if report is None else map(str, report["missing_keys"])
    missing = [key for key in keys if "masked_spec_embed" not in key]
    if model is None or missing:
        found = (
            f"{missing[0]} without weights" if missing else (built_as[0] if built_as else "a model without a head")
        )
        raise InputError(
            f"expected a model trained to recognise speech (Whisper's kind, or CTC) in {source}, found {found}: name "
            "another model"
        )
    return Recogniser(
        model.float().eval().to(where),
        features,
        tokenizer,
        name=folder.name if folder is not None else spec.model,
        revision=revision_of(folder) if folder is not None else (commit_of(model) or revision),
        ctc=ctc,
        language=spec.options.get(LANGUAGE),
    )
