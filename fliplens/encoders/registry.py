"""All families of encoders there are, and the calls that get an encoder by its spec.

A family is a module of this package with a function

    load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> Encoder

that is imported when one of its encoders is asked for, and not before.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from fliplens.encoders.protocol import Encoder
from fliplens.encoders.specs import LANGUAGE, NESTED, Spec
from fliplens.errors import InputError

__all__ = [
    "FAMILIES",
    "PRECISIONS",
    "SHORT_NAMES",
    "Family",
    "canonical_spec",
    "known_encoders",
    "load_encoder",
    "parse_spec",
    "text_spec",
]

PRECISIONS = ("auto", "float32", "bfloat16")
"""What an encoder can be asked to multiply in."""


@dataclass(frozen=True)
class Family:
    """Encoders that one adapter loads."""

    form: str
    """How a spec of it looks, for people."""
    example: str
    """A spec of it."""
    about: str
    """What it is, in one line."""
    module: str
    """Where `load` is."""
    model: bool = True
    """Whether a spec may name a model; a family without one has but one."""
    required: bool = True
    """Whether it must."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What may follow `#`, each with what it means."""
    by_language: bool = False
    """Whether there is one published model a language, named FAMILY-LANGUAGE."""
    modality: str = "text"
    """What it encodes, "text" or "speech"."""
    service: bool = False
    """Whether its models are names at a service, and neither folders nor Hub ids."""
    default: str = ""
    """What a spec without model and options stands for, MODEL#option=value,...: records spell it out, so that they
    mean the same when the default changes."""
    extra: str | None = None
    """The extra of this package that brings what it needs; None where it needs nothing."""
    needs: tuple[str, ...] = ()
    """The modules that the extra brings, looked for to tell whether it is installed."""

    @property
    def installed(self) -> bool:
        """Whether what it needs is installed; looked for, not imported."""
        return all(_is_there(module) for module in self.needs)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is absent, or was blocked
        return False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "minilm": Family(
            "minilm",
            "minilm",
            "sentence-transformers/all-MiniLM-L6-v2: English, 384 numbers a sentence, fast on a CPU",
            "fliplens.encoders.loading",
            model=False,
            extra="sentence-transformers",
            needs=("sentence_transformers",),
        ),
        "labse": Family(
            "labse",
            "labse",
            "sentence-transformers/LaBSE: 109 languages in one space, 768 numbers a sentence",
            "fliplens.encoders.loading",
            model=False,
            extra="sentence-transformers",
            needs=("sentence_transformers",),
        ),
        "st": Family(
            "st:MODEL[@REVISION]",
            "st:sentence-transformers/all-mpnet-base-v2",
            "any sentence-transformers model, from a folder or the Hugging Face Hub; also without st:",
            "fliplens.encoders.loading",
            options={
                "prompt": "the name of a prompt that the model defines, put before every text",
                "dim": "how many first numbers of a vector are kept, for models trained for that",
            },
            extra="sentence-transformers",
            needs=("sentence_transformers",),
        ),
        "hf": Family(
            "hf:MODEL[@REVISION]",
            "hf:minilm#layer=3",
            "a pooled hidden state of any text model of transformers, from a folder or the Hugging Face Hub",
            "fliplens.encoders.hf",
            options={
                "layer": "which hidden state: 0 the embeddings, negative from the end (default: -1, the last)",
                "pool": "mean over tokens, cls (the first) or last (default: mean)",
                "normalise": "yes for vectors of unit length (default: no)",
            },
            extra="transformers",
            needs=("transformers",),
        ),
        "sonar-text": Family(
            "sonar-text[:MODEL][@REVISION]",
            "sonar-text#language=fra_Latn",
            "SONAR's text encoder: 202 languages in one space with speech, 1024 numbers a sentence",
            "fliplens.encoders.sonar_text",
            required=False,
            options={
                "language": "the FLORES code of the texts' language (default: eng_Latn)",
                "layer": "which hidden state, as of hf (default: -1, the last, which is SONAR's vector)",
            },
            extra="transformers",
            needs=("transformers",),
        ),
        "sonar-speech": Family(
            "sonar-speech-LANGUAGE",
            "sonar-speech-eng",
            "SONAR's speech encoder of a language (eng, fra, ...), in the space of its text, once its checkpoint is "
            "converted; or sonar-speech:FOLDER#language=eng. Experimental",
            "fliplens.encoders.sonar_speech",
            options={LANGUAGE: "ISO 639-3 code of what is spoken"},
            extra="speech",
            needs=("transformers", "soundfile", "soxr"),
            by_language=True,
            modality="speech",
        ),
        "cascade": Family(
            "cascade:ASR_MODEL[@REVISION]#encoder=SPEC",
            "cascade:openai/whisper-small#language=en,encoder=minilm",
            "speech through any recogniser of transformers (Whisper, wav2vec2 with CTC, ...), then what it wrote "
            "through any text encoder; #language=en,encoder=SPEC tells a multilingual recogniser what is spoken",
            "fliplens.encoders.cascade",
            options={LANGUAGE: "what is spoken, as the recogniser calls it", NESTED: "the text encoder's spec"},
            extra="speech",
            needs=("transformers", "soundfile", "soxr"),
            modality="speech",
        ),
        "gemini": Family(
            "gemini[:MODEL]",
            "gemini#dim=1536",
            "Google's embedding models through the Gemini API, gemini-embedding-001 unless named; paid by the token",
            "fliplens.encoders.gemini",
            required=False,
            options={
                "dim": "numbers a vector, up to 3072 (default 768)",
                "task": "what vectors are for, as the API names it (default SEMANTIC_SIMILARITY)",
            },
            extra="gemini",
            needs=("google.genai",),
            service=True,
            default="gemini-embedding-001#dim=768,task=SEMANTIC_SIMILARITY",
        ),
        "openai": Family(
            "openai:MODEL",
            "openai:text-embedding-3-small#dim=512",
            "OpenAI's embedding models, or those of any server with such an API (vLLM, TEI, Ollama, ...)",
            "fliplens.encoders.openai",
            options={
                "url": "the server, http://localhost:8000/v1 say (default: OPENAI_BASE_URL, else OpenAI's)",
                "dim": "numbers a vector, for models that can be shortened (default: the model's own)",
            },
            extra="openai",
            needs=("openai",),
            service=True,
        ),
    }
)
"""By the name that a spec starts with."""

