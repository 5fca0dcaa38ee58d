"""The study of layers on a tiny model: its numbers are those of lenses that the test fits on each layer itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_data import StudyFiles
from tiny_models import build_bert

from fliplens.encoders import load_encoder
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import read_lines
from fliplens.studies.catalogue import run_study
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

pytest.importorskip("transformers")


def written(folder: Path, **more: Any) -> StudyFiles:
    files = StudyFiles.write(folder, **{"layers": [2, 0], **more})
    for split in files.config["corpora"]["spoken"].values():
        del split["noisy"]
        split["text"].pop("embeddings")
    return files


def test_every_layer_has_a_lens_of_its_own(tmp_path: Path) -> None:
    model = build_bert(tmp_path / "bert")
    files = written(tmp_path / "data", encoders=[f"hf:{model}#pool=mean"])
    files.save()
    result = run_study("layers", files.path, tmp_path / "out")
    (table,) = result.study.tables.values()
    assert [row[0].mean for row in table.rows] == [0, 2]
    texts = {split: read_lines(tmp_path / "data" / f"{split}.txt") for split in ("train", "dev", "test")}
    for row, layer in zip(table.rows, (0, 2), strict=True):
        encoder = load_encoder(f"hf:{model}#pool=mean,layer={layer}", device="cpu")
        vectors = {split: encoder.encode(lines) for split, lines in texts.items()}
        lens = fit(
            texts["train"], vectors["train"], dev_texts=texts["dev"], dev_embeddings=vectors["dev"], encoder=encoder,
            config=TrainConfig(passes=2, batch_size=16, rank=4), explain_away=False,
        )  # fmt: skip
        found = evaluate(lens, texts["test"], vectors["test"]).accuracy
        assert row[1].mean == pytest.approx(found.with_prior.mean, abs=0.02)
        assert row[2].mean == pytest.approx(found.without_prior.mean, abs=0.02)
    assert {path.name for path in (tmp_path / "out" / "lenses").iterdir()} == {"layer-0", "layer-2"}
    assert (tmp_path / "out" / "plot.svg").is_file()
    specs = {name: one["folder"] for name, one in result.study.provenance.models.items()}
    assert specs == {"layer 0": "lenses/layer-0", "layer 2": "lenses/layer-2"}
    assert any("layer = 0" in finding for finding in result.study.findings)


@pytest.mark.parametrize(
    "change, fragment",
    [
        ({"layers": None}, "expected layers"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [-1]}, "a layer's number, from 0"),
        ({"layers": ["all"]}, "a layer's number, from 0"),
        ({"encoders": ["minilm"]}, "one model whose layers can be had \\(hf:MODEL.*sonar-text"),
        ({"encoders": ["hf:OWNER/A", "hf:OWNER/B"]}, "one model whose layers"),
        ({"encoders": ["hf:OWNER/A#layer=2"]}, "a model without layer="),
    ],
)
def test_layers_refuses(tmp_path: Path, change: dict[str, Any], fragment: str) -> None:
    files = written(tmp_path, **{"encoders": ["hf:OWNER/NAME"], **change})
    files.save()
    with pytest.raises(InputError, match=fragment) as caught:
        run_study("layers", files.path, tmp_path / "out")
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_vectors_of_a_file_are_of_no_layer(tmp_path: Path) -> None:
    files = written(tmp_path, encoders=["hf:OWNER/NAME"])
    files.config["corpora"]["spoken"]["test"]["text"]["embeddings"] = "test.npy"
    files.save()
    with pytest.raises(
        InputError, match=r"no embeddings in a study of layers.*'test.npy' \(corpora.spoken.test.text"
    ):
        run_study("layers", files.path, tmp_path / "out")


def test_a_layer_that_the_model_lacks_is_refused_where_it_stands_without_a_warning(tmp_path: Path) -> None:
    model = build_bert(tmp_path / "bert")
    files = written(tmp_path / "data", encoders=[f"hf:{model}"], layers=[0, 7])
    files.save()
    line = 1 + (tmp_path / "data" / "study.yaml").read_text().splitlines().index("layers:")
    # Warnings are errors in tests: there is none before it.
    with pytest.raises(InputError, match=rf"expected layer=.* found 7: .*\(layers, .*study\.yaml line {line}\)"):
        run_study("layers", files.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
