"""SONAR's speech encoders: a recording to a vector in the space of SONAR's text encoder.

Published are checkpoints for fairseq2, which cannot share an environment with the torch that everything else here
runs on; `sonar_conversion` makes folders of them that this module loads. The port is experimental until its vectors
of two published recordings are those of the original: `check` tells, and marks the folder.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.audio import RATE
from fliplens.devices import resolve_device
from fliplens.encoders.specs import LANGUAGE, Spec
from fliplens.encoders.speech import LocalSpeechEncoder, Samples
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError, reason_of
from fliplens.files import FolderKind, read_json, write_json
from fliplens.pretrained import quiet, revision_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fliplens.encoders.protocol import Speech
    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

__all__ = [
    "FOLDER",
    "FORMAT_VERSION",
    "GOLDEN",
    "LANGUAGES",
    "MODEL_TYPE",
    "SonarSpeechEncoder",
    "check",
    "default_folder",
    "load",
    "published_config",
]

MODEL_TYPE = "fliplens-sonar-speech"
FORMAT_VERSION = 1
FOLDER = FolderKind("config.json", r"config\.json|model\.safetensors|\..+\.tmp")
"""What a converted folder holds."""

LONGEST = 80.0
"""Seconds: the 4,096 frames of 20 ms for which the original has positions."""

GOLDEN: tuple[tuple[float, float], ...] = ((0.0429819, 0.00286825),)
"""Scalar products that the original English encoder gives for the recordings audio_1.wav and audio_2.wav of SONAR's
own tests (facebookresearch/SONAR, tests/integration_tests/data/audio_files): of the first with itself, and with the
second. Vectors are not of unit length."""

GOLDEN_TOLERANCE = 1e-4
"""Of `GOLDEN`, absolute."""

_CODES = """
arb=ar asm=as bel=be ben=bn bos=bs bul=bg cat=ca ces=cs cmn=zh cym=cy dan=da deu=de eng=en est=et fin=fi fra=fr guj=gu
heb=he hin=hi hrv=hr ind=id ita=it jpn=ja kan=kn kor=ko lao=lo lit=lt lvs=lv mal=ml mar=mr mkd=mk mlt=mt nld=nl npi=ne
ory=or pan=pa pes=fa pol=pl por=pt ron=ro rus=ru slk=sk slv=sl snd=sd spa=es srp=sr swh=sw tam=ta tel=te tgl=tl tha=th
tur=tr ukr=uk urd=ur uzn=uz vie=vi yue=zh
"""

LANGUAGES: Mapping[str, str] = MappingProxyType({pair[:3]: pair[4:] for pair in _CODES.split()})
"""Languages of the published speech encoders: ISO 639-3 code, as SONAR names them, and ISO 639-1."""


def published_config(language: str) -> SonarSpeechConfig:
    """Return the sizes of a language's published encoder: English pools with 3 layers, every other one with 6.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    _need_transformers()
    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

    return SonarSpeechConfig(pooler_layers=3 if language == "eng" else 6)


def default_folder(language: str) -> Path:
    """Return where `sonar-speech-LANGUAGE` looks: in `FLIPLENS_HOME`, else in the user's folder of data."""
    home = os.environ.get("FLIPLENS_HOME")
    if home:
        return Path(home).expanduser() / f"sonar-speech-{language}"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path("~/.local/share").expanduser()) / "fliplens" / f"sonar-speech-{language}"


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> SonarSpeechEncoder:
    """Load a converted folder: that of the spec, or of its language where `sonar_conversion` puts it.

    Args:
        spec: `sonar-speech-LANGUAGE`, or `sonar-speech:FOLDER`, with the language if it is to be checked.
        device: see `load_encoder`.
        batch_size: see `load_encoder`.
        precision: see `load_encoder`; "auto" is float32 here, as nothing is known of what bfloat16 costs.

    Raises:
        InputError: no such folder, or one of something else or of another language; the device is not there.
        MissingExtraError: transformers, or what reads audio, is not installed.
        FliplensError: the weights do not load.

    Warns:
        FliplensWarning: the folder has not been checked against the original.
    """
    _need_transformers()
    where = resolve_device(device)
    language = spec.options.get(LANGUAGE)
    if spec.model:
        folder = spec.folder
        if folder is None:
            raise InputError(f"expected a converted folder at {spec.model}, found none: check the path")
    else:
        folder = default_folder(str(language))
        if not folder.is_dir():
            raise InputError(
                f"expected SONAR's speech encoder of {language}, converted, in {folder}, found none: get its "
                f"published checkpoint (docs/encoders-speech.md names its file) and run python -m "
                f"fliplens.encoders.sonar_conversion FILE.pt --language {language}"
            )
    config, found, checked = _read_config(folder)
    if language is not None and language != found:
        raise InputError(
            f"expected a speech encoder of {language} in {folder}, found one of {found}: name another folder, or "
            f"leave out {LANGUAGE}="
        )
    model = _load_weights(folder, config)
    if not checked:
        warnings.warn(
            f"the speech encoder in {folder} is experimental: this port of SONAR has not been checked against the "
            "original there (fliplens.encoders.sonar_speech.check)",
            FliplensWarning,
            stacklevel=3,
        )
    return SonarSpeechEncoder(
        model.to(where).eval(),
        config,
        spec=str(spec.canonical()),
        name=f"sonar-speech-{found}",
        revision=revision_of(folder),
        language=LANGUAGES.get(found),
        batch_size=batch_size,
        precision="bfloat16" if precision == "bfloat16" else "float32",
        device=str(where),
    )


