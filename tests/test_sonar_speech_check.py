"""`fliplens encoders check` on SONAR's speech encoder: what is compared with the original, what marks a folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import made_up, spoken, tiny_sonar_config, tiny_sonar_speech, tiny_sonar_tensors

from fliplens.cli import main
from fliplens.encoders import load_encoder
from fliplens.encoders.checking import check_encoder, mark_matched
from fliplens.encoders.golden import GOLDEN, Golden
from fliplens.errors import FliplensError, FliplensWarning, InputError

pytest.importorskip("transformers")
pytest.importorskip("soundfile")

from test_sonar_speech import Plain

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "encode_sonar_speech.py"
pytestmark = pytest.mark.filterwarnings("ignore:the speech encoder in")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English and a French folder, recordings, a list of them, and their vectors by a float64 network."""
    folder = tmp_path_factory.mktemp("built")
    recordings = spoken(folder / "clips")
    (folder / "list.txt").write_text("".join(f"clips/{path.name}\n" for path in recordings))
    tiny_sonar_speech(folder / "eng")
    tiny_sonar_speech(folder / "fra", language="fra")
    tensors, config = tiny_sonar_tensors(tiny_sonar_config()), tiny_sonar_config()
    plain, features = Plain(tensors, config), loaded(folder / "eng")._features
    vectors = []
    for path in recordings:
        from fliplens.audio import read_audio

        read = features([read_audio(path)], sampling_rate=16_000, return_tensors="np")
        frames = read["input_features"][0][read["attention_mask"][0].astype(bool)]
        vectors.append(plain.pooled(plain.frames(frames.astype(np.float64))))
    np.save(folder / "vectors.npy", np.array(vectors, dtype=np.float32))
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "here"))


