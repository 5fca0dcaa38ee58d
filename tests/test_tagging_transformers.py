"""Names by token-classification models: tiny ones that the tests build, with labels by lexicon or at random."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import assert_one_line, call
from hypothesis import given, settings
from hypothesis import strategies as st

from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.files import write_lines
from fliplens.tagging import Tagger, load_tagger, tag_texts

pytest.importorskip("transformers")

from fliplens.tagging import transformers as adapter
from fliplens.tagging.transformers import TransformersTagger

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
LEXICON = {
    "Ann": "B-PER", "Lee": "I-PER", "O": "B-PER", "Brien": "I-PER", "New": "B-LOC", "York": "I-LOC", "Paris": "B-LOC",
    "Germany": "B-LOC", "Oslo": "B-MISC", "St": "B-LOC", ".": "I-LOC", "John": "I-LOC",
}  # fmt: skip
PLAIN = ["the", "cat", "sat", "on", "in", "and", "of", "Mr", "s", "d", ",", "'", "’", "-", "!", "?"]


def tokenizer_of(words: Sequence[str], folder: Path, *, limit: int | None = None) -> int:
    """Save a cased WordPiece tokeniser that knows the words and all letters; return its size."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    options = {} if limit is None else {"model_max_length": limit}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        **options,
    ).save_pretrained(folder)
    return len(vocab)


def build(
    folder: Path, *, layers: int = 0, labels: Sequence[str] = LABELS, positions: int = 64, limit: int | None = None
) -> Path:
    """Save a BERT that labels tokens: without layers by LEXICON, with layers at random."""
    from transformers import BertConfig, BertForTokenClassification

    n = tokenizer_of([*LEXICON, *PLAIN], folder, limit=limit)
    config = BertConfig(
        vocab_size=n,
        hidden_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=positions,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForTokenClassification(config)
    if not layers:
        with torch.no_grad():
            # Each token's vector points where its label's classifier does; places say nothing.
            embeddings = model.bert.embeddings
            embeddings.position_embeddings.weight.zero_()
            embeddings.token_type_embeddings.weight.zero_()
            vectors = torch.nn.functional.layer_norm(embeddings.word_embeddings.weight, (256,))
            wanted = torch.zeros(n, len(labels))
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder)
            for word, number in tokenizer.get_vocab().items():
                wanted[number, labels.index(LEXICON.get(word, "O"))] = 1.0
            model.classifier.weight.copy_(torch.linalg.lstsq(vectors, wanted).solution.T)
            model.classifier.bias.zero_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def by_lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("lexicon"))


@pytest.fixture(scope="module")
def at_random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("random"), layers=2)


def loaded(folder: Path, **options: Any) -> TransformersTagger:
    tagger = load_tagger(f"transformers:{folder}", device="cpu", **options)
    assert isinstance(tagger, TransformersTagger) and isinstance(tagger, Tagger)
    return tagger


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ann Lee sat in New York, and in Paris.", ["Ann Lee", "New York", "Paris"]),
        ("Germany's cat", ["Germany"]),
        ("the cat of Mr O'Brien’s", ["O'Brien"]),
        ("d'Oslo", ["Oslo"]),
        ("New York-Paris", ["New York", "Paris"]),
        ("Ann Ann Lee", ["Ann", "Ann Lee"]),
        ("Lee, York", ["Lee", "York"]),
        ("St. John!", ["St. John"]),
        # Of a word's tokens the first has a say.
        ("Paristhe cat, theParis", ["Paristhe"]),
        ("the cat sat", []),
        ("", []),
        ("...", []),
    ],
)
def test_tokens_become_names_of_whole_words(by_lexicon: Path, text: str, names: list[str]) -> None:
    assert loaded(by_lexicon).tag([text]) == [names]


