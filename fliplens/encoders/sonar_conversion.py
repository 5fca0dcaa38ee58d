"""SONAR's published speech checkpoints, made into folders that `sonar-speech` loads.

    python -m fliplens.encoders.sonar_conversion spenc.eng.pt --language eng [-o FOLDER] [--overwrite]

A checkpoint is a torch file with the names of fairseq (as published) or of fairseq2 (as its own code saves them). It
is read as tensors alone: a file that would have to run code to be read is refused. Every tensor of the network must
be there in its shape, and nothing else; the folder holds `model.safetensors` and `config.json`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fliplens.encoders.sonar_speech import (
    FOLDER,
    FORMAT_VERSION,
    LANGUAGES,
    MODEL_TYPE,
    default_folder,
    published_config,
)
from fliplens.errors import FliplensError, InputError, reason_of
from fliplens.files import atomic_folder, check_free, sha256_of_file, write_json

if TYPE_CHECKING:
    import torch

    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

__all__ = ["convert", "fairseq2_name", "fairseq_name", "main"]

_FAIRSEQ2: tuple[tuple[str, str], ...] = (
    (r"^feature_projection\.layer_norm\.", "encoder_frontend.post_extract_layer_norm."),
    (r"^feature_projection\.projection\.", "encoder_frontend.model_dim_proj."),
    (r"^encoder\.layer_norm\.", "layer_norm."),
    (r"^(encoder\.layers\.\d+\.)final_layer_norm\.", r"\1layer_norm."),
    (r"^(encoder\.layers\.\d+\.)conv_module\.layer_norm\.", r"\1conv_layer_norm."),
    (r"^(encoder\.layers\.\d+\.)conv_module\.", r"\1conv."),
    (r"^(encoder\.layers\.\d+\.ffn[12]\.)intermediate_dense\.", r"\1inner_proj."),
    (r"^(encoder\.layers\.\d+\.ffn[12]\.)output_dense\.", r"\1output_proj."),
    (r"^(encoder\.layers\.\d+\.self_attn\.)linear_pos\.", r"\1sdpa.r_proj."),
    (r"^(encoder\.layers\.\d+\.self_attn\.)pos_bias_([uv])$", r"\1sdpa.\2_bias"),
    (r"^(encoder\.layers\.\d+\.self_attn\.)linear_out\.", r"\1output_proj."),
    (r"^(encoder\.layers\.\d+\.self_attn\.)linear_([qkv])\.", r"\1\2_proj."),
    (r"^pooler\.embed_tokens\.", "encoder_pooler.decoder_frontend.embed."),
    (r"^pooler\.projection\.", "encoder_pooler.projection_out."),
    (r"^pooler\.(layers\.\d+\.)cross_attn", r"encoder_pooler.decoder.\1encoder_decoder_attn"),
    (r"^pooler\.(layers\.\d+\.)(inner_proj|output_proj)\.", r"encoder_pooler.decoder.\1ffn.\2."),
    (r"^pooler\.(layers\.\d+\.)", r"encoder_pooler.decoder.\1"),
)
"""From our names (those of transformers) to fairseq2's; the first that fits counts."""

_FAIRSEQ: tuple[tuple[str, str], ...] = (
    (r"^feature_projection\.layer_norm\.", "encoder.w2v_model.layer_norm."),
    (r"^feature_projection\.projection\.", "encoder.w2v_model.post_extract_proj."),
    (r"^(encoder\.layers\.\d+\.ffn[12])_layer_norm\.", r"\1.layer_norm."),
    (r"^(encoder\.layers\.\d+\.ffn[12]\.)intermediate_dense\.", r"\1w_1."),
    (r"^(encoder\.layers\.\d+\.ffn[12]\.)output_dense\.", r"\1w_2."),
    (r"^pooler\.embed_tokens\.", "decoder.embed_tokens."),
    (r"^pooler\.projection\.weight$", "decoder.embed_out"),
    (r"^pooler\.(layers\.\d+\.)cross_attn\.output_proj\.", r"decoder.\1encoder_attn.out_proj."),
    (r"^pooler\.(layers\.\d+\.)self_attn\.output_proj\.", r"decoder.\1self_attn.out_proj."),
    (r"^pooler\.(layers\.\d+\.)cross_attn", r"decoder.\1encoder_attn"),
    (r"^pooler\.(layers\.\d+\.)inner_proj\.", r"decoder.\1fc1."),
    (r"^pooler\.(layers\.\d+\.)output_proj\.", r"decoder.\1fc2."),
    (r"^pooler\.(layers\.\d+\.)ffn_layer_norm\.", r"decoder.\1final_layer_norm."),
    (r"^pooler\.(layers\.\d+\.)", r"decoder.\1"),
)
"""From our names to those in the published files, the conformer's own prefix apart."""

_LEFT_OUT = re.compile(
    r"encoder\.w2v_model\.mask_emb|encoder_frontend\.masker\..*"  # masks frames in training only
    r"|encoder\.w2v_model\.encoder\.pos_conv\.0\..*"  # positions by convolution, which the relative ones replace
    r"|(en|de)coder\.version|(en|de)coder\.embed_positions\._float_tensor"  # fairseq's own marks
)
"""What a checkpoint may hold beyond the network."""


def fairseq2_name(name: str) -> str:
    """Return what fairseq2 calls a tensor of our network."""
    return _renamed(name, _FAIRSEQ2)


def fairseq_name(name: str) -> str:
    """Return what fairseq, and with it the published files, call a tensor of our network."""
    found = _renamed(name, _FAIRSEQ)
    if name.startswith("encoder."):
        return f"encoder.w2v_model.{found}"
    return found


