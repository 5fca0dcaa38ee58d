"""The published code's own files and calls, against numbers worked out by hand and against plain Python."""

from __future__ import annotations

import json
import pickle
import string
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import Run, assert_one_line, call
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from toys import ToyEncoder, toy_texts

from fliplens.errors import FliplensWarning, InputError
from fliplens.lenses.lens import Lens
from fliplens.published import FitJob, is_training_yaml, read_datasets, read_training_yaml

# A lens that can be read by eye: E1 and E2 are identities, so a vector is the list of its words' scores.
WORDS = ("the", "cat", "dog", "sat", "ran", "mat", "fog", "sun")
TEXTS = ("The cat sat.", "A dog ran!", "Zebra?", "Don't — the sun", "fog fog fog mat")
TEXT_VIEW = (
    "the cat dog sat ran mat fog sun",
    "dog ran the cat sat mat fog sun",
    "mat fog sun the cat dog sat ran",
    "cat sun dog sat ran mat fog the",
    "fog the mat cat dog sat ran sun",
)
SPEECH_VIEW = ("the cat dog sat ran mat fog sun",) * 5


def ranked(*rankings: str) -> NDArray[np.float32]:
    """Return vectors whose words come out in the order given: scores 8, 7, ..., 1."""
    rows = np.zeros((len(rankings), len(WORDS)), dtype=np.float32)
    for row, words in enumerate(rankings):
        for place, word in enumerate(words.split()):
            rows[row, WORDS.index(word)] = len(WORDS) - place
    return rows


def write_state(path: Path, state: dict[str, torch.Tensor], words: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    (path.parent / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))


def identity_state(*, sun: float = 0.0, prefix: str = "") -> dict[str, torch.Tensor]:
    b = torch.zeros(8, 1)
    b[WORDS.index("sun")] = sun
    return {prefix + "E1": torch.eye(8), prefix + "E2": torch.eye(8), prefix + "b": b}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with datasets.yaml, its data, and the lens that can be read by eye."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "test.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    np.save(data / "test_text.npy", ranked(*TEXT_VIEW))
    np.save(data / "test_speech.npy", ranked(*SPEECH_VIEW))
    np.save(data / "sim.npy", np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    write_state(tmp_path / "rank-8" / "model.safetensors", identity_state(sun=10.0), WORDS)
    write_datasets(tmp_path)
    return tmp_path


def dataset(**changes: Any) -> dict[str, Any]:
    return {
        "embeddings": [
            {"id": "text_en", "file": "data/test_text.npy", "modality": "text", "language": "en"},
            {"id": "speech_en", "file": "data/test_speech.npy", "modality": "speech", "language": "en"},
        ],
        "texts": [{"id": "text_en", "file": "data/test.txt", "language": "en"}],
        "sim_scores": [{"file": "data/sim.npy", "pair": ["text_en", "speech_en"]}],
        **changes,
    }


def write_datasets(folder: Path, **changes: Any) -> Path:
    path = folder / "datasets.yaml"
    path.write_text(yaml.safe_dump({"toy_test": dataset(**changes)}), encoding="utf-8")
    return path


def evaluate(world: Path, *flags: object, sdict: str = "rank-8/model.safetensors") -> Run:
    return call(
        "evaluate",
        "--sdict",
        world / sdict,
        "--data_yaml",
        world / "datasets.yaml",
        "--dataset",
        "toy_test",
        *(("--topn", 4) if "--topn" not in flags else ()),
        *flags,
    )


def accuracy_of(world: Path, view: str = "text", stem: str | None = None, model: str = "") -> dict[str, Any]:
    stem = stem or f"toy_test/test_{view}"
    found: dict[str, Any] = json.loads(
        (world / "rank-8" / "results" / model / "accuracy" / f"{stem}_accuracy_summary.json").read_text()
    )["metrics"]
    return found


def result_files(world: Path) -> list[str]:
    folder = world / "rank-8" / "results"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# datasets.yaml ----------------------------------------------------------------------------------------------


def test_paths_are_looked_up_from_here_and_else_beside_the_file(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = read_datasets(world / "datasets.yaml")["toy_test"]
    assert read.texts == {"text_en": world / "data" / "test.txt"}
    assert read.pairs == (("text_en", "speech_en"),)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    (elsewhere / "data" / "test.txt").write_text("mine\n")
    monkeypatch.chdir(elsewhere)
    read = read_datasets(world / "datasets.yaml")["toy_test"]
    assert read.texts == {"text_en": Path("data/test.txt")}
    assert read.embeddings["text_en"] == world / "data" / "test_text.npy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected a mapping"),
        ("a: [1", "expected YAML"),
        ("a: 5", "in a of"),
        ("a: {embeddings: [{file: x.npy}]}", "KeyError: 'id'"),
        ("a: {embeddings: [x.npy]}", "lists of id and file"),
        ("a: {embeddings: 7}", "lists of id and file"),
        ("a: {texts: [{id: t}]}", "KeyError: 'file'"),
        ("a: {sim_scores: [{file: s.npy, pair: [one]}]}", "lists of id and file"),
        ("a: {sim_scores: [{file: s.npy}]}", "pair"),
        ("!!python/object/apply:os.getcwd []", "expected YAML"),
    ],
)
def test_a_datasets_file_of_another_layout_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "datasets.yaml").write_text(content)
    with pytest.raises(InputError) as caught:
        read_datasets(tmp_path / "datasets.yaml")
    assert message in str(caught.value)


def test_what_the_datasets_file_names_must_be_there(world: Path) -> None:
    assert_one_line(evaluate(world, "--dataset", "absent"), 2, "toy_test", "'absent'")
    (world / "data" / "test_speech.npy").unlink()
    assert_one_line(evaluate(world), 2, "data/test_speech.npy", "found none")
    (world / "datasets.yaml").unlink()
    assert_one_line(evaluate(world), 2, "datasets.yaml", "found none")


