"""The lens: scores as the card gives them, the prior dial, files that round-trip, bad files refused."""

from __future__ import annotations

import http.server
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import brute_force_top
from safetensors.torch import load_file, save_file
from toys import ToyEncoder, toy_corpus, toy_texts

import fliplens.lenses.extractor
import fliplens.lenses.lens
from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings
from fliplens.encoding.texts import encode_texts
from fliplens.errors import EmbeddingSpaceError, EmbeddingSpaceWarning, FliplensError, InputError
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.lenses.lens import Lens
from fliplens.lenses.words import Word, Words
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig


def random_lens(V: int = 12, d: int = 5, r: int | None = 3, *, seed: int = 0, prior: bool = True) -> Lens:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32))

    E1 = draw(V, d if r is None else r)
    E2 = None if r is None else draw(r, d)
    mean, part = draw(d), draw(V)
    shift = E1 @ mean if E2 is None else E1 @ (E2 @ mean)
    return Lens(
        Factors(E1, E2, part - shift),
        Vocabulary(tuple(f"wört{i}" for i in range(V)), Tokeniser()),
        prior=part if prior else None,
        mean=mean if prior else None,
    )


def card_snippet(folder: Path, embedding: torch.Tensor, topn: int) -> tuple[list[str], list[float]]:
    """Score as the model card of the published lens tells its readers to."""
    tensors = load_file(folder / "model.safetensors")
    index_of = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    word_at = {index: word for word, index in index_of.items()}
    matrix = tensors["E"] if "E" in tensors else tensors["E1"] @ tensors["E2"]
    scores = (matrix @ embedding.unsqueeze(-1)).squeeze(-1) + tensors["b"].squeeze(-1)
    best = scores.topk(topn)
    return [word_at[i] for i in best.indices.tolist()], best.values.tolist()


@pytest.mark.parametrize("rank", [None, 3, 5])
def test_the_cards_snippet_gives_our_words_and_scores(tmp_path: Path, rank: int | None) -> None:
    lens = random_lens(r=rank)
    lens.save(tmp_path / "lens")
    vector = torch.randn(5, generator=torch.Generator().manual_seed(3))
    words, scores = card_snippet(tmp_path / "lens", vector, 7)
    for one in (lens, Lens.load(tmp_path / "lens")):
        ours = one.words(vector, n=7)
        assert [word.word for word in ours] == words
        assert [word.score for word in ours] == pytest.approx(scores, rel=1e-5)


@given(dial=st.floats(0, 1), seed=st.integers(0, 100))
def test_scores_follow_the_formula_at_every_position_of_the_dial(dial: float, seed: int) -> None:
    lens = random_lens(seed=seed)
    s = np.random.default_rng(seed + 1).standard_normal((4, 5)).astype(np.float32)
    assert lens.prior is not None and lens.mean is not None and lens.factors.E2 is not None
    W = lens.factors.E1.double().numpy() @ lens.factors.E2.double().numpy()
    expected = s @ W.T - W @ lens.mean.double().numpy() + dial * lens.prior.double().numpy()
    np.testing.assert_allclose(lens.scores(s, prior=dial), expected, rtol=1e-3, atol=1e-4)


def test_a_lens_without_a_stored_prior_scales_its_whole_bias() -> None:
    lens = random_lens(prior=False)
    torch.testing.assert_close(lens.bias(0.0), torch.zeros(12))
    torch.testing.assert_close(lens.bias(0.25), 0.25 * lens.factors.b)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="prior from 0 to 1"):
            lens.bias(bad)


def test_top_words_are_the_best_with_their_probabilities() -> None:
    lens = random_lens(V=50)
    s = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    scores = lens.scores(s, prior=0.5).astype(np.float64)
    top = lens.top(s, 6, prior=0.5)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert len(top) == 20
    for row in range(20):
        best = brute_force_top(scores[row], 6)
        assert top.indices[row].tolist() == best
        np.testing.assert_allclose(top.probabilities[row], shares[row][best], rtol=1e-4)
        assert [word.word for word in top[row]] == [lens.vocabulary[i] for i in best]
    assert len(top[3:5]) == 2 and top[3:5][0] == top[3]
    assert [str(words) for words in top][2] == str(top[2])


