"""Any text model of transformers, loaded to read its hidden states: `hf:MODEL[@REVISION]#layer=K,pool=...`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from fliplens.devices import resolve_device, resolve_precision
from fliplens.encoders.hidden_states import POOLINGS, HiddenStateEncoder, TextModel
from fliplens.encoders.loading import PUBLISHED, minilm_folder
from fliplens.encoders.specs import Spec
from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.pretrained import check_hub_name, commit_of, load_error, quiet, revision_of

__all__ = ["Loaded", "load", "load_text_model"]


@dataclass(frozen=True)
class Loaded:
    """A model as it came from its files."""

    model: Any
    """Without a head; of an encoder-decoder the encoder."""
    tokenizer: Any
    name: str
    """The Hub id or the folder's name."""
    revision: str | None
    """Which version of the weights."""


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> HiddenStateEncoder:
    """Load the encoder of a spec `hf:MODEL[@REVISION]`, with a model folder or a Hub id.

    Its options: `layer`, which hidden state (0 the embeddings, negative from the end; default the last); `pool`,
    mean, cls or last; `normalise`, yes or no.

    Raises:
        InputError: there is no such model, revision or layer, or the device is not there.
        MissingExtraError: transformers is not installed.
        FliplensError: the Hub could not be reached, or the files do not load.
    """
    layer = spec.whole_number("layer")
    pool = spec.one_of("pool", *POOLINGS)
    normalise = spec.one_of("normalise", "no", "yes") == "yes"
    spec = spec.canonical()
    loaded = load_text_model(spec, device=device)
    model = TextModel(loaded.model, loaded.tokenizer, name=loaded.name)
    return HiddenStateEncoder(
        model,
        spec=spec,
        layer=-1 if layer is None else layer,
        pool=pool,
        normalise=normalise,
        revision=loaded.revision,
        batch_size=batch_size,
        precision=resolve_precision(precision, model.device.type),
    )


def load_text_model(spec: Spec, *, device: str, default: str | None = None) -> Loaded:
    """Load model and tokeniser of a spec, quietly; code that comes with a model is never run.

    Args:
        spec: with a folder, which wins, a Hub id, or a short name of `loading.PUBLISHED`.
        device: see `load_encoder`.
        default: the Hub id where the spec names none.

    Raises:
        InputError, MissingExtraError, FliplensError: as for `load`; also weights that the files lack.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError(f"the encoder {spec}", "transformers")
    import torch

    where = resolve_device(device)
    folder, source = spec.folder, spec.model or default or ""
    name = source if folder is None else folder.name
    if folder is None and source in PUBLISHED:
        folder = minilm_folder() if source == "minilm" else None
        name = source = PUBLISHED[source]
    if folder is None:
        check_hub_name(source)
    elif not (folder / "config.json").is_file():
        raise InputError(
            f"expected a transformers model in {folder}, found no config.json: name the folder that "
            "save_pretrained() wrote"
        )
    else:
        source = str(folder)
    # Weights that the files lack are drawn at random: the caller's random state is kept.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            model, missing, tokenizer = _read(source, spec.revision)
        except Exception as error:  # whatever the model's files and the network make these libraries raise
            raise load_error(
                "a text model of transformers", f"{spec.family}:PATH", source, spec.revision, error
            ) from error
    if missing:
        raise FliplensError(
            f"expected all weights of {type(model).__name__} in {source}, found {len(missing)} missing, {missing[0]} "
            "among them: it holds another kind of model"
        )
    return Loaded(
        model.to(where),
        tokenizer,
        name=name,
        revision=(commit_of(model) or spec.revision) if folder is None else revision_of(folder),
    )


def _read(source: str, revision: str | None) -> tuple[Any, list[str], Any]:
    """Return the model, which of its weights the files lack, and its tokeniser."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **where)
    encoder = _encoder_class(config)
    # Weights may be kept in half precision; what they are multiplied in is the caller's to say.
    settings = {"config": config, "dtype": torch.float32, "output_loading_info": True, **where}
    model, report = (encoder or AutoModel).from_pretrained(source, **settings)
    part = ""
    if encoder is None and config.is_encoder_decoder:
        whole, model = model, model.get_encoder()
        part = next(name for name, module in whole.named_modules() if module is model) + "."
        # The commit is kept by the whole, the decoder is not.
        model.config._commit_hash = getattr(whole.config, "_commit_hash", None)
    # A pooler is a head: hidden states do without.
    missing = [name for name in report["missing_keys"] if name.startswith(part) and "pooler" not in name]
    return model, sorted(missing), AutoTokenizer.from_pretrained(source, **where)


def _encoder_class(config: Any) -> Any | None:
    """Return the class of an encoder that was published without its decoder, None for any other model."""
    name = (getattr(config, "architectures", None) or [""])[0]
    if not name.endswith(("Encoder", "EncoderModel")):
        return None
    try:
        modelling = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    except ImportError:
        return None
    return getattr(modelling, name, None)
