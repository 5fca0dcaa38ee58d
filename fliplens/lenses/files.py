"""Lens folders: the published layout, and beside it what that has no place for.

| file | holds | whose format |
|---|---|---|
| `model.safetensors` | `E1` (V, r), `E2` (r, d), `b` (V, 1); or `E` (V, d), `b`: float32 | published |
| `vocab.json` | `{"word": index}` | published |
| `config.json` | hyperparameters; ours adds `format_version`, encoder, tokeniser, spans, data, recipe, ... | both |
| `lens.safetensors` | `prior` (V,), `mean` (d,), fingerprint of the space, dictionary (V, r) bfloat16 | ours |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from fliplens.arithmetic.decoding import ExplainingAway, Shares
from fliplens.arithmetic.objective import Factors
from fliplens.errors import FliplensError, InputError, reason_of
from fliplens.files import FolderKind, atomic_folder, read_json, write_json
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.text.spans import Spans
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fliplens.lenses.extractor import Extractor

__all__ = ["FORMAT_VERSION", "LENS_FOLDER", "format_version", "load_lens", "save_lens"]

FORMAT_VERSION = 2
"""The newest format that is read; see `format_version` for what is written."""
MODEL, VOCABULARY, CONFIG, OURS = "model.safetensors", "vocab.json", "config.json", "lens.safetensors"
LENS_FOLDER = FolderKind(MODEL, r"model\.safetensors|vocab\.json|config\.json|lens\.safetensors|results")
"""A lens folder; `results` are what the published evaluation call writes there, and go with the lens."""
HUB = "hub:"


def format_version(vocabulary: Vocabulary) -> int:
    """Return the format of the folder of a lens with this vocabulary: the first one that reads it rightly.

    A reader of format 1 knows no `spans` and would count all n-grams of a text where the lens was trained on the
    longest ones, without a word; other lenses stay readable for it.
    """
    return 1 if vocabulary.spans == "all" else 2


def save_lens(lens: Extractor, folder: str | Path, *, overwrite: bool) -> None:
    """Write `lens` as a folder, whole or not at all; see `Lens.save`."""
    from safetensors.torch import save

    with atomic_folder(folder, kind=LENS_FOLDER, overwrite=overwrite) as target:
        model, ours = lens.tensors()
        if lens.fingerprint is not None:
            ours["fingerprint.mean"] = torch.from_numpy(lens.fingerprint.mean)
            ours["fingerprint.variance"] = torch.from_numpy(lens.fingerprint.variance)
            ours["fingerprint.mean_norm"] = torch.tensor([lens.fingerprint.mean_norm])
        for file, tensors in ((MODEL, model), (OURS, ours)):
            if tensors:
                kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                # Through our own file: safetensors makes its files private, and calls a full disk by another name.
                (target / file).write_bytes(save(kept))
        lens.vocabulary.save(target / VOCABULARY)
        config = {
            **lens.config,
            "format_version": format_version(lens.vocabulary),
            **lens.describe(),
            "tokeniser": lens.vocabulary.tokeniser.to_json(),
            "ngram_range": list(lens.vocabulary.ngram_range),
            "spans": lens.vocabulary.spans,
        }
        write_json(target / CONFIG, config)


def load_lens(source: str | Path, *, vocabulary: str | Path | None = None) -> Extractor:
    """Load a lens, or what it is compared with, from a folder, the Hub or a bare state dict; see `Extractor.load`."""
    if str(source).startswith(HUB):
        source = _download(str(source))
    path = Path(source)
    if path.is_dir():
        model, folder = path / MODEL, path
    elif path.is_file():
        model, folder = path, path.parent
    else:
        raise InputError(
            f"expected a lens at {path} (a folder, a state dict, or {HUB}OWNER/REPO[/SUBFOLDER]), found nothing: "
            "check the path, or make one with fliplens fit -o LENS"
        )
    whole = path.is_dir() or path.name == MODEL
    config = _read_config(folder / CONFIG) if whole and (folder / CONFIG).is_file() else {}
    tensors = {name.removeprefix("_orig_mod."): tensor for name, tensor in _read_tensors(model).items()}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(f"expected floating-point numbers in {name} of {model}, found {tensor.dtype}")
    # A folder that does not say comes from the published code, which cuts text its own way.
    tokeniser = Tokeniser.from_json(config.get("tokeniser", {"mode": "published"}))
    words = Vocabulary.load(
        _find_vocabulary(folder, vocabulary),
        tokeniser=tokeniser,
        ngram_range=_ngram_range(config, folder / CONFIG),
        spans=_spans(config, folder / CONFIG),
    )
    ours = _read_tensors(folder / OURS) if whole and (folder / OURS).is_file() else {}
    for names, build in _KINDS:
        if set(tensors) == names:
            return build(_Parts(tensors, ours, words, _fingerprint(ours), config, folder / CONFIG))
    raise InputError(
        f"expected the tensors {' or '.join(', '.join(sorted(names)) for names, _ in _KINDS)} in {model}, found "
        f"{', '.join(sorted(tensors)) or 'none'}"
    )


@dataclass(frozen=True)
class _Parts:
    """What a folder holds, read."""

    tensors: dict[str, Tensor]
    ours: dict[str, Tensor]
    vocabulary: Vocabulary
    fingerprint: Fingerprint | None
    config: dict[str, Any]
    config_path: Path


def _lens(parts: _Parts) -> Extractor:
    from fliplens.lenses.lens import Lens

    tensors, ours = parts.tensors, parts.ours
    b = tensors["b"].float()
    # Published biases are columns (V, 1).
    b = b[:, 0] if b.ndim == 2 and b.shape[1] == 1 else b
    return Lens(
        Factors(E1=tensors["E1" if "E1" in tensors else "E"], E2=tensors.get("E2"), b=b),
        parts.vocabulary,
        prior=ours.get("prior"),
        mean=ours.get("mean"),
        fingerprint=parts.fingerprint,
        config=parts.config,
        away=_away(ours, parts.config, parts.config_path),
    )


def _probe(parts: _Parts) -> Extractor:
    from fliplens.baselines.probe import Probe

    return Probe(parts.tensors, parts.vocabulary, fingerprint=parts.fingerprint, config=parts.config)


def _splice(parts: _Parts) -> Extractor:
    from fliplens.baselines.splice import Splice

    tensors = parts.tensors
    penalty = tensors["penalty"].double().reshape(-1)
    if len(penalty) != 1:
        raise InputError(f"expected one penalty, found {len(penalty)}: the file is bad")
    return Splice(
        tensors["dictionary"],
        tensors["mean"],
        float(penalty),
        parts.vocabulary,
        paired_mean=parts.ours.get("paired_mean"),
        fingerprint=parts.fingerprint,
        config=parts.config,
    )


_KINDS: tuple[tuple[set[str], Callable[[_Parts], Extractor]], ...] = (
    ({"E1", "E2", "b"}, _lens),
    ({"E", "b"}, _lens),
    ({"E1", "E2", "b", "H", "c", "U", "mean", "scale"}, _probe),
    ({"dictionary", "mean", "penalty"}, _splice),
)


def _ngram_range(config: dict[str, Any], path: Path) -> tuple[int, int]:
    value = config.get("ngram_range", [1, 1])
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value)):
        raise InputError(f"expected ngram_range as two whole numbers in {path}, found {value!r}")
    return value[0], value[1]


def _spans(config: dict[str, Any], path: Path) -> Spans:
    value: Spans = config.get("spans", "all")
    if value not in get_args(Spans):
        raise InputError(
            f"expected spans as {' or '.join(get_args(Spans))} in {path}, found {value!r}: restore the file"
        )
    return value


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"expected a JSON object in {path}, found {type(config).__name__}")
    version = config.get("format_version", 0)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"expected lens format {FORMAT_VERSION} or older in {path}, found {version}: "
            "it was written by a newer FLiPLens, upgrade this one"
        )
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"expected tensors at {path}, found no such file: is this a lens folder?")
    if path.suffix in (".pt", ".pth", ".bin"):
        try:
            # weights_only builds tensors and plain containers; anything else in the file is refused unrun.
            value = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"expected a state dict of tensors alone in {path}, could not read one "
                f"({reason_of(error)}): convert it to safetensors"
            ) from error
        if not isinstance(value, dict) or not all(isinstance(t, Tensor) for t in value.values()):
            raise InputError(f"expected a state dict of tensors in {path}, found something else")
        return value
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:
        raise InputError(
            f"expected a safetensors file at {path}, could not read it ({reason_of(error)}): "
            "the file is truncated or of another kind, copy or download it again"
        ) from error


def _find_vocabulary(folder: Path, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    for candidate in (folder / VOCABULARY, folder.absolute().parent / VOCABULARY):
        if candidate.is_file():
            return candidate
    raise InputError(f"expected {VOCABULARY} in {folder} or in the folder above it, found none: name it with --vocab")


def _fingerprint(tensors: dict[str, Tensor]) -> Fingerprint | None:
    names = ("fingerprint.mean_norm", "fingerprint.mean", "fingerprint.variance")
    if not all(name in tensors for name in names):
        return None
    norm, mean, variance = (tensors[name] for name in names)
    return Fingerprint(float(norm.reshape(-1)[0]), mean.float().numpy(), variance.float().numpy())


def _away(tensors: dict[str, Tensor], config: dict[str, Any], path: Path) -> ExplainingAway | None:
    settings = config.get("explaining_away")
    from fliplens.lenses.lens import DICTIONARY

    if DICTIONARY not in tensors or settings is None:
        return None
    names = {"pool", "rounds", "shares"}
    if not isinstance(settings, dict) or set(settings) != names:
        raise InputError(f"expected explaining_away in {path} to hold {', '.join(sorted(names))}, found {settings!r}")
    shares = Shares.from_json(settings["shares"])
    return ExplainingAway(tensors[DICTIONARY], shares, pool=settings["pool"], rounds=settings["rounds"])


def _download(source: str) -> Path:
    """Fetch a lens from the Hugging Face Hub into its cache and return the folder that holds it."""
    name, _, revision = source.removeprefix(HUB).partition("@")
    pieces = name.split("/")
    if len(pieces) < 2 or not all(pieces) or ".." in pieces:
        raise InputError(f"expected {HUB}OWNER/REPO[/SUBFOLDER][@REVISION], found {source!r}")
    repository, subfolder = "/".join(pieces[:2]), "/".join(pieces[2:])
    model = _fetch(repository, f"{subfolder}/{MODEL}".lstrip("/"), revision or None, source)
    if model is None:
        raise InputError(f"expected {MODEL} in {source}, found none: name the variant's folder")
    # Snapshots lie in folders named by their commit: the other files must be of the same one.
    folder = model.parent
    commit = model.parents[subfolder.count("/") + 1 if subfolder else 0].name
    for file in (VOCABULARY, CONFIG, OURS):
        # Published folders may lack config.json and always lack ours.
        found = _fetch(repository, f"{subfolder}/{file}".lstrip("/"), commit, source)
        if found is None and file == VOCABULARY and subfolder:
            above = subfolder.rpartition("/")[0]
            _fetch(repository, f"{above}/{file}".lstrip("/"), commit, source)
    return folder


def _fetch(repository: str, file: str, revision: str | None, source: str) -> Path | None:
    """Return the cached path of one file of a Hub repository, None where the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    try:
        # The client logs what it also raises; one line is enough.
        logger.setLevel(logging.ERROR)
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError as error:
        if not file.endswith(MODEL):
            # Offline the client cannot tell a file that never was from one that was not fetched; without the
            # optional ones a lens reads words all the same, and a missing vocabulary is told further on.
            return None
        raise FliplensError(
            f"could not reach the Hub for {source}, and it is not in the local cache: "
            "check the connection, or HF_HUB_OFFLINE"
        ) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FliplensError(f"could not fetch {file} of {source} from the Hub ({reason_of(error)})") from error
    finally:
        logger.setLevel(level)