def test_words_without_probabilities_say_so() -> None:
    lens = random_lens(V=50)
    s = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    full, bare = lens.top(s, 6, prior=0.5), lens.top(s, 6, prior=0.5, probabilities=False)
    np.testing.assert_array_equal(bare.indices, full.indices)
    np.testing.assert_array_equal(bare.scores, full.scores)
    assert np.isnan(bare.probabilities).all()
    assert bare[0].to_json()[0] == {"word": full[0][0].word, "score": full[0][0].score, "probability": None}
    shown = bare[0]._repr_html_()
    assert "nan" not in shown and full[0][0].word in shown and shown.count("<td") == 24


def test_blocks_are_the_whole_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fliplens.lenses.extractor, "BLOCK_ROWS", 7)
    lens = random_lens(V=50)
    s = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    whole = lens.top(s, 4)
    for bad in ([], [3], [7, 8, 9, 10, 11, 12, 13]):
        spoilt = s.copy()
        spoilt[bad, 2] = np.inf
        good = np.setdiff1d(np.arange(20), bad)
        blocks = list(lens.top_blocks(spoilt, 4, drop_bad_rows=True))
        assert np.concatenate([rows for rows, _ in blocks]).tolist() == good.tolist()
        for name in ("indices", "scores", "probabilities"):
            found = np.concatenate([getattr(top, name) for _, top in blocks])
            # Only the normaliser may differ in its last bits.
            tolerance = 1e-5 if name == "probabilities" else 0
            np.testing.assert_allclose(found, getattr(whole, name)[good], rtol=tolerance, atol=0)
        if bad:
            with pytest.raises(InputError, match=f"counted from 0: {bad[0]}"):
                list(lens.top_blocks(spoilt, 4))
    # What is wrong with the call is said at once, not when the first block is asked for.
    with pytest.raises(InputError, match="n from 1 to 50"):
        lens.top_blocks(s, 51)
    with pytest.raises(InputError, match="prior from 0 to 1"):
        lens.top_blocks(s, 5, prior=2.0)


def test_factors_changed_in_place_are_read_as_they_are() -> None:
    lens = random_lens(V=50)
    s = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    before = lens.top(s, 3)
    lens.factors.E1.mul_(-1)
    after = lens.top(s, 3)
    assert not np.array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(after.indices, [brute_force_top(row, 3) for row in lens.scores(s).astype(float)])


def test_reading_folds_the_factors_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = random_lens(V=30, d=5, r=5)
    s = np.random.default_rng(1).standard_normal((40, 5)).astype(np.float32)
    assert lens._reader(40, True).folded and not lens._reader(20, True).folded
    folded = lens.top(s, 4)
    monkeypatch.setattr(fliplens.lenses.lens, "folding_pays", lambda *_: False)
    apart = lens.top(s, 4)
    np.testing.assert_array_equal(folded.indices, apart.indices)
    np.testing.assert_array_equal(folded.scores, apart.scores)
    np.testing.assert_allclose(folded.probabilities, apart.probabilities, rtol=1e-5)


def test_what_does_not_fit_the_lens_is_refused() -> None:
    lens = random_lens()
    with pytest.raises(InputError, match="entries of prior"):
        Lens(lens.factors, lens.vocabulary, prior=torch.ones(12, 1))
    good = np.zeros((2, 5), dtype=np.float32)
    with pytest.raises(EmbeddingSpaceError, match=r"5 dimensions .* found 4"):
        lens.top(good[:, :4], 3)
    no_numbers: tuple[Any, ...] = (0, 13, 2.0, np.float64(3), True, np.True_, "3", [3])
    for n in no_numbers:
        with pytest.raises(InputError, match="n from 1 to 12"):
            lens.top(good, n)
        with pytest.raises(InputError, match="n from 1 to 12"):
            lens.top_blocks(good, n)
    priors: tuple[Any, ...] = ("1", None, True, [1.0], 1.5, -0.1, float("nan"))
    for prior in priors:
        for read in (lens.top, lens.scores):
            with pytest.raises(InputError, match="prior from 0 to 1"):
                read(good, prior=prior)
    with pytest.raises(InputError, match="one vector"):
        lens.words(good)
    with pytest.raises(InputError, match="one vector"):
        lens.words(np.zeros((1, 1, 5), dtype=np.float32))
    with pytest.raises(InputError, match="rows .counted from 0: 1"):
        lens.top(np.array([[0.0] * 5, [np.nan] * 5], dtype=np.float32), 3)