@pytest.mark.parametrize("scores", [None, []])
def test_without_sim_scores_every_row_counts(world: Path, scores: Any) -> None:
    write_datasets(world, sim_scores=scores)
    assert evaluate(world).status == 0
    assert accuracy_of(world)["n_evaluated"] == 4


def test_one_view_alone_is_evaluated_alone(world: Path) -> None:
    write_datasets(world, sim_scores=None, embeddings=dataset()["embeddings"][:1])
    run = evaluate(world, "--json")
    assert run.status == 0 and set(run.json["views"]) == {"primary"}
    assert result_files(world) == [
        "accuracy/toy_test/test_text_accuracy_summary.json",
        "precision_recall/toy_test/test_text_topn4_summary.json",
    ]
    write_datasets(world, sim_scores=None, embeddings=[])
    assert_one_line(evaluate(world), 2, "expected embeddings in dataset toy_test")


@pytest.mark.parametrize("scores", [[0.5] * 4, [0.5] * 6, [], [1, 1, 1, 1, 1], [["a"]] * 5])
def test_similarity_scores_must_be_one_number_a_row(world: Path, scores: Any) -> None:
    np.save(world / "data" / "sim.npy", np.array(scores))
    assert_one_line(evaluate(world), 2, "expected 5 similarity scores", "data/sim.npy")


def test_similarity_scores_are_never_unpickled(world: Path) -> None:
    np.save(world / "data" / "sim.npy", np.array([object()] * 5), allow_pickle=True)
    assert_one_line(evaluate(world), 2, "similarity scores (n,)")
    (world / "data" / "sim.npy").unlink()
    assert_one_line(evaluate(world), 2, "similarity scores (n,)")


def test_the_one_text_is_the_reference_and_of_several_one_must_be_named(world: Path) -> None:
    two = [*dataset()["texts"], {"id": "text_de", "file": "data/de.txt", "language": "de"}]
    (world / "data" / "de.txt").write_text("cat\n" * 5)
    write_datasets(world, texts=two)
    assert_one_line(evaluate(world), 2, "--text_id", "text_en, text_de")
    assert_one_line(evaluate(world, "--text_id", "text_fr"), 2, "'text_fr'")
    assert evaluate(world, "--text_id", "text_de").status == 0
    # k = 1, and only the fourth vector names the cat first.
    assert accuracy_of(world)["accuracy"]["mean"] == 0.2


# Evaluation: by hand ----------------------------------------------------------------------------------------


def test_the_cards_call_writes_the_published_files_with_numbers_worked_out_by_hand(world: Path) -> None:
    run = call(
        "evaluate",
        "--sdict",
        world / "rank-8" / "model.safetensors",
        "--vocab",
        world / "rank-8" / "vocab.json",
        "--data_yaml",
        world / "datasets.yaml",
        "--dataset",
        "toy_test",
        "--topn",
        "4",
        "--metrics",
        "all",
    )
    assert run.status == 0 and run.err == ""
    assert result_files(world) == [
        "accuracy/toy_test/test_speech_accuracy_summary.json",
        "accuracy/toy_test/test_text_accuracy_summary.json",
        "precision_recall/toy_test/test_speech_topn4_summary.json",
        "precision_recall/toy_test/test_text_topn4_summary.json",
    ]
    # k = 3, 2, 0, 2, 2 known words; of the top k words 2, 2, -, 1, 1 are right: 2/3, 1, -, 1/2, 1/2.
    assert accuracy_of(world) == {
        "n_evaluated": 4,
        "n_skipped": 1,
        "k_mean": 2.25,
        "accuracy": {"mean": 0.6667, "std": 0.2041, "se": 0.1021, "median": 0.5833, "min": 0.5, "max": 1.0},
    }
    # Speech names the same words for every sentence: 2/3, 0, -, 1/2, 0.
    assert accuracy_of(world, "speech")["accuracy"]["mean"] == 0.2917
    path = world / "rank-8" / "results" / "precision_recall" / "toy_test" / "test_text_topn4_summary.json"
    summary = json.loads(path.read_text())
    assert summary["config"]["topn"] == 4 and summary["config"]["dataset"] == "toy_test"
    # Among the top 4 are 3, 2, 0, 1, 2 right ones of 3, 3, 1, 3, 2 distinct words; the zeros count.
    assert summary["metrics"] == {
        "evaluation_mode": "standard",
        "n_documents": 5,
        "topn": 4,
        "precision": {"mean": 0.4, "std": 0.255, "se": 0.114, "min": 0.0, "max": 0.75},
        "recall": {"mean": 0.6, "std": 0.3887, "se": 0.1738, "min": 0.0, "max": 1.0},
        "f1": {"mean": 0.4762, "std": 0.3012, "se": 0.1347, "min": 0.0, "max": 0.8571},
    }


def test_the_bias_counts_only_when_asked_for(world: Path) -> None:
    assert evaluate(world, "--add_bias").status == 0
    # The bias puts "sun" first everywhere: 2/3, 1/2, -, 1/2, 1/2.
    assert accuracy_of(world)["accuracy"]["mean"] == 0.5417


def test_rows_whose_views_are_not_alike_are_left_out(world: Path) -> None:
    np.save(world / "data" / "sim.npy", np.array([0.9, 0.0, -0.2, 0.01, 0.5]))
    assert evaluate(world).status == 0
    found = accuracy_of(world)
    assert (found["n_evaluated"], found["n_skipped"]) == (3, 0)
    assert found["accuracy"]["mean"] == 0.5556
    np.save(world / "data" / "sim.npy", np.zeros(5))
    assert_one_line(evaluate(world), 2, "expected sentences", "found none")