def loaded(folder: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        return load_encoder(f"sonar-speech:{folder}", device="cpu", **options)


def by_sonar(here: Path, language: str = "fra", vectors: NDArray[np.float32] | None = None) -> Path:
    """Write vectors as the script for SONAR's own environment does, of what stands for SONAR's own code."""
    spec = importlib.util.spec_from_file_location("encode_sonar_speech", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    paths = (here / "list.txt").read_text().splitlines()
    rows = np.load(here / "vectors.npy") if vectors is None else vectors
    row = {str(here / path): one for path, one in zip(paths, rows, strict=True)}

    def encode(batch: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([row[one] for one in batch])

    script.write(encode, paths, here / "original", language=language, name="list.txt", folder=here, dim=16)
    return here / "original"


def checked(capsys: Any, *words: str | Path) -> tuple[int, dict[str, dict[str, Any]], dict[str, Any]]:
    """Return status, checks by name, and the whole of what `fliplens encoders check` found."""
    capsys.readouterr()
    status = main(["encoders", "check", *map(str, words), "--device", "cpu", "--json"])
    done = json.loads(capsys.readouterr().out)
    return status, {one["name"]: one for one in done["checks"]}, done


def mark(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())["checked"]


def warned(folder: Path) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_encoder(f"sonar-speech:{folder}", device="cpu")
    return any("experimental" in str(one.message) for one in caught)


def know(monkeypatch: pytest.MonkeyPatch, here: Path, *, off: float = 0.0) -> list[Path]:
    """Make what the float64 network gives the values that are known; return the recordings."""
    vectors = np.load(here / "vectors.npy").astype(np.float64)[:2]
    values = tuple(float(one) + off for one in vectors[0] @ vectors.T)
    real = GOLDEN["sonar-speech-eng"]
    golden = Golden(
        rows=real.rows, columns=real.columns, values=(values,), families=real.families, source=real.source,
        recordings=real.recordings, products=True, precisions=real.precisions, tolerance=1e-3,
    )  # fmt: skip
    monkeypatch.setitem(GOLDEN, "sonar-speech-eng", golden)
    return named(here)


def named(here: Path) -> list[Path]:
    """Return two recordings under the names of those whose values are known."""
    copies = [(here / "clips" / f"{number}.wav", here / f"audio_{number + 1}.wav") for number in (0, 1)]
    return [Path(shutil.copy(*pair)) for pair in copies]


# --- known values --------------------------------------------------------------------------------------------------


def test_without_recordings_nothing_says_that_the_original_is_matched(here: Path, capsys: Any) -> None:
    status, checks, done = checked(capsys, f"sonar-speech:{here / 'eng'}#language=eng")
    assert (status, done["experimental"], done["matched"]) == (1, True, None)
    assert checks["known values"]["passed"] is None
    assert checks["known values"]["found"].startswith("not compared: name audio_1.wav and audio_2.wav of SONAR's own")
    assert main(["encoders", "check", f"sonar-speech:{here / 'eng'}", str(here / "clips" / "0.wav")]) == 1
    out = capsys.readouterr().out
    assert "not compared" in out and "stays experimental" in out
    assert mark(here / "eng") is False and warned(here / "eng")


def test_known_values_mark_the_folder_that_was_loaded_and_no_other(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = know(monkeypatch, here)
    home = here / "home"
    shutil.copytree(here / "eng", home / "sonar-speech-eng")
    monkeypatch.setenv("FLIPLENS_HOME", str(home))
    # In any order, and among others.
    status, checks, done = checked(capsys, "sonar-speech-eng", *reversed(recordings), here / "clips" / "2.wav")
    assert (status, done["experimental"], done["matched"]) == (0, False, "products by SONAR's own tests")
    assert checks["known values"]["passed"] is True and checks["marked as checked"]["passed"] is True
    assert not warned(home / "sonar-speech-eng")
    assert mark(here / "eng") is False and warned(here / "eng")
    written = json.loads((home / "sonar-speech-eng" / "config.json").read_text())
    before = json.loads((here / "eng" / "config.json").read_text())
    assert {**written, "checked": False} == before
    assert sorted(path.name for path in (home / "sonar-speech-eng").iterdir()) == ["config.json", "model.safetensors"]
    # Later, without recordings: told as what it is, and the folder is not written again.
    status, checks, done = checked(capsys, "sonar-speech-eng")
    assert (status, done["experimental"], done["matched"]) == (0, False, None)
    assert "products by SONAR's own tests were matched before" in checks["known values"]["found"]
    assert "marked as checked" not in checks


def test_the_published_values_are_missed_by_random_weights(here: Path, capsys: Any) -> None:
    status, checks, done = checked(capsys, f"sonar-speech:{here / 'eng'}", *named(here))
    assert (status, done["passed"], done["experimental"]) == (1, False, True)
    vectors = np.load(here / "vectors.npy").astype(np.float64)[:2]
    off = np.abs(vectors[0] @ vectors.T - [0.0429819, 0.00286825]).max()
    assert checks["known values"]["found"].startswith(f"products {off:.1e} off at most, 0.0001 allowed")
    assert mark(here / "eng") is False


def test_values_just_off_are_missed(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = know(monkeypatch, here, off=2e-3)
    status, checks, _ = checked(capsys, f"sonar-speech:{here / 'eng'}", *recordings)
    assert status == 1 and checks["known values"]["passed"] is False and mark(here / "eng") is False


def test_bfloat16_says_too_little(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = know(monkeypatch, here)
    done = check_encoder(loaded(here / "eng", precision="bfloat16"), recordings)
    assert (done.passed, done.matched, done.experimental) == (True, None, True)
    assert done.checks[-1].passed is None and "say --precision float32" in done.checks[-1].found


# --- vectors by the original ---------------------------------------------------------------------------------------


def test_vectors_by_sonars_code_mark_another_language(here: Path, capsys: Any) -> None:
    spec, original = f"sonar-speech:{here / 'fra'}#language=fra", by_sonar(here)
    status, checks, _ = checked(capsys, spec)
    assert status == 1 and "none are published of sonar-speech-fra" in checks["known values"]["found"]
    status, checks, done = checked(capsys, spec, here / "list.txt", "--against", original)
    assert (status, done["experimental"]) == (0, False)
    assert done["matched"] == "4 vectors by scripts/encode_sonar_speech.py"
    assert checks["given vectors"]["passed"] is True and "4 vectors of" in checks["given vectors"]["found"]
    assert not warned(here / "fra") and warned(here / "eng")
    # The mark is of these weights.
    tiny_sonar_speech(here / "other", language="fra", seed=1)
    shutil.copy(here / "other" / "model.safetensors", here / "fra" / "model.safetensors")
    assert warned(here / "fra")


def test_vectors_that_do_not_say_who_made_them_mark_nothing(here: Path, capsys: Any) -> None:
    spec = f"sonar-speech:{here / 'fra'}"
    clips = sorted((here / "clips").iterdir())
    status, checks, done = checked(capsys, spec, *clips, "--against", here / "vectors.npy")
    assert (status, done["passed"], done["experimental"]) == (1, True, True)
    assert checks["given vectors"]["passed"] is True and checks["known values"]["passed"] is None
    # Those that it made itself say nothing.
    assert main(["encode", str(here / "list.txt"), "-e", spec, "-o", str(here / "own.npy"), "--quiet"]) == 0
    status, checks, done = checked(capsys, spec, here / "list.txt", "--against", here / "own.npy")
    assert status == 1 and checks["given vectors"]["passed"] is True and done["matched"] is None
    # Nor those of another language.
    status, _, done = checked(capsys, spec, here / "list.txt", "--against", by_sonar(here, "deu"))
    assert status == 1 and done["matched"] is None
    assert mark(here / "fra") is False


def test_rows_that_the_original_could_not_read_are_left_out(here: Path, capsys: Any) -> None:
    vectors = np.load(here / "vectors.npy")
    vectors[1] = np.nan
    (here / "clips" / "1.wav").write_bytes(b"no audio")
    original = by_sonar(here, vectors=vectors)
    spec = f"sonar-speech:{here / 'fra'}"
    status, checks, done = checked(capsys, spec, here / "list.txt", "--against", original)
    assert status == 0 and "3 vectors of" in checks["given vectors"]["found"]
    assert "1 others left out" in checks["given vectors"]["found"]
    assert done["matched"] == "3 vectors by scripts/encode_sonar_speech.py"
    np.save(here / "nan.npy", np.full((4, 16), np.nan, np.float32))
    with pytest.raises(InputError, match="found none that is finite"):
        from fliplens.embeddings import open_embeddings

        check_encoder(loaded(here / "fra"), [made_up(0, 0.5)] * 4, against=open_embeddings(here / "nan.npy"))


def test_vectors_that_are_all_the_same_mark_nothing(here: Path, capsys: Any) -> None:
    (here / "list.txt").write_text("clips/0.wav\nclips/0.wav\n")
    vectors = np.load(here / "vectors.npy")[[0, 0]]
    original = by_sonar(here, vectors=vectors)
    status, checks, done = checked(capsys, f"sonar-speech:{here / 'fra'}", here / "list.txt", "--against", original)
    assert status == 1 and checks["given vectors"]["passed"] is True and done["matched"] is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda v: v[[1, 0, 2, 3]], "given vectors"),
        (lambda v: v + np.float32(0.3) * np.abs(v).mean() * np.eye(4, 16, dtype=np.float32), "given vectors"),
        (lambda v: v * np.float32(1.002), "their lengths"),
        (lambda v: v * np.array([[1], [1], [0], [1]], np.float32), "given vectors"),
    ],
)
def test_wrong_vectors_fail(here: Path, capsys: Any, change: Any, name: str) -> None:
    original = by_sonar(here, vectors=change(np.load(here / "vectors.npy")))
    status, checks, done = checked(capsys, f"sonar-speech:{here / 'fra'}", here / "list.txt", "--against", original)
    assert (status, done["passed"], done["experimental"]) == (1, False, True)
    assert checks[name]["passed"] is False
    assert mark(here / "fra") is False


def test_what_is_not_there_or_of_another_size_is_one_line(here: Path, capsys: Any) -> None:
    spec = f"sonar-speech:{here / 'fra'}"
    np.save(here / "wide.npy", np.ones((4, 17), np.float32))
    np.save(here / "few.npy", np.ones((3, 16), np.float32))
    for words, match in (
        ([here / "list.txt", "--against", here / "wide.npy"], "expected vectors of 16 dimensions"),
        ([here / "list.txt", "--against", here / "few.npy"], "found 3 vectors in"),
        ([here / "list.txt", "--against", here / "absent.npy"], "absent.npy"),
        ([here / "absent.wav"], "expected a file of audio at"),
        ([here / "absent.txt"], "absent.txt"),
        ([here / "list.txt.gz"], "list.txt.gz"),
        (["--against", here / "vectors.npy"], "expected the inputs that the vectors in"),
    ):
        capsys.readouterr()
        assert main(["encoders", "check", spec, *map(str, words), "--device", "cpu"]) == 2, words
        out, err = capsys.readouterr()
        complaint = [line for line in err.splitlines() if "experimental" not in line]
        assert out == "" and len(complaint) == 1 and match in complaint[0], words


# --- the mark ------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_told(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = by_sonar(here)

    def refuse(path: Path, value: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("fliplens.encoders.sonar_speech.write_json", refuse)
        words = (here / "list.txt", "--against", original)
        status, checks, done = checked(capsys, f"sonar-speech:{here / 'fra'}", *words)
    assert status == 1 and done["passed"] is False
    assert checks["marked as checked"]["passed"] is False
    assert "make the folder writable" in checks["marked as checked"]["found"]
    assert mark(here / "fra") is False and warned(here / "fra")


def test_a_kill_while_marking_leaves_the_folder_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, before = loaded(here / "fra"), (here / "fra" / "config.json").read_bytes()

    def stop(self: Path, target: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            encoder.mark_matched("x")
    assert (here / "fra" / "config.json").read_bytes() == before
    assert sorted(path.name for path in (here / "fra").iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_changed_since_is_not_marked(here: Path) -> None:
    encoder = loaded(here / "fra")
    tiny_sonar_speech(here / "other", language="fra", seed=1)
    shutil.copy(here / "other" / "model.safetensors", here / "fra" / "model.safetensors")
    with pytest.raises(InputError, match="found it changed since"):
        encoder.mark_matched("x")
    shutil.copy(here / "eng" / "model.safetensors", here / "fra" / "model.safetensors")
    shutil.copy(here / "eng" / "config.json", here / "fra" / "config.json")
    with pytest.raises(InputError, match="found it changed since"):
        encoder.mark_matched("x")
    shutil.rmtree(here / "fra")
    with pytest.raises(InputError, match="expected a JSON file"):
        encoder.mark_matched("x")
    encoder.folder = None
    with pytest.raises(InputError, match="made otherwise"):
        encoder.mark_matched("x")


def test_a_mark_of_an_older_kind_is_none(here: Path) -> None:
    path = here / "eng" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checked": True}))
    assert warned(here / "eng")


def test_nothing_is_marked_where_a_promise_is_broken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = know(monkeypatch, here)
    encoder = loaded(here / "eng")
    encode = encoder.encode

    def slipped(inputs: Sequence[Any], **options: Any) -> Any:
        return encode(inputs, **options) if len(inputs) else np.zeros(16, np.float32)

    encoder.encode = slipped
    done = check_encoder(encoder, recordings)
    assert [one.name for one in done.checks if one.passed is False] == ["no input"]
    assert done.matched is None and done.experimental
    assert mark_matched(encoder, done) is done and mark(here / "eng") is False


def test_an_encoder_that_fails_says_so(here: Path) -> None:
    encoder = loaded(here / "eng")

    def fail(_: Any, **options: Any) -> Any:
        raise FliplensError("expected memory, found none")

    encoder.encode = fail
    done = check_encoder(encoder)
    assert not done.passed and done.experimental