def test_numbers_of_numpy_are_numbers() -> None:
    lens = random_lens()
    vectors = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = lens.top(vectors, 3, prior=0.5)
    numbers: list[tuple[Any, Any]] = [(np.int64(3), np.float32(0.5)), (np.uint8(3), np.float64(0.5))]
    for n, prior in numbers:
        found = lens.top(vectors, n, prior=prior)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert len(lens.words(vectors[0], n=n)) == 3


def test_lists_are_vectors_and_texts_are_not() -> None:
    lens = random_lens()
    vector = [0.5, -1.0, 2.0, 0.0, 1.0]
    assert lens.words(vector, n=3) == lens.words(np.array(vector, np.float32), n=3)
    assert len(lens.words(vector)) == 10
    assert len(random_lens(V=4).words(vector)) == 4  # the default follows a small vocabulary
    with pytest.raises(InputError, match="encode it first"):
        lens.words("some text")  # type: ignore[arg-type]
    shown = lens.top(np.ones((30, 5), dtype=np.float32), 2)._repr_html_()
    assert shown.count("<tr>") == 22 and "and 10 more" in shown


def test_words_show_as_an_escaped_table_in_a_notebook() -> None:
    words = Words((Word("<script>alert(1)</script>", 2.0, 0.5), Word("b&b", 1.0, 0.25)))
    shown = words._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "b&amp;b" in shown
    assert "width:100.0%" in shown and "width:50.0%" in shown
    assert Words(())._repr_html_().startswith("<table>")
    assert words.to_json()[1] == {"word": "b&b", "score": 1.0, "probability": 0.25}


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 3])
def test_a_saved_lens_comes_back_whole(tmp_path: Path, rank: int | None) -> None:
    texts, vectors = toy_corpus(300)
    lens = fit(
        texts, vectors, encoder=ToyEncoder(), config=TrainConfig(rank="full" if rank is None else rank, passes=2)
    )
    lens.save(tmp_path / "lens")
    back = Lens.load(tmp_path / "lens")
    np.testing.assert_array_equal(back.scores(vectors, prior=0.3), lens.scores(vectors, prior=0.3))
    assert back.vocabulary == lens.vocabulary
    assert (back.rank, back.dim, back.encoder) == (rank, 16, "toy")
    assert back.config["training"] == lens.config["training"]
    assert back.fingerprint is not None and lens.fingerprint is not None
    np.testing.assert_array_equal(back.fingerprint.variance, lens.fingerprint.variance)
    # Published code loads the state dict strictly: these tensors, this layout, no others.
    tensors = load_file(tmp_path / "lens" / "model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == (
        {"E": (30, 16), "b": (30, 1)} if rank is None else {"E1": (30, 3), "E2": (3, 16), "b": (30, 1)}
    )
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    with pytest.raises(InputError, match="another run"):
        lens.save(tmp_path / "lens")
    lens.save(tmp_path / "lens", overwrite=True)
    (tmp_path / "lens" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        lens.save(tmp_path / "lens", overwrite=True)


def published_folder(folder: Path, *, prefix: str = "", name: str = "model.safetensors") -> Lens:
    """Write what the published code leaves: a state dict, a vocabulary, hyperparameters of its own."""
    lens = random_lens(prior=False)
    assert lens.factors.E2 is not None
    state = {"E1": lens.factors.E1, "E2": lens.factors.E2, "b": lens.factors.b[:, None].clone()}
    state = {prefix + key: tensor for key, tensor in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".pt"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / name)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(lens.vocabulary.words)}))
    (folder / "config.json").write_text(json.dumps({"rank": 3, "alpha": 0.5, "l1": 1e-4}))
    return lens


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors", "best.pt"])
def test_published_files_load(tmp_path: Path, prefix: str, name: str) -> None:
    expected = published_folder(tmp_path / "rank-3", prefix=prefix, name=name)
    source = tmp_path / "rank-3" if name == "model.safetensors" else tmp_path / "rank-3" / name
    lens = Lens.load(source)
    s = np.ones((1, 5), dtype=np.float32)
    np.testing.assert_allclose(lens.scores(s), expected.scores(s), rtol=1e-6)
    assert lens.prior is None and lens.encoder is None
    assert lens.vocabulary.tokeniser.mode == "published"


