"""SONAR's speech encoder: its network against a plain float64 one, its checkpoints, and what a recording becomes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import environment
from numpy.typing import NDArray
from speech import made_up, spoken, tiny_sonar_config, tiny_sonar_speech, tiny_sonar_tensors

from fliplens.encoders import BatchEncoder, Encoder, SpeechEncoder, canonical_spec, load_encoder
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError

pytest.importorskip("transformers")
pytest.importorskip("soundfile")

import torch

from fliplens.encoders import sonar_conversion, sonar_speech
from fliplens.encoders.sonar_conversion import convert, fairseq2_name, fairseq_name
from fliplens.encoders.sonar_speech_model import AttentionPooler, SonarSpeechConfig, empty_model

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sonar_speech(tmp_path_factory.mktemp("sonar") / "eng")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Any:
    return loaded(f"sonar-speech:{folder}")


def loaded(spec: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        return load_encoder(spec, device="cpu", **options)


# --- an independent float64 network --------------------------------------------------------------------------------


class Plain:
    """The network over one recording, with loops where a formula has indices; no padding, no batches."""

    def __init__(self, tensors: dict[str, Any], config: SonarSpeechConfig) -> None:
        self.of: dict[str, Array] = {name: one.double().numpy() for name, one in tensors.items()}
        self.config = config

    def linear(self, name: str, x: Array) -> Array:
        y: Array = x @ self.of[f"{name}.weight"].T
        return y + self.of[f"{name}.bias"] if f"{name}.bias" in self.of else y

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        y: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return y * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    @staticmethod
    def softmax(x: Array) -> Array:
        e = np.exp(x - x.max())
        shares: Array = e / e.sum()
        return shares

    @staticmethod
    def swish(x: Array) -> Array:
        y: Array = x / (1 + np.exp(-x))
        return y

    def position(self, offset: int) -> Array:
        d = self.config.hidden_size
        angles = offset * 10000.0 ** (-np.arange(0, d, 2) / d)
        return np.stack([np.sin(angles), np.cos(angles)], axis=1).reshape(d)

    def relative_attention(self, name: str, x: Array) -> Array:
        heads = self.config.heads
        t, d = x.shape
        size = d // heads
        q, k, v = (self.linear(f"{name}.linear_{one}", x).reshape(t, heads, size) for one in "qkv")
        u, w = self.of[f"{name}.pos_bias_u"], self.of[f"{name}.pos_bias_v"]
        out = np.zeros((t, heads, size))
        for h in range(heads):
            for i in range(t):
                scores = np.empty(t)
                for j in range(t):
                    r = self.linear(f"{name}.linear_pos", self.position(i - j)).reshape(heads, size)[h]
                    scores[j] = ((q[i, h] + u[h]) @ k[j, h] + (q[i, h] + w[h]) @ r) / size**0.5
                out[i, h] = self.softmax(scores) @ v[:, h]
        return self.linear(f"{name}.linear_out", out.reshape(t, d))

    def convolution(self, name: str, x: Array) -> Array:
        x = self.norm(f"{name}.layer_norm", x) @ self.of[f"{name}.pointwise_conv1.weight"][:, :, 0].T
        d = x.shape[1] // 2
        x = x[:, :d] / (1 + np.exp(-x[:, d:]))
        kernel = self.of[f"{name}.depthwise_conv.weight"][:, 0]  # (d, k)
        reach = kernel.shape[1] // 2
        y = np.zeros_like(x)
        for i in range(len(x)):
            for step in range(-reach, reach + 1):
                if 0 <= i + step < len(x):
                    y[i] += kernel[:, step + reach] * x[i + step]
        batch = f"{name}.batch_norm"
        y = (y - self.of[f"{batch}.running_mean"]) / np.sqrt(self.of[f"{batch}.running_var"] + 1e-5)
        y = self.swish(y * self.of[f"{batch}.weight"] + self.of[f"{batch}.bias"])
        out: Array = y @ self.of[f"{name}.pointwise_conv2.weight"][:, :, 0].T
        return out

    def frames(self, features: Array) -> Array:
        x = self.linear("feature_projection.projection", self.norm("feature_projection.layer_norm", features))
        for number in range(self.config.layers):
            name = f"encoder.layers.{number}"

            def feed_forward(which: str, x: Array, name: str = name) -> Array:
                normed = self.norm(f"{name}.{which}_layer_norm", x)
                inner = self.swish(self.linear(f"{name}.{which}.intermediate_dense", normed))
                return x + 0.5 * self.linear(f"{name}.{which}.output_dense", inner)

            x = feed_forward("ffn1", x)
            x = x + self.relative_attention(f"{name}.self_attn", self.norm(f"{name}.self_attn_layer_norm", x))
            x = x + self.convolution(f"{name}.conv_module", x)
            x = self.norm(f"{name}.final_layer_norm", feed_forward("ffn2", x))
        return self.norm("encoder.layer_norm", x)

    def attention(self, name: str, query: Array, keys: Array) -> Array:
        heads = self.config.pooler_heads
        size = len(query) // heads
        q = self.linear(f"{name}.q_proj", query).reshape(heads, size)
        k = self.linear(f"{name}.k_proj", keys).reshape(-1, heads, size)
        v = self.linear(f"{name}.v_proj", keys).reshape(-1, heads, size)
        seen = [self.softmax(k[:, h] @ q[h] / size**0.5) @ v[:, h] for h in range(heads)]
        return self.linear(f"{name}.output_proj", np.concatenate(seen))

    def pooled(self, frames: Array) -> Array:
        d = self.config.hidden_size
        x = self.of["pooler.embed_tokens.weight"][2] * np.sqrt(d)
        x = x + np.concatenate([np.sin(np.zeros(d // 2)), np.cos(np.zeros(d // 2))])
        for number in range(self.config.pooler_layers):
            name = f"pooler.layers.{number}"
            x = self.norm(f"{name}.self_attn_layer_norm", x + self.attention(f"{name}.self_attn", x, x[None]))
            x = self.norm(f"{name}.cross_attn_layer_norm", x + self.attention(f"{name}.cross_attn", x, frames))
            inner = np.maximum(self.linear(f"{name}.inner_proj", x), 0)
            x = self.norm(f"{name}.ffn_layer_norm", x + self.linear(f"{name}.output_proj", inner))
        return self.linear("pooler.projection", x)


@pytest.mark.parametrize(("layers", "heads", "size"), [(1, 1, 8), (3, 4, 16), (6, 2, 12)])
def test_the_pooler_is_the_plain_one(layers: int, heads: int, size: int) -> None:
    config = tiny_sonar_config(pooler_layers=layers, pooler_heads=heads, hidden_size=size, heads=1)
    tensors = tiny_sonar_tensors(config, seed=layers)
    pooler = AttentionPooler(config)
    pooler.load_state_dict({k.removeprefix("pooler."): v for k, v in tensors.items() if k.startswith("pooler.")})
    lengths = [1, 9, 4]
    frames = torch.randn((3, 9, size), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    found = pooler.double()(frames.double(), mask).detach().numpy()
    for row, length in enumerate(lengths):
        expected = Plain(tensors, config).pooled(frames[row, :length].double().numpy())
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-12)


def test_the_whole_network_is_the_plain_one(folder: Path) -> None:
    config = tiny_sonar_config()
    tensors = tiny_sonar_tensors(config)
    model = empty_model(config)
    model.load_state_dict(tensors, assign=True)
    model.eval().double()
    lengths = [11, 7, 1]
    features = torch.randn((3, 11, 160), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode():
        found = model(features, mask).numpy()
    for row, length in enumerate(lengths):
        plain = Plain(tensors, config)
        expected = plain.pooled(plain.frames(features[row, :length].numpy()))
        # The table of positions is float32 in the model.
        np.testing.assert_allclose(found[row], expected, atol=2e-6)


# --- the encoder ---------------------------------------------------------------------------------------------------


def test_it_is_a_speech_encoder(encoder: Any, folder: Path) -> None:
    for protocol in (Encoder, BatchEncoder, SpeechEncoder):
        assert isinstance(encoder, protocol)
    assert (encoder.modality, encoder.language, encoder.dim, encoder.normalised) == ("speech", "en", 16, False)
    assert encoder.spec == f"sonar-speech:{folder}" and encoder.revision.startswith("sha256:")
    assert encoder.max_tokens is None and encoder.precision == "float32" and encoder.name == "sonar-speech-eng"
    assert "sonar-speech" in repr(encoder)


def test_speech_becomes_vectors_one_a_recording(encoder: Any, tmp_path: Path) -> None:
    paths = spoken(tmp_path)
    vectors = encoder.encode(paths)
    assert vectors.shape == (4, 16) and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    assert len(np.unique(vectors.round(5), axis=0)) == 4
    from fliplens.audio import read_audio

    np.testing.assert_allclose(encoder.encode([read_audio(path) for path in paths]), vectors, atol=1e-6)
    np.testing.assert_allclose(encoder.encode([str(path) for path in reversed(paths)])[::-1], vectors, atol=2e-5)
    assert encoder.encode([]).shape == (0, 16)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_padding_does_not_show(folder: Path, batch_size: int | None) -> None:
    encoder = loaded(f"sonar-speech:{folder}", batch_size=batch_size)
    sounds = [made_up(seed, seconds) for seed, seconds in enumerate([0.05, 3.1, 0.4, 7.77, 1.0, 0.051, 2.0])]
    together = encoder.encode(sounds)
    for row, sound in enumerate(sounds):
        np.testing.assert_allclose(encoder.encode([sound])[0], together[row], atol=2e-5)


def test_features_are_those_of_the_plain_network(encoder: Any) -> None:
    sound = made_up(3, 0.9)
    features = encoder._features([sound], sampling_rate=16_000, return_tensors="np")
    plain = Plain(tiny_sonar_tensors(tiny_sonar_config()), tiny_sonar_config())
    frames = features["input_features"][0][features["attention_mask"][0].astype(bool)]
    assert frames.shape == ((1 + (len(sound) - 400) // 160) // 2, 160)
    expected = plain.pooled(plain.frames(frames.astype(np.float64)))
    np.testing.assert_allclose(encoder.encode([sound])[0], expected, atol=2e-5)


def test_silence_and_noise_have_vectors(encoder: Any) -> None:
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 0.1
    assert np.isfinite(encoder.encode([np.zeros(8000, np.float32), noise])).all()


def test_batches_are_bounded_and_hold_every_row_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(f"sonar-speech:{folder}")
    monkeypatch.setattr("fliplens.encoders.speech.SECONDS_A_BATCH_CPU", 2.0)
    monkeypatch.setattr("fliplens.encoders.speech.CHUNK_SECONDS", 4.0)
    seconds = [0.5, 1.5, 0.1, 0.2, 3.0, 0.3, 0.4]
    sounds = [made_up(seed, one) for seed, one in enumerate(seconds)]
    batches = list(encoder.batches(sounds))
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(7))
    for batch in batches:
        assert len(batch.rows) == 1 or max(seconds[row] for row in batch.rows) * len(batch.rows) <= 2.0
    assert len(batches) > 3


def test_bad_recordings_are_named_or_told(encoder: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    good = made_up(0, 0.5)
    inputs = [good, tmp_path / "bad.wav", good[:3], good]
    with pytest.raises(InputError, match=r"^recording 2 of 4: expected audio .*bad\.wav"):
        encoder.encode(inputs)
    told: list[tuple[int, str]] = []
    batches = list(encoder.batches(inputs, on_bad=lambda row, error: told.append((row, str(error)))))
    assert [row for row, _ in told] == [1, 2] and "bad.wav" in told[0][1] and "0.05 s" in told[1][1]
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == [0, 3]


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ("clip.wav", "a list of recordings, found one str"),
        (Path("clip.wav"), "a list of recordings"),
        ([3], "recording 1 of 1: expected a path or an array of samples, found int"),
        ([np.zeros((2, 8000), np.float32)], "one channel"),
        ([np.zeros(8000, np.int16)], "found int16"),
        ([np.zeros(81 * 16_000, np.float32)], "80 s of audio or less"),
    ],
)
def test_what_is_no_recording_is_refused(encoder: Any, inputs: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        encoder.encode(inputs)


def test_vectors_that_are_not_finite_are_refused(folder: Path) -> None:
    encoder = loaded(f"sonar-speech:{folder}")
    with torch.no_grad():
        encoder.model.pooler.projection.weight[0, 0] = float("nan")
    with pytest.raises(FliplensError, match="found 1 that are not, the first for recording 1"):
        encoder.encode([made_up(0, 0.5)])


def test_bfloat16_is_another_precision_of_the_same_space(folder: Path, encoder: Any) -> None:
    sounds = [made_up(seed, 1.0) for seed in range(3)]
    low = loaded(f"sonar-speech:{folder}", precision="bfloat16")
    assert low.precision == "bfloat16"
    a, b = low.encode(sounds).astype(np.float64), encoder.encode(sounds).astype(np.float64)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99 and np.abs(a - b).max() > 1e-4


# --- specs ---------------------------------------------------------------------------------------------------------


def test_a_language_names_the_folder_that_conversion_writes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"encoders-speech.md names its file.*sonar_conversion FILE\.pt --language eng"
    ):
        load_encoder("sonar-speech-eng")
    shutil.copytree(folder, tmp_path / "sonar-speech-eng")
    encoder = loaded("sonar-speech-eng")
    assert encoder.spec == "sonar-speech-eng" == canonical_spec("sonar-speech-eng")
    np.testing.assert_array_equal(
        encoder.encode([made_up(0, 0.5)]), loaded(f"sonar-speech:{folder}").encode([made_up(0, 0.5)])
    )


def test_folders_of_data_follow_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLIPLENS_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert sonar_speech.default_folder("fra") == tmp_path / "fliplens" / "sonar-speech-fra"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sonar_speech.default_folder("fra") == tmp_path / ".local/share/fliplens/sonar-speech-fra"


def test_a_folder_of_another_language_is_refused(folder: Path) -> None:
    assert loaded(f"sonar-speech:{folder}#language=eng").spec == f"sonar-speech:{folder}#language=eng"
    with pytest.raises(InputError, match=r"expected a speech encoder of fra in .*, found one of eng"):
        load_encoder(f"sonar-speech:{folder}#language=fra")


@pytest.mark.parametrize(
    "spec", ["sonar-speech", "sonar-speech:", "sonar-speech-", "sonar-speech-e", "sonar-speech#language=x/y"]
)
def test_a_spec_without_a_language_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="expected sonar-speech-LANGUAGE"):
        load_encoder(spec)


def test_loading_warns_once_until_marked(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    with pytest.warns(FliplensWarning, match="experimental") as caught:
        encoder: Any = load_encoder(f"sonar-speech:{mine}")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert (encoder.folder, encoder.matched) == (mine, None)
    encoder.mark_matched("products")
    again: Any = load_encoder(f"sonar-speech:{mine}")
    assert encoder.matched == again.matched == "products"


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda f: (f / "config.json").unlink(), InputError, "expected a JSON file"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), InputError, "found something else"),
        (lambda f: _config(f, format_version=2), InputError, "expected format 1"),
        (lambda f: _config(f, network={"layers": 1}), InputError, "network sizes"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no weights"), FliplensError, "could not load them"),
        (lambda f: (f / "model.safetensors").unlink(), FliplensError, "could not load them"),
    ],
)
def test_broken_folders_are_one_line(
    folder: Path, tmp_path: Path, change: Any, kind: type[Exception], match: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    change(broken)
    with pytest.raises(kind, match=match) as caught:
        load_encoder(f"sonar-speech:{broken}")
    assert "\n" not in str(caught.value)


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_missing_libraries_name_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sonar_speech, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"fliplens\[speech\]"):
        load_encoder(f"sonar-speech:{folder}")


# --- conversion ----------------------------------------------------------------------------------------------------


def checkpoint(path: Path, tensors: dict[str, Any], **more: Any) -> Path:
    torch.save({"model": tensors, **more}, path)
    return path


@pytest.mark.parametrize("names", [fairseq_name, fairseq2_name])
def test_checkpoints_of_both_names_come_out_as_they_went_in(tmp_path: Path, names: Any) -> None:
    from safetensors.torch import load_file

    config = tiny_sonar_config()
    tensors = tiny_sonar_tensors(config, seed=5)
    renamed = {names(name): one for name, one in tensors.items()}
    assert len(renamed) == len(tensors)
    extra = {
        "encoder.w2v_model.mask_emb": torch.zeros(3),
        "encoder.w2v_model.encoder.pos_conv.0.weight_g": torch.zeros(3),
        "decoder.version": torch.tensor(3.0),
        "decoder.embed_positions._float_tensor": torch.zeros(1),
    }
    path = checkpoint(tmp_path / "c.pt", {**renamed, **(extra if names is fairseq_name else {})}, epoch=3)
    folder = convert(path, tmp_path / "out", language="fra", config=config)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, one in tensors.items():
        assert torch.equal(found[name], one), name
    written = json.loads((folder / "config.json").read_text())
    assert written["language"] == "fra" and written["source"]["name"] == "c.pt"
    assert loaded(f"sonar-speech:{folder}").language == "fr"


def test_the_names_are_those_of_the_originals() -> None:
    ours = {
        "feature_projection.projection.weight": (
            "encoder.w2v_model.post_extract_proj.weight",
            "encoder_frontend.model_dim_proj.weight",
        ),
        "encoder.layer_norm.bias": ("encoder.w2v_model.encoder.layer_norm.bias", "layer_norm.bias"),
        "encoder.layers.3.ffn1_layer_norm.weight": (
            "encoder.w2v_model.encoder.layers.3.ffn1.layer_norm.weight",
            "encoder.layers.3.ffn1_layer_norm.weight",
        ),
        "encoder.layers.3.ffn2.output_dense.bias": (
            "encoder.w2v_model.encoder.layers.3.ffn2.w_2.bias",
            "encoder.layers.3.ffn2.output_proj.bias",
        ),
        "encoder.layers.11.self_attn.linear_pos.weight": (
            "encoder.w2v_model.encoder.layers.11.self_attn.linear_pos.weight",
            "encoder.layers.11.self_attn.sdpa.r_proj.weight",
        ),
        "encoder.layers.0.self_attn.pos_bias_u": (
            "encoder.w2v_model.encoder.layers.0.self_attn.pos_bias_u",
            "encoder.layers.0.self_attn.sdpa.u_bias",
        ),
        "encoder.layers.0.self_attn.linear_out.bias": (
            "encoder.w2v_model.encoder.layers.0.self_attn.linear_out.bias",
            "encoder.layers.0.self_attn.output_proj.bias",
        ),
        "encoder.layers.0.conv_module.layer_norm.bias": (
            "encoder.w2v_model.encoder.layers.0.conv_module.layer_norm.bias",
            "encoder.layers.0.conv_layer_norm.bias",
        ),
        "encoder.layers.0.conv_module.batch_norm.running_var": (
            "encoder.w2v_model.encoder.layers.0.conv_module.batch_norm.running_var",
            "encoder.layers.0.conv.batch_norm.running_var",
        ),
        "encoder.layers.0.final_layer_norm.weight": (
            "encoder.w2v_model.encoder.layers.0.final_layer_norm.weight",
            "encoder.layers.0.layer_norm.weight",
        ),
        "pooler.embed_tokens.weight": ("decoder.embed_tokens.weight", "encoder_pooler.decoder_frontend.embed.weight"),
        "pooler.layers.2.self_attn.q_proj.weight": (
            "decoder.layers.2.self_attn.q_proj.weight",
            "encoder_pooler.decoder.layers.2.self_attn.q_proj.weight",
        ),
        "pooler.layers.2.self_attn.output_proj.bias": (
            "decoder.layers.2.self_attn.out_proj.bias",
            "encoder_pooler.decoder.layers.2.self_attn.output_proj.bias",
        ),
        "pooler.layers.2.cross_attn.output_proj.bias": (
            "decoder.layers.2.encoder_attn.out_proj.bias",
            "encoder_pooler.decoder.layers.2.encoder_decoder_attn.output_proj.bias",
        ),
        "pooler.layers.2.cross_attn_layer_norm.bias": (
            "decoder.layers.2.encoder_attn_layer_norm.bias",
            "encoder_pooler.decoder.layers.2.encoder_decoder_attn_layer_norm.bias",
        ),
        "pooler.layers.2.inner_proj.weight": (
            "decoder.layers.2.fc1.weight",
            "encoder_pooler.decoder.layers.2.ffn.inner_proj.weight",
        ),
        "pooler.layers.2.output_proj.weight": (
            "decoder.layers.2.fc2.weight",
            "encoder_pooler.decoder.layers.2.ffn.output_proj.weight",
        ),
        "pooler.layers.2.ffn_layer_norm.weight": (
            "decoder.layers.2.final_layer_norm.weight",
            "encoder_pooler.decoder.layers.2.ffn_layer_norm.weight",
        ),
        "pooler.projection.weight": ("decoder.embed_out", "encoder_pooler.projection_out.weight"),
    }
    for name, (published, ported) in ours.items():
        assert (fairseq_name(name), fairseq2_name(name)) == (published, ported)


def test_published_sizes_depend_on_the_language() -> None:
    english, french = sonar_speech.published_config("eng"), sonar_speech.published_config("fra")
    assert (english.pooler_layers, french.pooler_layers) == (3, 6)
    assert (english.hidden_size, english.layers, english.heads, english.kernel_size) == (1024, 24, 16, 31)
    expected = empty_model(english).state_dict()
    # 24 blocks of the conformer and 3 layers of 4 + 4 products; what w2v-BERT's 600 million come to with the pooler.
    assert sum(one.numel() for one in expected.values()) == pytest.approx(634e6, rel=0.05)
    assert len(sonar_speech.LANGUAGES) == 57 and sonar_speech.LANGUAGES["eng"] == "en"


def test_a_checkpoint_must_be_this_network_and_all_of_it(tmp_path: Path) -> None:
    config = tiny_sonar_config()
    tensors = {fairseq_name(name): one for name, one in tiny_sonar_tensors(config).items()}

    def refused(match: str, change: dict[str, Any], *, without: str | None = None) -> None:
        path = checkpoint(tmp_path / "c.pt", {k: v for k, v in {**tensors, **change}.items() if k != without})
        with pytest.raises(InputError, match=match) as caught:
            convert(path, tmp_path / "out", language="eng", config=config)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    refused(r"1 missing \(decoder\.embed_out\)", {}, without="decoder.embed_out")
    refused(r"1 unexpected \(decoder\.layers\.2\.fc1\.weight\)", {"decoder.layers.2.fc1.weight": torch.zeros(2, 2)})
    refused(r"decoder\.embed_out of shape \(2, 2\), not \(16, 16\)", {"decoder.embed_out": torch.zeros(2, 2)})
    refused("with NaN or infinite values", {"decoder.embed_out": torch.full((16, 16), float("nan"))})
    refused("expected tensors by name", {"decoder.embed_out": "x"})
    # The count of batches is what nothing reads.
    for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
        del tensors[name]
    path = checkpoint(tmp_path / "d.pt", tensors)
    folder = convert(path, tmp_path / "whole", language="eng", config=config)
    assert np.isfinite(loaded(f"sonar-speech:{folder}").encode([made_up(0, 0.5)])).all()


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_files_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"x": torch.zeros(1)}, "args": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("trap.pt", "text.pt", "empty.pt", "list.pt", "absent.pt"):
        with pytest.raises(
            InputError, match="expected (a torch checkpoint of nothing but|tensors by|a checkpoint at)"
        ) as caught:
            convert(tmp_path / name, tmp_path / "out", language="eng", config=tiny_sonar_config())
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not (tmp_path / "touched").exists()


def test_a_converted_folder_is_replaced_only_when_told(tmp_path: Path) -> None:
    config = tiny_sonar_config()
    path = checkpoint(tmp_path / "c.pt", {fairseq_name(k): v for k, v in tiny_sonar_tensors(config).items()})
    convert(path, tmp_path / "out", language="eng", config=config)
    with pytest.raises(InputError, match="--overwrite"):
        convert(path, tmp_path / "out", language="fra", config=config)
    convert(path, tmp_path / "out", language="fra", config=config, overwrite=True)
    assert loaded(f"sonar-speech:{tmp_path / 'out'}").name == "sonar-speech-fra"
    with pytest.raises(InputError, match="three letters"):
        convert(path, tmp_path / "other", language="english", config=config)


def test_conversion_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = tiny_sonar_config()
    monkeypatch.setattr(sonar_conversion, "published_config", lambda _: config)
    monkeypatch.setenv("FLIPLENS_HOME", str(tmp_path / "home"))
    path = checkpoint(tmp_path / "c.pt", {fairseq2_name(k): v for k, v in tiny_sonar_tensors(config).items()})
    assert sonar_conversion.main([str(path), "--language", "eng"]) == 0
    assert capsys.readouterr().out.endswith("sonar-speech-eng: load it as sonar-speech-eng\n")
    assert loaded("sonar-speech-eng").dim == 16
    assert sonar_conversion.main([str(path), "--language", "eng", "-o", str(tmp_path / "x")]) == 0
    assert f"load it as sonar-speech:{tmp_path / 'x'}" in capsys.readouterr().out
    assert sonar_conversion.main([str(path), "--language", "eng"]) == 2
    assert capsys.readouterr().err.startswith("fliplens: expected an empty or new folder")


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_text("no checkpoint")
    done = subprocess.run(
        [sys.executable, "-m", "fliplens.encoders.sonar_conversion", "c.pt", "--language", "eng", "-o", "out"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nothing but tensors" in done.stderr