def test_unit_length_changes_what_the_bias_weighs(world: Path) -> None:
    # Raw scores are 1 apart, so a bias of 0.5 moves nothing; scores of unit vectors lie within 0.56.
    write_state(world / "rank-8" / "model.safetensors", identity_state(sun=0.5), WORDS)
    evaluate(world, "--add_bias")
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667
    evaluate(world, "--add_bias", "--norm", "l2")
    assert accuracy_of(world)["accuracy"]["mean"] == 0.5417


@pytest.mark.parametrize(
    ("flags", "documents", "evaluated"),
    [
        ([], 5, 4),
        (["--msl", 2], 4, 4),
        (["--msl", 4], 1, 1),
        (["--xsl", 3], 4, 3),
        (["--msl", 2, "--xsl", 3], 3, 3),
    ],
)
def test_sentences_too_short_or_too_long_are_left_out(
    world: Path, flags: list[object], documents: int, evaluated: int
) -> None:
    assert evaluate(world, *flags).status == 0
    path = world / "rank-8" / "results" / "precision_recall" / "toy_test" / "test_text_topn4_summary.json"
    assert json.loads(path.read_text())["metrics"]["n_documents"] == documents
    assert accuracy_of(world)["n_evaluated"] == evaluated


def test_no_sentence_left_is_one_clear_line(world: Path) -> None:
    assert_one_line(evaluate(world, "--msl", 9), 2, "9 to 1000 words", "found none")
    assert_one_line(evaluate(world, "--xsl", 1), 2, "found none in 1")


def test_punctuation_alone_is_a_document_without_words(world: Path) -> None:
    (world / "data" / "test.txt").write_text("\n".join([*TEXTS[:2], "!!!", *TEXTS[3:]]) + "\n", encoding="utf-8")
    assert evaluate(world).status == 0
    found = accuracy_of(world)
    assert (found["n_evaluated"], found["n_skipped"]) == (4, 1)


def test_accuracy_looks_no_deeper_than_its_pool(world: Path) -> None:
    assert evaluate(world, "--extract_topk", 1, "--topn", 1).status == 0
    # One word each: right, right, -, wrong, right, of 3, 2, -, 2, 2.
    assert accuracy_of(world)["accuracy"]["mean"] == round((1 / 3 + 1 / 2 + 0 + 1 / 2) / 4, 4)
    # The published pool reaches topn at least.
    assert evaluate(world, "--extract_topk", 1, "--topn", 4).status == 0
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667
    assert evaluate(world, "--extract_topk", 100_000).status == 0
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667
    assert_one_line(evaluate(world, "--extract_topk", 0), 2, "pool")


def test_more_words_than_the_vocabulary_are_refused_and_fewer_by_default(world: Path) -> None:
    assert_one_line(evaluate(world, "--topn", 9), 2, "topn from 1 to 8", "found 9")
    assert_one_line(evaluate(world, "--topn", 0), 2, "topn from 1 to 8", "found 0")
    assert_one_line(evaluate(world, "--batch_size", 0), 2, "--batch_size")
    run = call(
        "evaluate",
        "--sdict",
        world / "rank-8" / "model.safetensors",
        "--data_yaml",
        world / "datasets.yaml",
        "--dataset",
        "toy_test",
    )
    assert run.status == 0, run.err


@pytest.mark.parametrize("size", [1, 2, 6000])
def test_the_batch_size_changes_nothing_but_memory(world: Path, size: int) -> None:
    assert evaluate(world, "--batch_size", size).status == 0
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667


@pytest.mark.parametrize(("metrics", "folders"), [("pr", {"precision_recall"}), ("accuracy", {"accuracy"})])
def test_metrics_picks_the_result_files(world: Path, metrics: str, folders: set[str]) -> None:
    assert evaluate(world, "--metrics", metrics).status == 0
    assert {name.split("/")[0] for name in result_files(world)} == folders


def test_out_base_names_the_files_and_keeps_views_apart(world: Path) -> None:
    assert evaluate(world, "--out_base", "run1/mine").status == 0
    assert result_files(world) == [
        f"{kind}/run1/mine_{view}_{name}_summary.json"
        for kind, name in (("accuracy", "accuracy"), ("precision_recall", "topn4"))
        for view in ("speech_en", "text_en")
    ]
    assert accuracy_of(world, stem="run1/mine_speech_en")["accuracy"]["mean"] == 0.2917
    for outside in ("../../../escaped", str(world / "escaped")):
        assert_one_line(evaluate(world, "--out_base", outside), 2, "expected result names inside")
    assert not list(world.rglob("*escaped*"))


def test_views_in_files_of_one_name_do_not_overwrite_each_other(world: Path) -> None:
    for view in ("text", "speech"):
        (world / "data" / view).mkdir()
        (world / "data" / f"test_{view}.npy").rename(world / "data" / view / "test.npy")
    views = [{"id": f"{view}_en", "file": f"data/{view}/test.npy"} for view in ("text", "speech")]
    write_datasets(world, embeddings=views)
    assert evaluate(world).status == 0
    found = [name for name in result_files(world) if name.startswith("accuracy")]
    means = [
        json.loads((world / "rank-8" / "results" / name).read_text())["metrics"]["accuracy"]["mean"] for name in found
    ]
    assert sorted(means) == [0.2917, 0.6667]


