"""SONAR's speech encoders: a recording to a vector in the space of SONAR's text encoder.

Published are checkpoints for fairseq2, which cannot share an environment with the torch that everything else here
runs on; `sonar_conversion` makes folders of them that this module loads. The port is experimental until a folder's
vectors have been found to be those of the original: `fliplens encoders check` compares, and marks the folder.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
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

    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

__all__ = [
    "FOLDER",
    "FORMAT_VERSION",
    "LANGUAGES",
    "MODEL_TYPE",
    "SonarSpeechEncoder",
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
        FliplensWarning: the vectors of these weights have not been compared with the original's.
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
    revision = revision_of(folder)
    matched = _matched(checked, revision)
    if matched is None:
        warnings.warn(
            f"the speech encoder in {folder} is experimental: its vectors have not been compared with those of the "
            "original (docs/encoders-speech.md tells how fliplens encoders check does that)",
            FliplensWarning,
            stacklevel=3,
        )
    return SonarSpeechEncoder(
        model.to(where).eval(),
        config,
        spec=str(spec.canonical()),
        name=f"sonar-speech-{found}",
        revision=revision,
        language=LANGUAGES.get(found),
        batch_size=batch_size,
        precision="bfloat16" if precision == "bfloat16" else "float32",
        device=str(where),
        folder=folder.absolute(),
        matched=matched,
    )


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
        folder: where it was loaded from.
        matched: what it was found to match there, None for nothing yet.
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
        folder: Path | None = None,
        matched: str | None = None,
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
        self.config = config
        self.folder = folder
        self.matched = matched
        self._features = SeamlessM4TFeatureExtractor(feature_size=config.mel_bins, num_mel_bins=config.mel_bins)

    def mark_matched(self, what: str) -> None:
        """Write into the folder that the vectors of its weights are the original's; its warning then goes.

        The mark names the weights: others that are put into the folder have to be compared themselves.

        Args:
            what: what the vectors were compared with, for people.

        Raises:
            InputError: the encoder is of no folder, or of one that has changed since it was loaded.
            FliplensError: the folder cannot be written.
        """
        if self.folder is None or self.revision is None:
            raise InputError(f"expected an encoder loaded from a folder, found {self.spec} made otherwise: load it")
        path = self.folder / "config.json"
        config, language, _ = _read_config(self.folder)
        same = config == self.config and f"sonar-speech-{language}" == self.name
        if not same or revision_of(self.folder) != self.revision:
            raise InputError(
                f"expected {self.folder} as it was loaded, found it changed since: load and check it again"
            )
        try:
            write_json(path, {**read_json(path), "checked": {"weights": self.revision, "against": what}})
        except OSError as error:
            raise FliplensError(
                f"expected to mark {self.folder} as checked, could not write {path.name} there ({reason_of(error)}): "
                "make the folder writable and check again"
            ) from error
        self.matched = what

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


def _matched(checked: Any, revision: str | None) -> str | None:
    """Return what a folder's weights were found to match, by its mark; None where that is of other weights, or none.

    A mark is written by `SonarSpeechEncoder.mark_matched`.
    """
    if not isinstance(checked, dict) or revision is None or checked.get("weights") != revision:
        return None
    return str(checked.get("against"))


def _read_config(folder: Path) -> tuple[SonarSpeechConfig, str, Any]:
    """Return sizes, language and the mark of a folder that was checked."""
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
    return SonarSpeechConfig(**network), language, value.get("checked")


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