SHORT_NAMES = tuple(name for name, family in FAMILIES.items() if not family.model)
"""Families of one model: their names also stand for that model behind `st:` and `hf:`."""
_TAKE_SHORT_NAMES = ("st", "hf")

_LANGUAGE = re.compile(r"[a-z]{2,3}(?:_[A-Z][a-z]{3})?", re.ASCII)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?:@[^\s#]+)?(?:#\S+)?", re.ASCII)


def known_encoders() -> Mapping[str, str]:
    """Return the forms of specs that `load_encoder` takes, each with a line that describes the encoder."""
    return MappingProxyType({family.form: family.about for family in FAMILIES.values()})


def parse_spec(text: str) -> Spec:
    """Take a spec apart; a folder, and `OWNER/NAME` of the Hub, are sentence-transformers models.

    `st:minilm` without options is `minilm`: one encoder has one spelling.

    Raises:
        InputError: no family goes by that name, it has no such model or options, or a spec inside of it is none or
            not one of text.
    """
    # Where a family needs no model, its name may be followed by a revision, options or a language alone.
    name = re.split("[:@#]", text, maxsplit=1)[0]
    rest = text[len(name) :].removeprefix(":")
    base, hyphen, language = name.rpartition("-")
    if name == text and name not in FAMILIES and hyphen and base in FAMILIES and FAMILIES[base].by_language:
        if not _LANGUAGE.fullmatch(language):
            raise InputError(
                f"expected {FAMILIES[base].form}, found {text!r}: say {FAMILIES[base].example}, for instance"
            )
        return Spec.of_language(base, language)
    family = FAMILIES.get(name)
    if family is None or (text[len(name) :][:1] in ("@", "#") and Path(text).is_dir()):
        if text and (Path(text).expanduser().is_dir() or _HUB_NAME.fullmatch(text)):
            return parse_spec(f"st:{text}")
        raise InputError(
            f"expected an encoder, found {text!r}: name one of {', '.join(one.form for one in FAMILIES.values())}, "
            "or a sentence-transformers model without st:, as OWNER/NAME[@REVISION] or an existing model folder"
        )
    spec = Spec.parse(name, rest, service=family.service)
    _check_model(spec, family, text)
    _check_options(spec, family, text)
    if name == "st" and spec.model in SHORT_NAMES and not spec.options and spec.folder is None:
        return Spec(spec.model)
    if family.by_language and not spec.model:
        return parse_spec(f"{name}-{spec.options[LANGUAGE]}")
    return _filled(spec, family)


def _check_model(spec: Spec, family: Family, text: str) -> None:
    """Refuse a model where none can be, and none where one must be."""
    if not family.model and (spec.model or spec.revision):
        raise InputError(
            f"expected {family.form} alone, which is one model, found {text!r}: for another model or version say "
            "st:OWNER/NAME[@REVISION]"
        )
    named = spec.model or (family.by_language and LANGUAGE in spec.options and not spec.revision)
    if family.model and family.required and not named:
        missing = "language" if family.by_language else "model"
        raise InputError(
            f"expected {family.form}, found no {missing} in {text!r}: say {family.example}, for instance"
        )
    short = spec.family in _TAKE_SHORT_NAMES and spec.model in SHORT_NAMES
    if short and spec.revision and spec.folder is None:
        raise InputError(
            f"expected {spec.family}:{spec.model} without a revision, as it is one version, found {text!r}: leave "
            f"out @{spec.revision}, or name another version as {spec.family}:OWNER/NAME@REVISION"
        )


def _check_options(spec: Spec, family: Family, text: str) -> None:
    """Refuse options that a family does not have, and a spec inside of a spec that is not one of text."""
    unknown = [option for option in spec.options if option not in family.options]
    if unknown and not family.options:
        raise InputError(
            f"expected no options in a spec {family.form}, found {unknown[0]} in {text!r}: leave it out, or say "
            f"st:{family.form}#... for those of st"
        )
    if unknown:
        raise InputError(
            f"expected options out of {', '.join(family.options)} in a spec {family.form}, found {unknown[0]} in "
            f"{text!r}: fliplens encoders tells what they mean"
        )
    if NESTED not in family.options:
        return
    if NESTED not in spec.options:
        raise InputError(
            f"expected {family.form}, found no {NESTED}=SPEC in {text!r}: say {family.example}, for instance"
        )
    try:
        inner = parse_spec(spec.options[NESTED])
    except InputError as error:
        raise InputError(f"{error} (behind {NESTED}= in {text!r}; other options come before it)") from error
    modality = FAMILIES[inner.family].modality
    if modality != "text":
        raise InputError(
            f"expected an encoder of text as {NESTED}= in {text!r}, found {inner}, one of {modality}: say {NESTED}="
            "minilm, for instance"
        )


def _filled(spec: Spec, family: Family) -> Spec:
    """Return a spec with what its family fills in, options in the family's order."""
    default = Spec.parse(spec.family, family.default, service=family.service)
    options = {**default.options, **spec.options}
    if options:
        ordered = {name: options[name] for name in family.options if name in options}
        spec = replace(spec, options=MappingProxyType(ordered))
    return spec if spec.model else replace(spec, model=default.model)


def load_encoder(
    spec: str, *, device: str = "auto", batch_size: int | None = None, precision: str = "auto"
) -> Encoder:
    """Load the encoder that `spec` names (`known_encoders` lists the forms).

    Args:
        spec: a short name, `FAMILY:MODEL[@REVISION][#option=value,...]`, a folder, or `OWNER/NAME[@REVISION]`.
        device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        batch_size: how many texts go through the model at once; None forms batches by their number of tokens,
            which is faster for texts of mixed length.
        precision: what the model multiplies in. "bfloat16" leaves a vector's cosine with its float32 self above
            0.9999; "auto" takes it where the device has instructions for it (elsewhere it is far slower), and
            "float32" otherwise. Vectors come out as float32 either way.

    Raises:
        InputError: no encoder goes by that spec, the Hub has no such model, or the device is not there.
        MissingExtraError: the library that runs this encoder is not installed.
        FliplensError: the model could not be loaded.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(
            f"expected a batch size of 1 or more, found {batch_size}: leave it out for batches by length"
        )
    if precision not in PRECISIONS:
        raise InputError(f"expected a precision of {', '.join(PRECISIONS)}, found {precision!r}")
    parsed = parse_spec(spec)
    module = importlib.import_module(FAMILIES[parsed.family].module)
    encoder: Encoder = module.load(parsed, device=device, batch_size=batch_size, precision=precision)
    return encoder


def canonical_spec(spec: str) -> str:
    """Return the one spelling of a spec that lenses and manifests record, without loading anything.

    A folder becomes `st:` and its absolute path, a Hub id `st:OWNER/NAME`; what is unknown here stays as it is. A
    spec inside of a spec is spelt that way too.
    """
    try:
        parsed = parse_spec(spec).canonical()
    except InputError:
        return spec
    if NESTED in parsed.options:
        parsed = parsed.with_option(NESTED, canonical_spec(parsed.options[NESTED]))
    return str(parsed)


def text_spec(spec: str) -> str | None:
    """Return the spec of the encoder that gives texts their vectors in the space of `spec`, without loading anything.

    That is the spec itself, a cascade's encoder of what was recognised, and None for an encoder of speech alone.
    """
    try:
        parsed = parse_spec(spec)
    except InputError:
        return spec
    if NESTED in parsed.options:
        return parsed.options[NESTED]
    return None if FAMILIES[parsed.family].modality == "speech" else spec
