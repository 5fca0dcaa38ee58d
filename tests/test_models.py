"""Whatever the settings name is made: yardsticks' settings checked, chosen on dev, and the shuffled control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import assert_one_line, call
from toys import DIM, ToyEncoder, toy_corpus

from fliplens.baselines.fitting import FrequencyConfig, ProbeConfig, RidgeConfig, SpliceConfig, fit_baseline
from fliplens.encoding.kept_vectors import KeptEncoder
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.lenses.extractor import Extractor
from fliplens.models import fit_model
from fliplens.settings import FitSettings
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig


@pytest.mark.parametrize(
    "config, values",
    [
        (RidgeConfig, {"ridge": -1}),
        (RidgeConfig, {"ridge": float("inf")}),
        (RidgeConfig, {"ridge": True}),
        (RidgeConfig, {"power": "much"}),
        (ProbeConfig, {"hidden": 0}),
        (ProbeConfig, {"hidden": 1.5}),
        (ProbeConfig, {"train": TrainConfig(rank="full")}),
        (SpliceConfig, {"penalty": 0}),
        (SpliceConfig, {"penalty": float("nan")}),
        (SpliceConfig, {"dictionary": "mine"}),
    ],
)
def test_yardsticks_refuse_what_they_cannot_have(config: Any, values: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        config(**values)
    assert "\n" not in str(caught.value)
    name, value = next(iter(values.items()))
    if name != "train":
        with pytest.raises(InputError, match=name):
            FitSettings.from_mapping({"model": config.__name__.removesuffix("Config").lower(), name: value})


@pytest.mark.parametrize(
    "values, foreign",
    [
        ({"model": "ridge", "hidden": 3}, "hidden"),
        ({"model": "ridge", "passes": 3}, "passes"),
        ({"model": "ridge", "explain_away": True}, "explain_away"),
        ({"model": "frequency", "shuffled": True}, "shuffled"),
        ({"model": "splice", "ridge": 0.1}, "ridge"),
        ({"model": "probe", "penalty": 0.1}, "penalty"),
        ({"model": "flip", "power": 0}, "power"),
        ({"ridge": 0.1}, "ridge"),
        ({"model": "lip", "rank": 4}, "rank"),
    ],
)
def test_settings_that_mean_nothing_to_a_model_are_refused(values: dict[str, Any], foreign: str) -> None:
    with pytest.raises(InputError, match=f"mean something to model=.*found {foreign}$"):
        FitSettings.from_mapping(values)


def test_settings_that_mean_something_arrive() -> None:
    assert FitSettings.from_mapping({"model": "ridge", "ridge": "1e-2", "power": 0}).baseline == RidgeConfig(
        ridge=0.01, power=0.0
    )
    probe = FitSettings.from_mapping({"model": "probe", "hidden": 7, "passes": 2, "seed": 3}).baseline
    assert probe == ProbeConfig(hidden=7, train=TrainConfig(passes=2, seed=3))
    assert FitSettings.from_mapping({"model": "lip"}).train.rank == "full"
    for share in (True, -0.1, 0.6, "half", float("nan")):
        with pytest.raises(InputError, match="hold_out"):
            FitSettings.from_mapping({"hold_out": share})


def rows(n: int = 300, seed: int = 0) -> tuple[list[str], Any]:
    return toy_corpus(n, seed=seed)


@pytest.mark.parametrize("config", [RidgeConfig(), SpliceConfig(), SpliceConfig(dictionary="sentences")])
def test_what_is_chosen_is_the_best_on_dev_of_what_was_tried(config: Any) -> None:
    (texts, vectors), (dev_texts, dev) = rows(), rows(80, 3)
    options: dict[str, Any] = {"dev_texts": dev_texts, "dev_embeddings": dev, "encoder": ToyEncoder()}
    model = fit_baseline(config, texts, vectors, **options)
    training = model.config["training"]
    chosen = {name: value for name, value in training["chosen"].items() if name != "dictionary"}
    assert len(training["tried"]) == (12 if isinstance(config, RidgeConfig) else len(SpliceConfig.PENALTIES))
    scores = []
    for one in training["tried"]:
        own = {name: one[name] for name in chosen}
        more = {} if isinstance(config, RidgeConfig) else {"dictionary": config.dictionary}
        alone = fit_baseline(type(config)(**own, **more), texts, vectors, **options)
        scores.append(evaluate(alone, dev_texts, dev, metrics="accuracy").accuracy.with_prior.mean)
        # Choosing comes before calibration, which changes no order but that of near ties.
        assert one["dev"] == pytest.approx(scores[-1], abs=1e-2)
    best = training["tried"][int(np.argmax([one["dev"] for one in training["tried"]]))]
    assert chosen == {name: best[name] for name in chosen}
    assert len({round(score, 3) for score in scores}) > 1


def test_what_is_given_is_kept_without_dev_rows() -> None:
    texts, vectors = rows()
    kept = fit_baseline(RidgeConfig(ridge=0.0, power=0.0), texts, vectors, hold_out=0)
    assert kept.config["training"]["chosen"] == {"ridge": 0.0, "power": 0.0}
    default = fit_baseline(RidgeConfig(), texts, vectors, hold_out=0)
    assert default.config["training"]["chosen"] == {"ridge": 0.01, "power": 0.25}
    splice = fit_baseline(SpliceConfig(), texts, vectors, hold_out=0)
    assert splice.config["training"]["chosen"] == {"penalty": 0.2 / (2 * DIM), "dictionary": "sentences"}
    with pytest.raises(InputError, match="an encoder for dictionary=words"):
        fit_baseline(SpliceConfig(dictionary="words"), texts, vectors)
    for name, value in (("hold_out", 0.7), ("hold_out", -1), ("alpha", 2)):
        with pytest.raises(InputError, match=name):
            fit_baseline(FrequencyConfig(), texts, vectors, **{name: value})  # type: ignore[arg-type]


def test_a_lens_of_shuffled_vectors_reads_no_more_than_frequency() -> None:
    (texts, vectors), (test_texts, test) = rows(800), rows(300, 5)
    # Some words are more frequent than others.
    texts = [f"{text} river" if row % 2 else text for row, text in enumerate(texts)]
    test_texts = [f"{text} river" if row % 2 else text for row, text in enumerate(test_texts)]
    config = TrainConfig(passes=4, batch_size=32, rank=8)

    def accuracy(model: Extractor) -> float:
        return evaluate(model, test_texts, test, metrics="accuracy").accuracy.with_prior.mean

    control = fit(texts, vectors, encoder=ToyEncoder(), config=config, shuffled=True, explain_away=False)
    lens = fit(texts, vectors, encoder=ToyEncoder(), config=config, explain_away=False)
    frequency = accuracy(fit_baseline(FrequencyConfig(), texts, vectors))
    assert accuracy(control) < frequency + 0.06 < accuracy(lens) - 0.2
    assert control.config["data"]["shuffled"] is True and "shuffled" not in lens.config["data"]
    assert control.config["training"]["anchor"] != "words"


def test_fit_model_makes_what_is_named() -> None:
    texts, vectors = rows()
    with pytest.raises(InputError, match="neither --log nor torchrun with model=ridge"):
        fit_model(FitSettings.from_mapping({"model": "ridge"}), texts, vectors, metrics=object())  # type: ignore[arg-type]
    made = fit_model(FitSettings.from_mapping({"model": "ridge", "ridge": 1, "power": 0}), texts, vectors)
    alone = fit_baseline(RidgeConfig(ridge=1.0, power=0.0), texts, vectors)
    np.testing.assert_array_equal(made.top(vectors, 5).scores, alone.top(vectors, 5).scores)


@pytest.mark.parametrize(
    "model, more",
    [
        ("flip", ["rank=4", "passes=1"]),
        ("lip", ["passes=1"]),
        ("frequency", []),
        ("ridge", ["ridge=0.1"]),
        ("probe", ["hidden=4", "passes=1"]),
        ("splice", ["penalty=0.01"]),
    ],
)
def test_the_command_makes_every_model(model: str, more: list[str], tmp_path: Path) -> None:
    texts, vectors = rows(120)
    write_lines(tmp_path / "a.txt", texts)
    np.save(tmp_path / "a.npy", vectors)
    argv = ("fit", *more, "--model", model, "--texts", tmp_path / "a.txt", "--embeddings", tmp_path / "a.npy", "-o")
    done = call(*argv, tmp_path / "model", "--quiet")
    assert (done.status, done.err) == (0, "") and "None" not in done.out.replace("not recorded", "")
    assert Extractor.load(tmp_path / "model").words(vectors[0], 2)
    assert_one_line(call(*argv, tmp_path / "other", "--quiet", "dictionary=mine"), 2, "dictionary")
    assert not (tmp_path / "other").exists()


# Kept vectors -----------------------------------------------------------------------------------------------


def test_an_encoder_encodes_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ToyEncoder] = []

    def load(_spec: str, **_: Any) -> ToyEncoder:
        loaded.append(ToyEncoder())
        return loaded[-1]

    monkeypatch.setattr("fliplens.encoding.kept_vectors.load_encoder", load)
    path = tmp_path / "deep" / "a.npy"
    texts = ["river stone", "cloud"]

    def read(some: list[str]) -> tuple[Any, int]:
        """Return vectors, and how many texts a new encoder encoded for them."""
        loaded.clear()
        found = KeptEncoder("toy", lambda _: path).encode(some)
        return found, sum(sum(one.calls) for one in loaded)

    expected = ToyEncoder().encode(texts)
    for times in (2, 0):
        found, encoded = read(texts)
        np.testing.assert_array_equal(found, expected)
        assert encoded == times
    # Not even the model is loaded for what is there.
    assert loaded == []
    # Other texts, or the same in another order.
    assert read(texts[::-1])[1] == 2 and read(texts)[1] == 2
    raw = path.read_bytes()
    for spoilt in (raw[:-3], b"", b"what"):
        path.write_bytes(spoilt)
        found, encoded = read(texts)
        assert encoded == 2
        np.testing.assert_array_equal(found, expected)
    path.with_suffix(".manifest.json").write_text("{")
    assert read(texts)[1] == 2
    path.with_suffix(".manifest.json").unlink()
    assert read(texts)[1] == 2
    kept = KeptEncoder("toy", lambda _: path)
    assert (kept.dim, kept.name, kept.revision, kept.language, kept.normalised) == (
        DIM, "toy encoder", "1", "en", False,
    )  # fmt: skip