def test_the_vocabulary_is_looked_for_beside_then_above(tmp_path: Path) -> None:
    published_folder(tmp_path / "exp" / "checkpoints")
    vocabulary = tmp_path / "exp" / "checkpoints" / "vocab.json"
    vocabulary.rename(tmp_path / "exp" / "vocab.json")
    path = tmp_path / "exp" / "checkpoints" / "model.safetensors"
    assert len(Lens.load(path).vocabulary) == 12
    (tmp_path / "exp" / "vocab.json").rename(tmp_path / "words.json")
    with pytest.raises(InputError, match="--vocab"):
        Lens.load(path)
    assert len(Lens.load(path, vocabulary=tmp_path / "words.json").vocabulary) == 12


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    published_folder(tmp_path / "l", name="best.pt")
    torch.save({"E1": Bomb()}, tmp_path / "l" / "best.pt")
    with pytest.raises(InputError, match="state dict of tensors alone"):
        Lens.load(tmp_path / "l" / "best.pt")
    assert not (tmp_path / "exploded").exists()
    torch.save([torch.ones(1)], tmp_path / "l" / "best.pt")
    with pytest.raises(InputError, match="found something else"):
        Lens.load(tmp_path / "l" / "best.pt")


def test_damaged_or_foreign_lens_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lens"
    lens = random_lens()

    def fresh() -> None:
        lens.save(folder, overwrite=True)

    fresh()
    model = (folder / "model.safetensors").read_bytes()
    for content in (b"", model[:20], model[:-8], b"x" * 64):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors"):
            Lens.load(folder)
    fresh()
    (folder / "lens.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"lens\.safetensors"):
        Lens.load(folder)
    cases: list[tuple[str, Any, str]] = [
        ("vocab.json", {"a": 0, "b": 1}, "different lenses"),
        ("vocab.json", ["a", "b"], r"vocab\.json"),
        ("config.json", {"format_version": 3}, "newer FLiPLens"),
        ("config.json", [], "JSON object"),
        ("config.json", {"ngram_range": "1"}, "ngram_range"),
        ("config.json", {"spans": "shortest"}, r"spans as all or longest in .*config\.json, found 'shortest'"),
        ("config.json", {"spans": ["longest"]}, "spans"),
        ("config.json", {"tokeniser": {"mode": "magic"}}, "mode"),
    ]
    for name, value, message in cases:
        fresh()
        (folder / name).write_text(json.dumps(value))
        with pytest.raises(InputError, match=message):
            Lens.load(folder)
    fresh()
    tensors = load_file(folder / "model.safetensors")
    wrong: list[tuple[dict[str, torch.Tensor], str]] = [
        ({**tensors, "extra": torch.ones(1)}, "extra"),
        ({"E1": tensors["E1"], "b": tensors["b"]}, "E1, E2, b"),
        ({**tensors, "E2": torch.ones(4, 5)}, "columns of E1"),
        ({**tensors, "b": torch.ones(11, 1)}, "entries of b"),
        ({**tensors, "E1": torch.full((12, 3), float("nan"))}, "finite"),
        ({**tensors, "E1": torch.ones(12, 3, dtype=torch.int64)}, "floating-point"),
        ({**tensors, "E1": torch.ones(12)}, "matrices"),
    ]
    for state, message in wrong:
        save_file(state, folder / "model.safetensors")
        with pytest.raises(InputError, match=message):
            Lens.load(folder)
    with pytest.raises(InputError, match="found nothing"):
        Lens.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is this a lens folder"):
        Lens.load(tmp_path / "empty")


# The Hub, played by a server on loopback ----------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers the real client of the Hub from a folder."""

    root: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        _, _, rest = self.path.lstrip("/").partition("/resolve/")
        _, _, name = rest.partition("/")
        file = self.root / name
        if not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as file_download

    root = tmp_path / "hub"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"root": root}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(
            file_download, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
    yield root
    server.shutdown()
    server.server_close()


def test_a_lens_loads_from_the_hub_by_its_subfolder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    expected = published_folder(hub / "mcv15" / "rank-3")
    lens = Lens.load("hub:OWNER/REPO/mcv15/rank-3")
    s = np.ones((1, 5), dtype=np.float32)
    np.testing.assert_allclose(lens.scores(s), expected.scores(s), rtol=1e-6)
    with pytest.raises(InputError, match=r"model\.safetensors in hub:OWNER/REPO"):
        Lens.load("hub:OWNER/REPO/absent")
    # What was fetched once is there without a connection.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_allclose(Lens.load("hub:OWNER/REPO/mcv15/rank-3").scores(s), expected.scores(s), rtol=1e-6)


def test_a_vocabulary_of_the_hub_may_lie_one_up(hub: Path) -> None:
    published_folder(hub / "mcv15" / "rank-3")
    (hub / "mcv15" / "rank-3" / "vocab.json").rename(hub / "mcv15" / "vocab.json")
    assert len(Lens.load("hub:OWNER/REPO/mcv15/rank-3").vocabulary) == 12


@pytest.mark.parametrize("source", ["hub:", "hub:REPO", "hub:OWNER//x", "hub:OWNER/REPO/../x"])
def test_a_hub_address_must_be_one(source: str) -> None:
    with pytest.raises(InputError, match="OWNER/REPO"):
        Lens.load(source)


def test_no_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FliplensError, match="could not reach the Hub") as caught:
        Lens.load("hub:OWNER/REPO/x")
    assert caught.value.exit_status == 1


