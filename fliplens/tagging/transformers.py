"""Names found by a token-classification model of transformers.

What is added to the model is how its tokens become names. The tokens of one word, as this package's tokeniser cuts
text at punctuation and at apostrophes, take the label of the first of them; a name is a run of tokens of one kind,
from whole word to whole word. A text that is longer than the model reads goes through it in overlapping windows, and
each token's label comes from the window in which it has more text around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import regex

from fliplens.devices import resolve_device
from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.pretrained import commit_of, load_error, quiet, revision_of
from fliplens.tagging.names import words_of

__all__ = ["TransformersTagger", "load"]

LONGEST_WINDOW = 512
"""Tokens: attention's cost grows with their square, and names need no more text around them."""

BATCH_SIZE = 32

_APOSTROPHES = regex.compile("['\u2019\u02bc\uff07]")


def load(
    model: str, *, device: str = "auto", batch_size: int | None = None, labels: Sequence[str] | None = None
) -> TransformersTagger:
    """Load a token-classification model.

    Args:
        model: a model folder, or a Hub id with an optional `@REVISION`. The folder wins if both exist.
        device: see `load_tagger`.
        batch_size: windows of text that go through the model at once.
        labels: which of its labels count, without B- and I-; None for all but O.

    Raises:
        InputError: no such folder, model or revision; the device is not there; the model has no trained head for
            tokens, no such labels, or a tokeniser that does not tell where tokens are.
        MissingExtraError: transformers is not installed.
        FliplensError: the Hub could not be reached, or the files do not load.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError("a tagger of transformers", "transformers")
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        if not (folder / "config.json").is_file():
            raise InputError(f"expected a token-classification model in {folder}, found no config.json")
        source, revision, spec = str(folder), None, f"transformers:{folder}"
    else:
        name, _, version = model.partition("@")
        if not name or name.count("/") > 1 or name[0] in "./~" or "\\" in name or folder.exists():
            raise InputError(f"expected a model folder at {model}, found none: check the path")
        source, revision, spec = name, version or None, f"transformers:{model}"
    network, tokenizer = _load(source, revision, device)
    tagger = TransformersTagger(network, tokenizer, spec=spec, batch_size=batch_size, labels=labels)
    tagger.revision = revision_of(folder) if folder.is_dir() else (commit_of(network) or revision)
    return tagger


def _load(source: str, revision: str | None, device: str) -> tuple[Any, Any]:
    """Return model and tokeniser, loaded quietly."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    where = resolve_device(device)
    # Weights that the files lack are drawn at random: the caller's random state is kept.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            network, report = AutoModelForTokenClassification.from_pretrained(
                source, revision=revision, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        except Exception as error:  # whatever the model's files and the network make these libraries raise
            raise load_error("a token-classification model", "transformers:PATH", source, revision, error) from error
    # A model of another task loads all the same, with a head drawn at random or one that labels whole sentences.
    built_as = network.config.architectures or []
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing or (built_as and not any(name.endswith("ForTokenClassification") for name in built_as)):
        found = f"a {built_as[0]}" if built_as else f"none: {missing[0]} has no weights"
        raise InputError(
            f"expected a model trained to label tokens in {source}, found {found}; name a token-classification model"
        )
    return network.float().eval().to(where), tokenizer


class _Token(NamedTuple):
    start: int
    end: int
    label: int