def test_every_pair_of_a_dataset_keeps_its_results(world: Path) -> None:
    np.save(world / "data" / "third.npy", ranked(*TEXT_VIEW))
    np.save(world / "data" / "sim2.npy", np.array([0.9, 0.0, 0.9, 0.9, 0.9]))
    write_datasets(
        world,
        embeddings=[*dataset()["embeddings"], {"id": "third", "file": "data/third.npy"}],
        sim_scores=[*dataset()["sim_scores"], {"file": "data/sim2.npy", "pair": ["text_en", "third"]}],
    )
    run = evaluate(world, "--json")
    assert run.status == 0
    files = [name for name in result_files(world) if name.startswith("accuracy")]
    counts = [
        json.loads((world / "rank-8" / "results" / name).read_text())["metrics"]["n_evaluated"] for name in files
    ]
    # Rows of the first pair: all four with known words; of the second pair one fewer.
    assert sorted(counts) == [3, 3, 4, 4]


def test_details_name_every_sentence(world: Path) -> None:
    assert evaluate(world, "--save_details").status == 0
    folder = world / "rank-8" / "results"
    rows = json.loads((folder / "precision_recall/toy_test/test_text_topn4_results.json").read_text())
    assert [row["keywords"] for row in rows] == [ranking.split()[:4] for ranking in TEXT_VIEW]
    assert rows[0]["metrics"]["precision"] == 0.75 and rows[0]["metrics"]["recall"] == 1.0
    assert rows[2]["metrics"]["recall"] == 0.0
    known = json.loads((folder / "accuracy/toy_test/test_text_accuracy_results.json").read_text())
    assert [row["accuracy"] for row in known] == pytest.approx([2 / 3, 1, 1 / 2, 1 / 2])
    assert evaluate(world, "--save_details", "--metrics", "accuracy").status == 0


def test_verbose_names_every_file(world: Path) -> None:
    quiet, verbose = evaluate(world), evaluate(world, "--verbose")
    assert "accuracy_summary.json" not in quiet.out
    assert all(Path(name).name in verbose.out for name in result_files(world))


def test_json_is_one_document_of_the_library_and_reports_both_priors(world: Path) -> None:
    run = evaluate(world, "--json")
    value = run.json
    assert value["accuracy"]["without_prior"]["mean"] == pytest.approx(2 / 3)
    assert value["accuracy"]["with_prior"]["mean"] == pytest.approx((2 / 3 + 3 / 2) / 4)
    assert (value["n_evaluated"], value["n_skipped"]) == (4, 1)
    assert set(value["views"]) == {"primary", "paired"}


def test_entities_are_scored_as_published(world: Path) -> None:
    entities = [
        {"text": "The cat sat.", "line_number": 1, "entity_names": ["Cat mat,", "the", "The"]},
        {"text": "A dog ran!", "line_number": 2, "entity_names": []},
        {"text": "fog fog fog mat", "entity_names": ["fog", ""]},
    ]
    path = world / "entities.jsonl"
    path.write_text("\n".join(map(json.dumps, entities)) + "\n\n")
    assert evaluate(world, "--entities_jsonl", path).status == 0
    folder = world / "rank-8" / "results" / "precision_recall" / "toy_test"
    summary = json.loads((folder / "test_text_topn4_entity_summary.json").read_text())
    # Sentence 1: "cat" of "cat mat" and "the" are among the four; sentence 5: "fog" is.
    assert summary["n_entity_docs"] == 2
    metrics = summary["metrics"]
    assert (metrics["evaluation_mode"], metrics["n_documents"], metrics["topn"]) == ("entity", 2, 4)
    assert {name: value["mean"] for name, value in metrics.items() if isinstance(value, dict)} == {
        "precision": 0.625,
        "recall": 1.0,
        "f1": 0.7619,
        "entity_precision": 0.375,
        "entity_recall_strict": 0.75,
        "entity_recall_partial": 0.875,
        "entity_f1_strict": 0.45,
        "entity_f1_partial": 0.5,
    }
    assert metrics["entity_recall_strict"]["std"] == 0.25 and metrics["entity_recall_strict"]["se"] == 0.1768
    assert accuracy_of(world)["n_evaluated"] == 4


def test_entities_of_sentences_that_do_not_count_leave_no_entity_file(world: Path) -> None:
    path = world / "entities.jsonl"
    path.write_text(json.dumps({"text": TEXTS[0], "line_number": 1, "entity_names": ["cat"]}) + "\n")
    np.save(world / "data" / "sim.npy", np.array([0.0, 0.8, 0.7, 0.6, 0.5]))
    run = evaluate(world, "--entities_jsonl", path)
    assert run.status == 0, run.err
    assert not [name for name in result_files(world) if "entity" in name]
    assert_one_line(evaluate(world, "--entities_jsonl", world / "absent.jsonl"), 2, "absent.jsonl")


