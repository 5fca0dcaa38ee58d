"""SONAR's text encoder: `sonar-text[:MODEL][@REVISION][#language=CODE]`.

SONAR (Duquenne, Schwenk and Sagot, arXiv 2308.11466) puts text of 202 languages and speech into one space. Its text
encoder is that of NLLB-200 with the mean over tokens, and a text is preceded by the code of its language; so the
port of its weights to transformers runs without fairseq2. Licence of the weights: CC BY-NC 4.0.
"""

from __future__ import annotations

import copy
import difflib
import re
from typing import Any

from fliplens.devices import resolve_precision
from fliplens.encoders.hf import load_text_model
from fliplens.encoders.hidden_states import HiddenStateEncoder, TextModel
from fliplens.encoders.specs import Spec
from fliplens.errors import InputError

__all__ = ["DEFAULT", "SonarTextEncoder", "load"]

DEFAULT = "cointegrated/SONAR_200_text_encoder"
"""The Hub id of the port, made by one of SONAR's authors."""

_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}", re.ASCII)


class SonarTextEncoder(HiddenStateEncoder):
    """SONAR's text encoder, told the language of the texts. Made by `load`."""

    @property
    def languages(self) -> list[str]:
        """The FLORES codes that the tokeniser knows, in order."""
        return _languages(self.text_model.tokenizer)

    def in_language(self, code: str) -> SonarTextEncoder:
        """Return an encoder for texts in another language, of the same model.

        Raises:
            InputError: the tokeniser knows no such language.
        """
        other = copy.copy(self)
        other._parsed = self._parsed.with_option("language", code)
        other.spec = str(other._parsed)
        tokenizer = copy.deepcopy(self.text_model.tokenizer)
        _set_language(tokenizer, code, self.name)
        other.text_model = self.text_model.with_tokenizer(tokenizer)
        return other


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> SonarTextEncoder:
    """Load SONAR's text encoder from a folder or the Hub, where none is named from `DEFAULT`.

    Raises:
        InputError: the tokeniser knows no such language; or as for `hf.load`.
        MissingExtraError, FliplensError: as for `hf.load`.
    """
    layer = spec.whole_number("layer")
    spec = spec.canonical()
    loaded = load_text_model(spec, device=device, default=DEFAULT)
    _set_language(loaded.tokenizer, spec.options.get("language", "eng_Latn"), loaded.name)
    model = TextModel(loaded.model, loaded.tokenizer, name=loaded.name)
    return SonarTextEncoder(
        model,
        spec=spec,
        layer=-1 if layer is None else layer,
        revision=loaded.revision,
        batch_size=batch_size,
        precision=resolve_precision(precision, model.device.type),
    )


def _languages(tokenizer: Any) -> list[str]:
    """Return the codes among a tokeniser's special tokens that it has a number for."""
    unknown = tokenizer.unk_token_id
    return sorted(
        token
        for token in map(str, tokenizer.extra_special_tokens)
        if _CODE.fullmatch(token) and tokenizer.convert_tokens_to_ids(token) != unknown
    )


def _set_language(tokenizer: Any, code: str, name: str) -> None:
    """Make a tokeniser begin texts with the code of their language."""
    known = _languages(tokenizer) if hasattr(tokenizer, "src_lang") else []
    if not known:
        raise InputError(
            f"expected a tokeniser with language codes (NLLB's) in {name}, found {type(tokenizer).__name__}: for a "
            "model without languages use hf:"
        )
    if code not in known:
        close = [one for one in known if one.lower().startswith(code[:3].lower())]
        close = close or [one for one in known if one[:2] == code[:2].lower()]
        close = close or difflib.get_close_matches(code, known, n=5, cutoff=0) or known
        raise InputError(
            f"expected the FLORES code of a language that {name} knows ({len(known)} of them), found {code!r}: use, "
            f"say, {', '.join(close[:5])}"
        )
    tokenizer.src_lang = code