def check(encoder: SonarSpeechEncoder, recordings: Sequence[Speech], *, folder: str | Path | None = None) -> float:
    """Return how far an encoder is from the original, by two recordings of SONAR's own tests; see `GOLDEN`.

    Args:
        encoder: the English one.
        recordings: audio_1.wav and audio_2.wav of those tests.
        folder: the converted folder, to be marked as checked if the check passes; its warning then goes.

    Raises:
        FliplensError: the products are further off than `GOLDEN_TOLERANCE`.
        InputError: the encoder is of another language, or the recordings are not two.
    """
    if encoder.language != "en" or len(recordings) != 2:
        raise InputError(
            f"expected two recordings and the English encoder, found {len(recordings)} and {encoder.name}: the "
            "values known of the original are those"
        )
    vectors = encoder.encode(recordings).astype(np.float64)
    found = (vectors[:1] @ vectors.T)[0]
    off = float(np.abs(found - np.array(GOLDEN[0])).max())
    if not off <= GOLDEN_TOLERANCE:
        raise FliplensError(
            f"expected products {GOLDEN[0]} of the original's vectors, found {found.tolist()}: this port does not "
            "give SONAR's vectors, do not use it"
        )
    if folder is not None:
        path = Path(folder) / "config.json"
        write_json(path, {**read_json(path), "checked": True})
    return off


class SonarSpeechEncoder(LocalSpeechEncoder):
    """A SONAR speech encoder behind the `SpeechEncoder` protocol. Made by `load`.

    Args:
        model: a `SonarSpeechModel`, on its device, in evaluation mode.
        config: its sizes.
        spec: see `LocalSpeechEncoder`.
        name: see there.
        revision: see there.
        language: see there.
        batch_size: see there.
        precision: "float32", or "bfloat16" for autocast around the model.
        device: of the model.
    """

    def __init__(
        self,
        model: Any,
        config: SonarSpeechConfig,
        *,
        spec: str,
        name: str,
        revision: str | None = None,
        language: str | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        from transformers import SeamlessM4TFeatureExtractor

        super().__init__(
            spec=spec,
            name=name,
            revision=revision,
            language=language,
            dim=config.hidden_size,
            normalised=False,
            precision=precision,
            device=device,
            batch_size=batch_size,
            longest=LONGEST,
        )
        self.model = model
        self._features = SeamlessM4TFeatureExtractor(feature_size=config.mel_bins, num_mel_bins=config.mel_bins)

    def _vectors(self, sounds: list[Samples]) -> tuple[NDArray[np.float32], int]:
        import torch

        features = self._features(sounds, sampling_rate=RATE, padding=True, return_tensors="pt")
        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision == "bfloat16":
            autocast = torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)
        with torch.inference_mode(), autocast:
            vectors = self.model(
                features["input_features"].to(self.device, torch.float32), features["attention_mask"].to(self.device)
            )
        return vectors.float().cpu().numpy(), 0


def _need_transformers() -> None:
    if find_spec("transformers") is None:
        raise MissingExtraError("SONAR's speech encoder", "speech")


def _read_config(folder: Path) -> tuple[SonarSpeechConfig, str, bool]:
    """Return sizes, language and whether the folder was checked."""
    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

    value = read_json(folder / "config.json")
    if not isinstance(value, dict) or value.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"expected a folder that fliplens.encoders.sonar_conversion wrote at {folder}, found something else: "
            "convert a checkpoint (docs/encoders-speech.md)"
        )
    if value.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"expected format {FORMAT_VERSION} in {folder}, found {value.get('format_version')!r}: convert the "
            "checkpoint again"
        )
    network, language = value.get("network"), value.get("language")
    names = set(SonarSpeechConfig.__dataclass_fields__)
    if not isinstance(network, dict) or set(network) != names or not isinstance(language, str):
        raise InputError(
            f"expected language and network sizes in {folder / 'config.json'}, found others: convert again"
        )
    return SonarSpeechConfig(**network), language, value.get("checked") is True


def _load_weights(folder: Path, config: SonarSpeechConfig) -> Any:
    from safetensors.torch import load_file

    from fliplens.encoders.sonar_speech_model import empty_model

    path = folder / "model.safetensors"
    with quiet():
        model = empty_model(config)
        try:
            model.load_state_dict(load_file(path), strict=True, assign=True)
        except Exception as error:  # safetensors and torch raise various kinds
            reason = reason_of(error)
            raise FliplensError(
                f"expected the weights of a SONAR speech encoder in {path}, could not load them ({reason}): convert "
                "the checkpoint again"
            ) from error
    return model