@pytest.mark.parametrize("name", ["model.safetensors", "model_state_dict_best.safetensors", "best.pt"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_state_dicts_of_every_kind_are_evaluated(world: Path, name: str, prefix: str) -> None:
    (world / "rank-8" / "model.safetensors").unlink()
    write_state(world / "rank-8" / name, identity_state(prefix=prefix), WORDS)
    assert evaluate(world, sdict=f"rank-8/{name}").status == 0
    # State dicts that share a folder keep their results apart.
    model = "" if name == "model.safetensors" else Path(name).stem
    assert accuracy_of(world, model=model)["accuracy"]["mean"] == 0.6667


def test_a_full_rank_state_dict_is_evaluated(world: Path) -> None:
    write_state(world / "rank-8" / "model.safetensors", {"E": torch.eye(8), "b": torch.zeros(8, 1)}, WORDS)
    assert evaluate(world).status == 0
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667


def test_the_vocabulary_is_found_beside_then_one_up_then_by_name(world: Path) -> None:
    vocabulary = world / "rank-8" / "vocab.json"
    vocabulary.rename(world / "vocab.json")
    assert evaluate(world).status == 0
    (world / "vocab.json").rename(world / "words.json")
    assert_one_line(evaluate(world), 2, "vocab.json", "--vocab")
    assert evaluate(world, "--vocab", world / "words.json").status == 0
    assert_one_line(evaluate(world, "--vocab", world / "absent.json"), 2, "absent.json")


def test_a_lens_folder_keeps_its_results_to_itself(world: Path) -> None:
    assert evaluate(world, sdict="rank-8").status == 0
    assert accuracy_of(world)["accuracy"]["mean"] == 0.6667
    assert not (world / "results").exists()


def test_what_belongs_to_the_other_form_of_the_call_is_refused(world: Path) -> None:
    for flags in (["--texts", "t.txt"], ["--embeddings", "e.npy"], ["--paired", "e.npy"], ["--drop-bad-rows"]):
        assert_one_line(evaluate(world, *flags), 2, flags[0], "--sdict")
    assert_one_line(evaluate(world, "some-lens"), 2, "some-lens")
    rest = ["--texts", world / "data/test.txt", "--embeddings", world / "data/test_text.npy", "--topn", 4]
    for flags in (["--norm", "l2"], ["--add_bias"], ["--msl", "2"], ["--out_base", "x"], ["--text_id", "t"]):
        assert_one_line(call("evaluate", world / "rank-8", *rest, *flags), 2, flags[0], "--sdict")
    run = call("evaluate", "--sdict", world / "rank-8" / "model.safetensors", "--dataset", "toy_test")
    assert_one_line(run, 2, "--data_yaml")


# Evaluation: as the published script computes it ------------------------------------------------------------


def published_numbers(
    E: NDArray[np.float64],
    b: NDArray[np.float64] | None,
    vectors: NDArray[np.float64],
    texts: list[str],
    words: Sequence[str],
    *,
    topn: int,
    pool: int,
    shortest: int,
    longest: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the summaries of accuracy and of precision, recall, F1, computed a sentence at a time."""
    deleted = str.maketrans("", "", string.punctuation + "’“”‘[]\u200c\u200b\u2060—")
    docs = [" ".join(text.translate(deleted).split()) for text in texts]
    if shortest > 1 or longest < 1000:
        kept = [i for i, doc in enumerate(docs) if shortest <= len(doc.split()) <= longest]
        docs, vectors = [docs[i] for i in kept], vectors[kept]
    accuracies, ks, skipped = [], [], 0
    scores: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for doc, s in zip(docs, vectors, strict=True):
        score = E @ s if b is None else E @ s + b
        order = [words[i] for i in np.argsort(-score)][: max(topn, pool)]
        reference = set(doc.lower().split())
        known = reference & set(words)
        if known:
            ks.append(len(known))
            accuracies.append(len(known & set(order[: len(known)])) / len(known))
        else:
            skipped += 1
        overlap = len(reference & set(order[:topn]))
        p, r = overlap / topn, overlap / len(reference) if reference else 0.0
        scores["precision"].append(p)
        scores["recall"].append(r)
        scores["f1"].append(2 * p * r / (p + r) if p + r > 0 else 0.0)

    def aggregate(values: list[float]) -> dict[str, float]:
        mean = sum(values) / len(values)
        std = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        return {"mean": mean, "std": std, "se": std / len(values) ** 0.5, "min": min(values), "max": max(values)}

    accuracy = {
        "n_evaluated": len(accuracies),
        "n_skipped": skipped,
        "k_mean": sum(ks) / len(ks),
        "accuracy": {**aggregate(accuracies), "median": float(np.median(accuracies))},
    }
    return accuracy, {
        "evaluation_mode": "standard",
        "n_documents": len(docs),
        "topn": topn,
        **{name: aggregate(values) for name, values in scores.items()},
    }


def assert_close(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_close(found[name], value)
        else:
            # The files round to four digits (k_mean to two).
            assert found[name] == (pytest.approx(value, abs=6e-3 if name == "k_mean" else 6e-5))


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {}),
        (["--add_bias"], {}),
        (["--add_bias", "--norm", "l2"], {}),
        (["--topn", 3, "--extract_topk", 2], {"topn": 3, "pool": 2}),
        (["--msl", 3], {"shortest": 3}),
        (["--msl", 3, "--xsl", 4, "--add_bias"], {"shortest": 3, "longest": 4}),
    ],
)
def test_result_files_hold_what_the_published_script_computes(
    tmp_path: Path, flags: list[object], settings: dict[str, int]
) -> None:
    random = np.random.default_rng(7)
    words = [f"w{i}" for i in range(25)]
    pool = [*words[:15], "unknown", "W3,", "w4!"]
    texts = [" ".join(random.choice(pool, size=random.integers(1, 7))) for _ in range(80)] + ["nothing known", "?"]
    E1, E2 = random.standard_normal((25, 4)), random.standard_normal((4, 6))
    b, vectors = random.standard_normal(25), random.standard_normal((82, 6))
    state = {
        name: torch.from_numpy(value.astype(np.float32))
        for name, value in {"E1": E1, "E2": E2, "b": b[:, None]}.items()
    }
    write_state(tmp_path / "rank-8" / "model.safetensors", state, words)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.txt").write_text("\n".join(texts) + "\n")
    np.save(tmp_path / "data" / "test_text.npy", vectors.astype(np.float32))
    np.save(tmp_path / "data" / "test_speech.npy", vectors.astype(np.float32))
    write_datasets(tmp_path, sim_scores=None)
    asked = {"topn": 10, "pool": 200, "shortest": 1, "longest": 1000, **settings}
    run = evaluate(tmp_path, *flags, *(() if "--topn" in flags else ("--topn", 10)))
    assert run.status == 0, run.err
    if "--norm" in flags:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    accuracy, others = published_numbers(
        E1 @ E2, b if "--add_bias" in flags else None, vectors, texts, words, **asked
    )
    assert_close(accuracy_of(tmp_path), accuracy)
    path = tmp_path / "rank-8/results/precision_recall/toy_test" / f"test_text_topn{asked['topn']}_summary.json"
    assert_close(json.loads(path.read_text())["metrics"], others)


# Training ---------------------------------------------------------------------------------------------------

TRAINING_YAML = """
experiment:
  name: rank_4_alpha_0.5_l1_1e-4_l2_0
  output_dir: exp/toy
  seed: 108

data:
  train_datasets_yaml: configs/datasets.yaml
  dev_datasets_yaml: configs/datasets.yaml
  vocab_yaml: exp/vocab/vocab_config.yaml

  train:
    datasets:
      - toy_train
    embedding_pair:
      - text_en
      - speech_en
    target_text: text_en
    sim_threshold: 0.0
    normalize: null

  validation:
    datasets:
      - toy_dev
    embedding_pair:
      - text_en
      - speech_en
    target_text: text_en
    sim_threshold: 0.0
    normalize: null

model:
  type: FactLoLM
  rank: 4
  alpha: 0.5

training:
  batch_size: 6000
  learning_rate: 0.005
  lr_factor: 0.5
  iterations: 6
  num_workers: 0
  checkpoint_interval: 3
  patience: 5
  early_stopping: true
  stop_criteria: recall_avg
  half_precision: false

evaluation:
  topk_factor: 2.0
  use_bias: false

regularization:
  l1: 1e-4
  l1_method: proximal
  weight_decay: 0

resume:
  model_checkpoint: null
  optimizer_checkpoint: null

compute:
  copy_to_tmp: false
  tmp_dir: null
  verbose: true
"""
VOCABULARY_YAML = """
name: vocab
language: en
datasets: [toy_train]
text_id: text_en
sim_threshold: 0.0
token_pattern: latin
ngram_range: [1, 1]
lowercase: true
strip_accents: null
max_features: 100_000
min_df: 1
max_df: 1.0
output_dir: exp
"""


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


@cache
def views(n: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of toy sentences as text and as something noisier."""
    texts = toy_texts(n, seed=seed)
    return {"text": ToyEncoder().encode(texts), "speech": ToyEncoder(noise=0.1).encode(texts)}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as the published code's users have theirs; the working folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "data", "exp/vocab"):
        (tmp_path / folder).mkdir(parents=True)
    entries = {}
    for split, n, seed in (("train", 400, 0), ("dev", 100, 1)):
        texts = toy_texts(n, seed=seed)
        (tmp_path / f"data/{split}.txt").write_text("\n".join(texts) + "\n")
        for view, vectors in views(n, seed).items():
            np.save(tmp_path / f"data/{split}_{view}.npy", vectors)
        np.save(tmp_path / f"data/{split}_sim.npy", np.full(n, 0.5, dtype=np.float32))
        entries[f"toy_{split}"] = {
            "embeddings": [
                {"id": f"{view}_en", "file": f"data/{split}_{view}.npy", "modality": view, "language": "en"}
                for view in ("text", "speech")
            ],
            "texts": [{"id": "text_en", "file": f"data/{split}.txt", "language": "en"}],
            "sim_scores": [{"file": f"data/{split}_sim.npy", "pair": ["text_en", "speech_en"]}],
        }
    (tmp_path / "configs/datasets.yaml").write_text(yaml.safe_dump(entries))
    (tmp_path / "exp/vocab/vocab_config.yaml").write_text(VOCABULARY_YAML)
    (tmp_path / "exp/vocab/cvect.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    (tmp_path / "configs/train.yaml").write_text(TRAINING_YAML)
    return tmp_path


def read(site: Path, **overrides: Any) -> FitJob:
    path = site / "configs/train.yaml"
    values = yaml.safe_load(path.read_text())
    assert is_training_yaml(values)
    return read_training_yaml(values, path, {name.replace("__", "."): value for name, value in overrides.items()})


def test_a_published_training_yaml_is_taken_as_it_is(site: Path) -> None:
    job = read(site)
    assert len(job.texts) == 400 and job.texts == toy_texts(400)
    np.testing.assert_array_equal(job.embeddings.to_numpy(), np.load("data/train_text.npy"))
    assert job.paired is not None and job.dev_paired is not None
    np.testing.assert_array_equal(job.paired.to_numpy(), np.load("data/train_speech.npy"))
    np.testing.assert_array_equal(job.dev_paired.to_numpy(), np.load("data/dev_speech.npy"))
    assert job.dev_texts == toy_texts(100, seed=1)
    assert job.output == Path("exp/toy/rank_4_alpha_0.5_l1_1e-4_l2_0")
    train = job.train
    assert (train.rank, train.alpha, train.passes, train.batch_size, train.seed) == (4, 0.5, 6, 6000, 108)
    # YAML reads 1e-4, without a dot, as a string.
    assert train.l1 == 0.0001 and train.weight_decay == 0.0
    assert {train.learning_rate, train.learning_rate_projection, train.learning_rate_bias} == {0.005}
    assert (train.schedule, train.plateau_factor, train.plateau_patience) == ("plateau", 0.5, 2)
    assert (train.evaluate_every, train.patience, train.stop_topk_factor, train.stop_prior) == (3, 5, 2.0, 0.0)
    assert (train.precision, train.centre, train.anchor) == ("float32", False, "random")
    assert job.vocabulary.tokeniser.mode == "published"


def test_every_training_setting_does_something(site: Path) -> None:
    job = read(
        site,
        model__type="LoLM",
        training__iterations="8",
        training__half_precision=True,
        training__early_stopping=False,
        training__patience=1,
        training__lr_factor=0.1,
        evaluation__use_bias=True,
        evaluation__topk_factor=1,
        regularization__weight_decay="1e-3",
        regularization__l1=0,
        data__train__normalize="l2",
    )
    train = job.train
    assert (train.rank, train.passes, train.precision, train.stop_prior) == ("full", 8, "bfloat16", 1.0)
    assert (train.patience, train.plateau_patience, train.plateau_factor) == (8, 0, 0.1)
    assert (train.stop_topk_factor, train.weight_decay, train.l1) == (1.0, 0.001, 0.0)
    np.testing.assert_allclose(np.linalg.norm(job.embeddings.to_numpy(), axis=1), 1.0, rtol=1e-5)
    assert job.dev_embeddings is not None
    assert not np.allclose(np.linalg.norm(job.dev_embeddings.to_numpy(), axis=1), 1.0)


def test_alpha_weighs_the_target_text_first_or_second(site: Path) -> None:
    for pair in (["text_en", "speech_en"], ["speech_en", "text_en"]):
        job = read(site, data__train__embedding_pair=pair, model__alpha=0.8)
        assert job.train.alpha == 0.8
        np.testing.assert_array_equal(job.embeddings.to_numpy(), np.load("data/train_text.npy"))
    with pytest.raises(InputError, match="target_text"):
        read(site, data__train__target_text="text_de")
    with pytest.raises(InputError, match="embedding_pair"):
        read(site, data__train__embedding_pair=["text_en"])


def test_rows_at_or_below_the_threshold_are_left_out(site: Path) -> None:
    scores = np.full(400, 0.5, dtype=np.float32)
    scores[[0, 1, 2]] = [0.25, 0.0, -1.0]
    np.save("data/train_sim.npy", scores)
    texts = toy_texts(400)
    assert read(site).texts == [texts[0], *texts[3:]]
    job = read(site, data__train__sim_threshold=0.25)
    assert job.texts == texts[3:]
    np.testing.assert_array_equal(job.embeddings.to_numpy(), np.load("data/train_text.npy")[3:])
    with pytest.raises(InputError, match="above sim_threshold"):
        read(site, data__train__sim_threshold=0.9)


def test_rows_without_scores_all_train(site: Path) -> None:
    path = site / "configs/datasets.yaml"
    entries = yaml.safe_load(path.read_text())
    for entry in entries.values():
        del entry["sim_scores"]
    path.write_text(yaml.safe_dump(entries))
    assert len(read(site, data__train__sim_threshold=0.9).texts) == 400


def test_several_datasets_follow_one_another(site: Path) -> None:
    job = read(site, data__train__datasets=["toy_dev", "toy_train"])
    assert job.texts == toy_texts(100, seed=1) + toy_texts(400)
    np.testing.assert_array_equal(job.embeddings.block(0, 100), np.load("data/dev_text.npy"))
    np.testing.assert_array_equal(job.embeddings.block(100, 500), np.load("data/train_text.npy"))


def test_older_names_and_absent_sections_are_understood(site: Path) -> None:
    path = site / "configs/train.yaml"
    values = yaml.safe_load(path.read_text())
    values["data"]["datasets_yaml"] = values["data"].pop("train_datasets_yaml")
    del values["data"]["dev_datasets_yaml"], values["data"]["validation"]
    del values["resume"], values["compute"], values["evaluation"], values["regularization"]
    job = read_training_yaml(values, path)
    assert len(job.texts) == 400 and job.dev_texts is None
    assert (job.train.l1, job.train.stop_topk_factor) == (0.0, 2.0)
    del values["data"]["datasets_yaml"]
    with pytest.raises(InputError, match="train_datasets_yaml"):
        read_training_yaml(values, path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("regularization.l1_method", "subgradient", "proximal"),
        ("resume.model_checkpoint", "exp/x.safetensors", "resume.model_checkpoint"),
        ("resume.optimizer_checkpoint", "exp/x.pt", "resume.optimizer_checkpoint"),
        ("training.stop_criteria", "precision_avg", "stop_criteria"),
        ("model.type", "LoML", "LoLM or FactLoLM"),
        ("model.rank", "four", "model.rank"),
        ("model.rank", 4.5, "model.rank"),
        ("model.rank", None, "model.rank"),
        ("model.alpha", 1.5, "alpha"),
        ("training.batch_size", True, "training.batch_size"),
        ("training.learning_rate", [1], "training.learning_rate"),
        ("training.half_precision", "maybe", "half_precision"),
        ("data.train.normalize", "l1", "normalize"),
        ("data.train.datasets", "toy_train", "as a list"),
        ("data.train.datasets", ["absent"], "'absent'"),
        ("data.train", None, "data.train.embedding_pair"),
        ("data.vocab_yaml", "absent.yaml", "absent.yaml"),
        ("experiment.name", None, "experiment.name"),
        ("training", 7, "training"),
        # What is not a setting is a slip of the hand, not a wish.
        ("training.batchsize", 7, "training.batchsize"),
        ("rank", 7, "rank"),
    ],
)
def test_training_settings_that_cannot_be_are_refused_by_name(
    site: Path, name: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(site, **{name.replace(".", "__"): value})
    assert message in str(caught.value)


def test_settings_without_effect_are_told(site: Path) -> None:
    with pytest.warns(FliplensWarning, match="num_workers, copy_to_tmp in .*train.yaml have no effect"):
        read(site, training__num_workers=4, compute__copy_to_tmp=True)


# The vocabulary of a training YAML --------------------------------------------------------------------------


def test_the_pickle_beside_the_vocabulary_is_never_read(site: Path) -> None:
    read(site)
    assert not (site / "exploded").exists()
    pickle.loads((site / "exp/vocab/cvect.pkl").read_bytes())  # noqa: S301 - proof that the bomb is live
    assert (site / "exploded").exists()


def test_the_vocabulary_is_the_json_or_built_again(site: Path) -> None:
    built = read(site).vocabulary
    assert sorted(built.words) == sorted({word for text in toy_texts(400) for word in text.split()})
    (site / "exp/vocab/vocab_2.json").write_text('{"stone": 1, "river": 0}')
    assert read(site).vocabulary.words == ("river", "stone")
    (site / "exp/vocab/vocab_3.json").write_text('{"stone": 1, "river": 0, "x": 2}')
    with pytest.raises(InputError, match="found 2"):
        read(site)


def test_the_vocabulary_yaml_is_followed(site: Path) -> None:
    texts = ["Über Über café I x", "Über tea", "dropped below"]
    (site / "data/train.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save(site / "data/train_sim.npy", np.array([0.5, 0.5, 0.0]))
    for view in ("text", "speech"):
        np.save(site / f"data/train_{view}.npy", np.ones((3, 16), dtype=np.float32))
    path = site / "exp/vocab/vocab_config.yaml"
    settings = yaml.safe_load(VOCABULARY_YAML)

    def words(**changes: Any) -> set[str]:
        path.write_text(yaml.safe_dump({**settings, **changes}))
        return set(read(site).vocabulary.words)

    # At threshold 0 the vocabulary drops no row, though training does; above, it drops those at or below.
    assert words() == {"über", "café", "tea", "dropped", "below"}
    assert words(sim_threshold=0.1) == {"über", "café", "tea"}
    assert words(strip_accents="ascii", sim_threshold="1e-1") == {"uber", "cafe", "tea"}
    assert words(lowercase=False, sim_threshold=0.1) == {"Über", "café", "tea"}
    assert words(token_pattern="indic", sim_threshold=0.1) == {"über", "café", "i", "x", "tea"}  # noqa: S106 - no password
    assert words(max_features=1) == {"über"}
    assert words(min_df=2) == {"über"}
    assert words(max_df=1, sim_threshold=0.1) == {"café", "tea"}
    assert words(ngram_range=[2, 2], sim_threshold=0.1) == {"über über", "über café", "über tea"}
    for wrong, message in (
        ({"token_pattern": "greek"}, "token_pattern"),
        ({"ngram_range": [2]}, "ngram_range"),
        ({"strip_accents": "all"}, "strip_accents"),
        ({"datasets": None}, "datasets"),
        ({"text_id": "text_de"}, "text_de"),
        ({"max_features": "many"}, "max_features"),
        ({"max_features": 0}, "max_features .* a whole number from 1, or -1 for all, found 0"),
    ):
        with pytest.raises(InputError, match=message):
            words(**wrong)


# fit on a training YAML, end to end -------------------------------------------------------------------------


def test_fit_on_a_published_training_yaml_writes_a_lens(site: Path) -> None:
    run = call("fit", "configs/train.yaml", "--json", "--quiet")
    assert run.status == 0 and run.err == ""
    assert run.json["rank"] == 4 and run.json["recipe"]["recipe"] == "paper"
    folder = site / "exp/toy/rank_4_alpha_0.5_l1_1e-4_l2_0"
    lens = Lens.load(folder)
    assert (lens.rank, lens.dim) == (4, 16)
    assert lens.config["data"]["rows"] == 400 and lens.config["data"]["views"] == 2
    tensors = load_file(folder / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "E1": (30, 4),
        "E2": (4, 16),
        "b": (30, 1),
    }
    assert not (site / "exploded").exists()
    first = (folder / "model.safetensors").read_bytes()
    assert_one_line(call("fit", "configs/train.yaml", "--quiet"), 2, "another run", "--overwrite")
    assert call("fit", "configs/train.yaml", "--quiet", "--overwrite").status == 0
    assert (folder / "model.safetensors").read_bytes() == first
    assert call("fit", "configs/train.yaml", "--quiet", "--overwrite", "--seed", 1).status == 0
    assert (folder / "model.safetensors").read_bytes() != first


def test_flags_and_overrides_change_a_training_yaml(site: Path) -> None:
    def described(*flags: object) -> Any:
        return call("fit", "configs/train.yaml", "--json", "--quiet", "--overwrite", "-o", "out", *flags).json

    assert described("model.rank=3", "--alpha", "0.9")["recipe"]["alpha"] == 0.9
    assert Lens.load("out").rank == 3
    assert described("--rank", 2, "--passes", 3)["training"]["history"][-1]["number"] == 3
    assert Lens.load("out").rank == 2
    assert described("--rank", "full")["rank"] == "full"
    assert described("model.type=LoLM")["rank"] == "full"
    assert described("model.type=LoLM", "--rank", 2)["rank"] == "full"
    assert described("--encoder", "toy")["encoder"] == "toy"
    assert Lens.load("out").away is not None
    assert described("explain_away=false")["rank"] == 4
    assert Lens.load("out").away is None
    path = site / "configs/train.yaml"
    path.write_text(path.read_text().replace("FactLoLM", "LoLM"))
    assert described("--rank", 2)["rank"] == 2


def test_flags_that_a_training_yaml_has_no_place_for_are_refused(site: Path) -> None:
    run = call("fit", "configs/train.yaml", "--vocab-size", 5, "--texts", "t.txt")
    assert_one_line(run, 2, "texts, vocab_size", "section.name=value")
    assert_one_line(call("fit", "configs/train.yaml", "regularization.l1_method=subgradient"), 2, "subgradient")
    assert_one_line(call("fit", "configs/train.yaml", "passes=3"), 2, "passes")
    assert_one_line(call("fit", "configs/train.yaml", "explain_away=maybe"), 2, "explain_away to be true or false")