def convert(
    checkpoint: str | Path,
    folder: str | Path | None = None,
    *,
    language: str,
    config: SonarSpeechConfig | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a folder that `sonar-speech:FOLDER` loads of a published checkpoint.

    Args:
        checkpoint: the torch file.
        folder: where to; by default where `sonar-speech-LANGUAGE` looks.
        language: ISO 639-3 code of what is spoken.
        config: sizes of the network; by default those of the language's published one.
        overwrite: replace such a folder.

    Returns:
        The folder.

    Raises:
        InputError: no such file, one that cannot be read as tensors alone, or one whose tensors are not those of this
            network; no such language; the folder is there already.
        MissingExtraError: torch's or transformers' classes are not installed.
    """
    checkpoint = Path(checkpoint)
    if re.fullmatch(r"[a-z]{3}", language) is None:
        raise InputError(f"expected a language as three letters of ISO 639-3 (eng, fra, ...), found {language!r}")
    folder = check_free(folder or default_folder(language), kind=FOLDER, overwrite=overwrite)
    config = config or published_config(language)
    tensors = _renamed_tensors(_load(checkpoint), checkpoint, config)

    from safetensors.torch import save_file

    with atomic_folder(folder, kind=FOLDER, overwrite=overwrite) as made:
        save_file(tensors, made / "model.safetensors")
        write_json(
            made / "config.json",
            {
                "model_type": MODEL_TYPE,
                "format_version": FORMAT_VERSION,
                "language": language,
                "checked": False,
                "source": {"name": checkpoint.name, "sha256": sha256_of_file(checkpoint)},
                "network": asdict(config),
            },
        )
    return folder


def main(argv: list[str] | None = None) -> int:
    """Convert a checkpoint from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fliplens.encoders.sonar_conversion",
        description="Make a folder that sonar-speech loads of a published SONAR speech checkpoint.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT.pt", help="for example spenc.eng.pt")
    parser.add_argument("--language", required=True, metavar="CODE", help=f"one of {', '.join(LANGUAGES)}")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="default: where sonar-speech-CODE looks")
    parser.add_argument("--overwrite", action="store_true", help="replace a converted folder")
    args = parser.parse_args(argv)
    try:
        folder = convert(args.checkpoint, args.output, language=args.language, overwrite=args.overwrite)
    except FliplensError as error:
        sys.stderr.write(f"fliplens: {error}\n")
        return error.exit_status
    spec = f"sonar-speech:{folder}" if args.output else f"sonar-speech-{args.language}"
    sys.stdout.write(f"{folder}: load it as {spec}\n")
    return 0


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        found, n = re.subn(pattern, replacement, name)
        if n:
            return found
    return name


def _load(checkpoint: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a torch file, without running anything that is in it."""
    import torch

    if not checkpoint.is_file():
        raise InputError(f"expected a checkpoint at {checkpoint}, found none: check the path")
    try:
        value = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file makes the unpickler raise what it likes
        reason = reason_of(error)
        raise InputError(
            f"expected a torch checkpoint of nothing but tensors in {checkpoint}, could not read it as such "
            f"({reason}): download the published file again; files that run code are not read"
        ) from error
    tensors = value.get("model", value) if isinstance(value, dict) else value
    named = isinstance(tensors, dict) and all(isinstance(one, torch.Tensor) for one in tensors.values())
    if not named or not tensors:
        raise InputError(
            f"expected tensors by name, or under the name model, in {checkpoint}, found something else: "
            "name a published SONAR speech checkpoint"
        )
    return {str(name): one for name, one in tensors.items()}


def _renamed_tensors(
    found: Mapping[str, torch.Tensor], checkpoint: Path, config: SonarSpeechConfig
) -> dict[str, torch.Tensor]:
    """Return the tensors by our names, once they are those of the network and all of them."""
    import torch

    from fliplens.encoders.sonar_speech_model import empty_model

    expected: dict[str, Any] = empty_model(config).state_dict()
    published = any(name.startswith("encoder.w2v_model.") for name in found)
    theirs = {name: fairseq_name(name) if published else fairseq2_name(name) for name in expected}
    made: dict[str, torch.Tensor] = {}
    wrong: list[str] = []
    missing: list[str] = []
    for name, shape in expected.items():
        one = found.get(theirs[name])
        if one is None and name.endswith(".num_batches_tracked"):
            # A count that training keeps and nothing reads.
            one = torch.zeros((), dtype=torch.int64)
        if one is None:
            missing.append(theirs[name])
        elif one.shape != shape.shape:
            wrong.append(f"{theirs[name]} of shape {tuple(one.shape)}, not {tuple(shape.shape)}")
        elif shape.is_floating_point() and not bool(torch.isfinite(one).all()):
            wrong.append(f"{theirs[name]} with NaN or infinite values")
        else:
            made[name] = one.to(shape.dtype).contiguous().clone()
    known = set(theirs.values())
    unexpected = [name for name in found if name not in known and not _LEFT_OUT.fullmatch(name)]
    faults = list(_faults(missing, wrong, unexpected))
    if faults:
        raise InputError(
            f"expected the {len(expected)} tensors of a SONAR speech encoder of {config.layers} and "
            f"{config.pooler_layers} layers in {checkpoint}, found {'; '.join(faults)}: check file and language"
        )
    return made


def _faults(missing: list[str], wrong: list[str], unexpected: list[str]) -> Iterator[str]:
    """Yield each kind of fault in few words, with the first of its kind by name."""
    for what, names in (("missing", missing), ("not as they should be", wrong), ("unexpected", unexpected)):
        if names:
            yield f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"


if __name__ == "__main__":
    raise SystemExit(main())