def test_labels_choose_which_names_count(by_lexicon: Path) -> None:
    text = "Ann sat in Paris, in Oslo"
    assert loaded(by_lexicon).tag([text]) == [["Ann", "Paris", "Oslo"]]
    some = loaded(by_lexicon, labels=["loc", "PER"])
    assert some.tag([text]) == [["Ann", "Paris"]]
    assert some.settings == {"labels": ["LOC", "PER"]} != loaded(by_lexicon).settings
    for labels in (["ORG"], [], ["O"], ["B-PER"]):
        with pytest.raises(InputError, match="expected labels among PER, LOC, MISC"):
            loaded(by_lexicon, labels=labels)


def test_long_text_is_read_to_its_end(by_lexicon: Path) -> None:
    # 64 tokens a window: every place at a window's border is tried by shifting the names one word at a time.
    rng = np.random.default_rng(0)
    tagger = loaded(by_lexicon, batch_size=3)
    for shift in range(50):
        words, names = ["cat"] * shift, []
        while len(words) < 400:
            name = ["New York", "Ann Lee", "Paris", "the", "sat"][int(rng.integers(5))]
            names += [name] if name[0].isupper() else []
            words += [name, "and"]
        text = " ".join(words)
        assert tagger.tag([text, "Oslo", text]) == [names, ["Oslo"], names]


def test_windows_hold_every_token_once(at_random: Path) -> None:
    tagger = loaded(at_random)
    text = " ".join(["Ann", "cat", "zebra", "of"] * 100)
    whole = tagger._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    (tokens,) = tagger._tokens([text])
    assert [(token.start, token.end) for token in tokens] == list(whole["offset_mapping"])


@pytest.mark.parametrize(
    ("positions", "limit", "window"), [(64, None, 64), (64, 40, 40), (40, 64, 40), (2000, None, 512)]
)
def test_the_window_is_what_the_model_reads(tmp_path: Path, positions: int, limit: int | None, window: int) -> None:
    assert loaded(build(tmp_path, positions=positions, limit=limit))._window == window


def test_roberta_counts_positions_from_behind_padding(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaForTokenClassification

    n = tokenizer_of([*LEXICON, *PLAIN], tmp_path)
    config = RobertaConfig(
        vocab_size=n, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, pad_token_id=0, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    RobertaForTokenClassification(config).save_pretrained(tmp_path)
    tagger = loaded(tmp_path)
    assert tagger._window == 33
    tagger.tag([" ".join(["cat"] * 500)])


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.sampled_from([*LEXICON, *PLAIN, "zebra", "Quito"]), min_size=1, max_size=10),
        min_size=1,
        max_size=4,
    )
)
def test_names_are_those_of_the_pipeline_of_transformers(at_random: Path, texts: list[list[str]]) -> None:
    # Where a word is what the pipeline takes for one: letters alone, with spaces between.
    lines = [" ".join(word for word in words if word.isalpha()) for words in texts]
    lines = [line for line in lines if line]
    if not lines:
        return
    tagger = loaded(at_random)
    from transformers import pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pipeline(
            "token-classification",
            model=tagger._model,
            tokenizer=tagger._tokenizer,
            aggregation_strategy="first",
            device="cpu",
        )
        expected = [[line[one["start"] : one["end"]] for one in oracle(line)] for line in lines]
    assert tagger.tag(lines) == expected


def test_names_do_not_depend_on_the_texts_beside_them(at_random: Path) -> None:
    rng = np.random.default_rng(1)
    words = [*LEXICON, *PLAIN, "zebra"]
    texts = [" ".join(rng.choice(words, size=int(size))) for size in rng.integers(0, 150, size=40)]
    together = loaded(at_random).tag(texts)
    assert together == [loaded(at_random, batch_size=1).tag([text])[0] for text in texts]
    assert sum(map(len, together)) > 100


def test_a_model_is_known_by_its_folder_and_its_weights(by_lexicon: Path, at_random: Path) -> None:
    tagger = loaded(by_lexicon)
    assert tagger.spec == f"transformers:{by_lexicon.resolve()}"
    assert tagger.revision is not None and tagger.revision.startswith("sha256:")
    assert tagger.revision != loaded(at_random).revision
    state = torch.get_rng_state()
    loaded(by_lexicon)
    assert torch.equal(state, torch.get_rng_state())