# Vectors of another encoder ------------------------------------------------------------------------------------


def test_vectors_of_another_space_are_noticed_and_of_another_text_are_not() -> None:
    # A space with a mean and a pattern of variances of its own, as real encoders have.
    random = np.random.default_rng(0)
    scale, mean = np.exp(random.standard_normal(64)), random.standard_normal(64)
    made = (random.standard_normal((500, 64)) * scale + mean).astype(np.float32)
    fingerprint = Fingerprint.of(Embeddings([made]))
    other_text = (random.standard_normal((300, 64)) * scale * 1.2 + 1.5 * mean + 0.3).astype(np.float32)
    assert fingerprint.difference(Embeddings([other_text])) is None
    assert fingerprint.difference(Embeddings([made[:3]])) is None
    rotation = np.linalg.qr(random.standard_normal((64, 64)))[0].astype(np.float32)
    assert "variances" in str(fingerprint.difference(Embeddings([made @ rotation])))
    assert "mean length" in str(fingerprint.difference(Embeddings([made * 5])))
    assert "mean length" in str(fingerprint.difference(Embeddings([made[:1] * 0.01])))
    standardised = random.standard_normal((500, 64)).astype(np.float32)
    same = random.standard_normal((500, 64)).astype(np.float32)
    assert Fingerprint.of(Embeddings([standardised])).difference(Embeddings([same])) is None
    # Bad rows, which a reader of files meets only later, are no evidence.
    spoilt = other_text.copy()
    spoilt[::3, 1] = np.nan
    assert fingerprint.difference(Embeddings([spoilt])) is None
    assert fingerprint.difference(Embeddings([np.full_like(spoilt, np.inf)])) is None
    assert "mean length" in str(fingerprint.difference(Embeddings([spoilt * 5])))


def test_the_fingerprint_is_the_statistics_of_all_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((9000, 3)).astype(np.float32) + 100
    one = Fingerprint.of(Embeddings([rows]))
    np.testing.assert_allclose(one.mean, rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(one.variance, rows.astype(np.float64).var(axis=0), rtol=1e-4)
    assert one.mean_norm == pytest.approx(np.linalg.norm(rows, axis=1).mean())


def test_a_manifest_of_another_encoder_warns(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(300)
    lens = fit(texts, vectors, encoder=ToyEncoder(), config=TrainConfig(passes=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.top(encode_texts(toy_texts(5), ToyEncoder(), tmp_path / "a.npy"), 3)
    stranger = ToyEncoder()
    stranger.spec = "stranger"
    with pytest.warns(EmbeddingSpaceWarning, match="made by stranger"):
        lens.top(encode_texts(toy_texts(5), stranger, tmp_path / "b.npy"), 3)