class TransformersTagger:
    """A loaded token-classification model behind the `Tagger` protocol. Made by `load`.

    Args:
        model: a `PreTrainedModel` with logits for each token, on its device.
        tokenizer: its tokeniser, one that tells where in the text a token is.
        spec: what `load_tagger` takes to get it again.
        batch_size: windows of text that go through the model at once; None for 32.
        labels: which labels count, without B- and I-, in any case; None for all but O.

    Raises:
        InputError: the tokeniser does not tell where tokens are, the model lacks one of the labels, or none are given
            and the model has no label O, so that it says something of every word.
    """

    texts_a_call = 256

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        spec: str,
        batch_size: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.spec = spec
        self.revision: str | None = None
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size or BATCH_SIZE
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"expected a tokeniser that tells where in the text its tokens are, found "
                f"{type(tokenizer).__name__} with {spec}: name a model with a tokenizer.json"
            )
        self._labels = {int(number): _split(label) for number, label in model.config.id2label.items()}
        kinds = list(dict.fromkeys(kind for _, kind in self._labels.values()))
        if labels is None:
            if "O" not in kinds:
                raise InputError(
                    f"expected a label O among those of {spec}, for words outside of names, found "
                    f"{', '.join(kinds[:8])}: say which of them count with --labels (labels=...)"
                )
            self.labels = tuple(kind for kind in kinds if kind != "O")
        else:
            by_name = {kind.casefold(): kind for kind in kinds if kind != "O"}
            unknown = [label for label in labels if label.casefold() not in by_name]
            if unknown or not labels:
                raise InputError(
                    f"expected labels among {', '.join(by_name.values())} of {spec}, found "
                    f"{', '.join(map(repr, unknown)) or 'none'}"
                )
            self.labels = tuple(dict.fromkeys(by_name[label.casefold()] for label in labels))
        self._window = _window(model, tokenizer)
        room = self._window - tokenizer.num_special_tokens_to_add()
        if room < 4:
            raise InputError(
                f"expected a model that reads 4 tokens or more at once, found {spec}, which reads {room}"
            )
        self._stride = room // 4

    def __repr__(self) -> str:
        return f"TransformersTagger(spec={self.spec!r}, labels={self.labels!r}, window={self._window})"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which labels count."""
        return {"labels": sorted(self.labels)}

    def tag(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the names in each text, in order and with repeats; see `Tagger.tag`.

        Raises:
            FliplensError: the model gave scores that are not finite.
        """
        texts = list(texts)
        if not texts:
            return []
        return [
            [text[start:end] for start, end in self._names(text, tokens)]
            for text, tokens in zip(texts, self._tokens(texts), strict=True)
        ]

    def _tokens(self, texts: list[str]) -> list[list[_Token]]:
        """Return the tokens of each text with their labels, special ones apart."""
        windows = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._window,
            stride=self._stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            padding=False,
            verbose=False,
        )
        owners = windows["overflow_to_sample_mapping"]
        offsets, special = windows["offset_mapping"], windows["special_tokens_mask"]
        labels = self._classify(windows)
        found: list[list[_Token]] = [[] for _ in texts]
        for number, text in enumerate(owners):
            kept = [
                _Token(start, end, label)
                for (start, end), added, label in zip(offsets[number], special[number], labels[number], strict=True)
                if not added
            ]
            # Two windows share `stride` tokens; each labels the half that it has more text around.
            if number and owners[number - 1] == text:
                kept = kept[self._stride // 2 :]
            if number + 1 < len(owners) and owners[number + 1] == text:
                kept = kept[: len(kept) - (self._stride - self._stride // 2)]
            found[text].extend(kept)
        return found

    def _classify(self, windows: Any) -> list[list[int]]:
        """Return the best label of every token of every window; windows of like length go together."""
        import torch

        lengths = [len(row) for row in windows["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
        names = [name for name in self._tokenizer.model_input_names if name in windows]
        labels: list[list[int]] = [[] for _ in lengths]
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            batch = {}
            for name in names:
                fill = (self._tokenizer.pad_token_id or 0) if name == "input_ids" else 0
                padded = [windows[name][row] + [fill] * (lengths[rows[0]] - lengths[row]) for row in rows]
                batch[name] = torch.tensor(padded, device=self._model.device)
            with torch.inference_mode():
                logits = self._model(**batch).logits.float()
            best = logits.argmax(dim=-1).cpu().tolist()
            finite = torch.isfinite(logits).all(dim=-1).cpu().tolist()
            for row, one, good in zip(rows, best, finite, strict=True):
                if not all(good[: lengths[row]]):
                    raise FliplensError(
                        f"expected finite scores from {self.spec}, found some that are not: check the model's weights"
                    )
                labels[row] = one[: lengths[row]]
        return labels

    def _names(self, text: str, tokens: Sequence[_Token]) -> Iterator[tuple[int, int]]:
        """Yield start and end of each name."""
        pieces = _pieces(text)
        name: tuple[int, int] | None = None
        kind = "O"
        number, piece = 0, -1
        for token in tokens:
            if _says_nothing(text, token):
                continue
            while number < len(pieces) and pieces[number][1] <= token.start:
                number += 1
            inside = number < len(pieces) and pieces[number][0] < token.end
            if inside and number == piece:
                # Of a word only the first token has a say.
                continue
            if inside:
                piece = number
            begins, this = self._labels[token.label]
            if name is not None and (this != kind or begins == "B"):
                yield name
                name = None
            kind = this
            if inside and this in self.labels:
                name = (name[0] if name is not None else pieces[number][0], pieces[number][1])
        if name is not None:
            yield name


def _says_nothing(text: str, token: _Token) -> bool:
    """Tell whether a token is white space, or an apostrophe inside a word, which no name ends at."""
    shown = text[token.start : token.end].strip()
    inside = text[token.start - 1 : token.start].isalnum() and text[token.end : token.end + 1].isalnum()
    return not shown or (inside and _APOSTROPHES.fullmatch(shown) is not None)


def _pieces(text: str) -> list[tuple[int, int]]:
    """Return the places of the words of a text, cut at apostrophes: what one label is for."""
    places: list[tuple[int, int]] = []
    for word in words_of(text):
        start = word.start
        for apostrophe in _APOSTROPHES.finditer(text, word.start, word.end):
            if apostrophe.start() > start:
                places.append((start, apostrophe.start()))
            start = apostrophe.end()
        places.append((start, word.end))
    return places


def _split(label: str) -> tuple[str, str]:
    """Return "B" or "I" (begins a name, goes on with one) and the kind, of a label in any of the usual schemes."""
    prefix, _, kind = label.partition("-")
    if kind and prefix in ("B", "S", "U"):
        return "B", kind
    if kind and prefix in ("I", "E", "L", "M"):
        return "I", kind
    return "I", label


def _window(model: Any, tokenizer: Any) -> int:
    """Return how many tokens go through the model at once, special ones included."""
    limits = [LONGEST_WINDOW]
    if 0 < tokenizer.model_max_length < 1_000_000:
        limits.append(int(tokenizer.model_max_length))
    for module in model.modules():
        table: Any = getattr(module, "position_embeddings", None)
        if table is not None and isinstance(getattr(table, "num_embeddings", None), int):
            # RoBERTa and its kin count positions from behind that of padding.
            padding = table.padding_idx
            limits.append(table.num_embeddings - (0 if padding is None else padding + 1))
    return min(limits)