def test_the_file_written_and_resumed(by_lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Ann {'cat ' * i}sat in Paris." for i in range(12)]
    monkeypatch.setattr(TransformersTagger, "texts_a_call", 5)
    tagger = loaded(by_lexicon)
    tag, calls = tagger.tag, []

    def dies(rows: Sequence[str]) -> list[list[str]]:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tag(rows)

    monkeypatch.setattr(tagger, "tag", dies)
    with pytest.raises(KeyboardInterrupt):
        tag_texts(texts, tagger, tmp_path / "names.jsonl")
    done = tag_texts(texts, tagger, tmp_path / "names.jsonl")
    assert calls == [5, 5, 5, 2] and (done.names, done.dropped) == (24, 0)


# What is refused ------------------------------------------------------------------------------------------------


def test_a_model_without_a_head_for_names_is_refused(tmp_path: Path, by_lexicon: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    n = tokenizer_of([*LEXICON, *PLAIN], tmp_path)
    config = BertConfig(
        vocab_size=n, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    for kind in (BertModel, BertForSequenceClassification):
        kind(config).save_pretrained(tmp_path)
        with pytest.raises(InputError, match=f"trained to label tokens in .*, found a {kind.__name__}"):
            loaded(tmp_path)
    # Without a word about what it was built as, the weights tell.
    described = json.loads((tmp_path / "config.json").read_text())
    BertModel(config).save_pretrained(tmp_path)
    del described["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"classifier\.\w+ has no weights"):
        loaded(tmp_path)


def test_a_model_that_labels_every_word_is_refused_unless_labels_are_named(tmp_path: Path) -> None:
    build(tmp_path, layers=1, labels=["NOUN", "PROPN", "VERB"])
    with pytest.raises(InputError, match="expected a label O .* found NOUN, PROPN, VERB"):
        loaded(tmp_path)
    assert loaded(tmp_path, labels=["PROPN"]).labels == ("PROPN",)


def test_weights_that_are_broken_are_told(tmp_path: Path) -> None:
    from transformers import BertForTokenClassification

    build(tmp_path)
    model = BertForTokenClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(FliplensError, match="expected finite scores"):
        loaded(tmp_path).tag(["the cat"])
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        FliplensError, match=r"expected a token-classification model in .*, could not load it"
    ) as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("transformers:./nowhere", "expected a model folder at ./nowhere, found none"),
        ("transformers:a/b/c", "expected a model folder"),
        ("transformers:nobody/nothing", "could not load nobody/nothing from the Hugging Face Hub"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    texts = tmp_path / "texts.txt"
    write_lines(texts, ["Ann"])
    run = call("tag", texts, "-o", tmp_path / "names.jsonl", "--by", spec, "--quiet")
    assert_one_line(run, 1 if "nobody" in spec else 2, message)


def test_a_folder_without_a_model_and_a_missing_extra_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"found no config\.json"):
        loaded(tmp_path)
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[transformers\]'"):
        loaded(tmp_path)


def test_the_command_takes_labels(by_lexicon: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    write_lines(texts, ["Ann sat in Paris.", "Oslo and Germany’s New York"])
    out = tmp_path / "names.jsonl"
    argv = ["tag", texts, "-o", out, "--by", f"transformers:{by_lexicon}", "--quiet", "--device", "cpu", "--json"]
    run = call(*argv, "--labels", "LOC, PER", "--batch-size", "1")
    assert (run.status, run.err) == (0, "")
    assert run.json["names"] == 4 and run.json["dropped"] == 0
    found = [json.loads(line)["entity_names"] for line in out.read_text().splitlines()]
    assert found == [["Ann", "Paris"], ["Germany", "New York"]]
    assert_one_line(call(*argv, "--labels", "CITY"), 2, "expected labels among PER, LOC, MISC")
