"""Encoders that are services: the real clients against a server of ours on the loopback, which is not always well."""

from __future__ import annotations

import contextlib
import email.utils
import logging
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import assert_one_line, call, command, environment, start
from hypothesis import given, settings
from hypothesis import strategies as st

from fliplens.embeddings import open_embeddings
from fliplens.encoders import BatchEncoder, canonical_spec, load_encoder
from fliplens.encoders.registry import parse_spec
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError
from fliplens.files import write_lines
from fliplens.services.budget import Budget, Ledger
from fliplens.services.calls import CallError, CallSettings, Key, checked_url, repeated, seconds_told
from fliplens.services.vector_cache import Kept, VectorCache, cache_folder, text_key

pytest.importorskip("google.genai")
pytest.importorskip("openai")

from loopback import (
    DIM,
    KEY,
    OWN_DIM,
    Answer,
    EmbeddingServer,
    Request,
    body,
    changed,
    cut,
    cut_within,
    expected_vectors,
    raw_vector,
    reply,
    services,
    slow,
    status,
    well,
)

from fliplens.encoders import openai as openai_adapter
from fliplens.encoders import service as service_module
from fliplens.encoders import service_calls
from fliplens.encoders.gemini import TASKS
from fliplens.encoders.service import ServiceEncoder
from fliplens.encoders.service_calls import Usage

TEXTS = ["The cat sat.", "A dog!", "", "日本 and Köln", "The cat sat.", "two\nlines", "  ", "x"]
SENT = ["The cat sat.", "A dog!", ".", "日本 and Köln", "two\nlines", "x"]
"""Each once, and one full stop for what is blank."""

GEMINI = f"gemini:gemini-embedding-001#dim={DIM},task=SEMANTIC_SIMILARITY"
GEMINI_2 = f"gemini:gemini-embedding-2#dim={DIM},task=SEMANTIC_SIMILARITY"
OPENAI = f"openai:some/model:v1#dim={DIM}"
BOTH = pytest.mark.parametrize("spec", [GEMINI, OPENAI])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running, services(running, tmp_path / "cache"):
        yield running


def loaded(spec: str, **options: Any) -> ServiceEncoder:
    encoder = load_encoder(spec, **options)
    assert isinstance(encoder, ServiceEncoder)
    return encoder


def numbered(n: int) -> list[str]:
    return [f"sentence number {i}" for i in range(n)]


# --- what is sent and what comes back --------------------------------------------------------------------------


@BOTH
def test_vectors_come_back_in_order_and_every_text_is_sent_once(server: EmbeddingServer, spec: str) -> None:
    encoder = loaded(spec)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(vectors, expected_vectors(TEXTS, DIM), atol=1e-7)
    assert [request.texts for request in server.requests] == [SENT]
    assert encoder.usage == Usage(calls=1, texts=len(SENT), characters=sum(map(len, SENT)))
    assert encoder.dim == DIM and encoder.normalised and isinstance(encoder, BatchEncoder)
    np.testing.assert_array_equal(encoder.encode(TEXTS[::-1]), vectors[::-1])
    np.testing.assert_array_equal(loaded(spec).encode(TEXTS), vectors)
    assert sorted(server.texts) == sorted(SENT)
    assert (encoder.spec, encoder.revision, encoder.language, encoder.modality) == (spec, None, None, "text")
    assert encoder.encode([]).shape == (0, DIM)


def test_what_google_is_asked(server: EmbeddingServer) -> None:
    loaded("gemini").encode(numbered(230))
    assert sorted(len(request.texts) for request in server.requests) == [30, 100, 100]
    for request in server.requests:
        assert request.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
        assert request.key == KEY and request.dim == 768
        assert {one["taskType"] for one in request.body["requests"]} == {"SEMANTIC_SIMILARITY"}
        assert all(len(parts) == 1 for parts in request.parts)


@pytest.mark.parametrize("task", TASKS)
def test_later_models_get_a_content_a_text_and_read_their_task(server: EmbeddingServer, task: str) -> None:
    spec = f"gemini:gemini-embedding-2#dim={DIM},task={task}"
    vectors = loaded(spec).encode(["one", "two"])
    (request,) = server.requests
    before = TASKS[task]
    assert request.texts == [f"{before}one", f"{before}two"]
    assert all("taskType" not in one for one in request.body["requests"])
    np.testing.assert_allclose(vectors, expected_vectors(request.texts, DIM), atol=1e-7)


def test_what_openai_is_asked(server: EmbeddingServer) -> None:
    encoder = loaded(OPENAI, batch_size=3)
    encoder.encode(numbered(7))
    for request in server.requests:
        assert request.path == "/v1/embeddings" and request.key == f"Bearer {KEY}"
        assert request.body["model"] == "some/model:v1"
        assert request.body["encoding_format"] == "float" and request.body["dimensions"] == DIM
    assert sorted(len(request.texts) for request in server.requests) == [1, 3, 3]


def test_a_models_own_size_is_asked_for_once_by_one_character(server: EmbeddingServer) -> None:
    encoder = loaded("openai:m")
    assert (encoder.dim, encoder.normalised) == (OWN_DIM, True)
    assert (encoder.dim, encoder.normalised) == (OWN_DIM, True)
    assert loaded("openai:m").dim == OWN_DIM
    assert server.texts == ["."] and "dimensions" not in server.requests[0].body
    encoder.encode(["", "a"])
    assert server.texts == [".", "a"]


def test_a_model_whose_vectors_have_any_length_is_not_called_normalised(server: EmbeddingServer) -> None:
    server.always = changed(lambda vectors: [[3 * x for x in vector] for vector in vectors])
    encoder = loaded("openai:m")
    assert not encoder.normalised
    np.testing.assert_allclose(encoder.encode(["a"]), 3 * expected_vectors(["a"], OWN_DIM), atol=1e-6)


@BOTH
def test_calls_run_at_once_but_no_more_than_allowed(
    server: EmbeddingServer, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_API_CALLS", "3")
    chance = random.Random(1)  # noqa: S311 - of a test
    together = threading.Barrier(3, timeout=20)

    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        if request.texts[0].endswith((" 0", " 2", " 4")):
            together.wait()
        time.sleep(chance.uniform(0, 0.02))
        well(handler, request)

    server.always = answer
    texts = numbered(40)
    vectors = loaded(spec, batch_size=2).encode(texts)
    np.testing.assert_allclose(vectors, expected_vectors(texts, DIM), atol=1e-7)
    assert server.most_at_once == 3 and len(server.requests) == 20


def test_a_call_has_a_bounded_number_of_characters(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_calls, "CHARACTERS_A_CALL", 50)
    texts = [str(i) * 20 for i in range(5)]
    loaded(OPENAI).encode(texts)
    assert sorted(len(request.texts) for request in server.requests) == [1, 2, 2]


def test_windows_do_not_show(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "WINDOW", 3)
    encoder = loaded(GEMINI)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected_vectors(TEXTS, DIM), atol=1e-7)
    assert sorted(server.texts) == sorted(SENT)
    batches = list(encoder.batches(TEXTS))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(TEXTS)))


# --- trouble ---------------------------------------------------------------------------------------------------

AWAY: dict[str, Answer] = {
    "429": status(429, "slow down"),
    "429 and a time": status(429, "slow down", Retry_After="0.05"),
    "408": status(408),
    "500": status(500),
    "502": lambda handler, _: reply(handler, 502, b"<html>bad gateway</html>"),
    "503": status(503, Retry_After="nonsense"),
    "504": status(504),
    "cut": cut,
    "cut within": cut_within,
    "not JSON": body(b"<html>hello</html>"),
    "too few": changed(lambda vectors: vectors[:-1]),
    "too many": changed(lambda vectors: [*vectors, vectors[0]]),
    "none": changed(lambda vectors: []),
    "NaN": changed(lambda vectors: [[float("nan"), *vectors[0][1:]], *vectors[1:]]),
    "infinite": changed(lambda vectors: [*vectors[:-1], [float("inf"), *vectors[0][1:]]]),
    "beyond float32": changed(lambda vectors: [[1e39, *vectors[0][1:]], *vectors[1:]]),
    "an empty vector": changed(lambda vectors: [[], *vectors[1:]]),
    "words": changed(lambda vectors: [["one"], *vectors[1:]]),
    "another object": body({"hello": "there"}),
    "a list": body([1, 2]),
}


@BOTH
@pytest.mark.parametrize("trouble", AWAY.values(), ids=AWAY)
def test_what_may_go_away_is_asked_again(server: EmbeddingServer, spec: str, trouble: Answer) -> None:
    server.script = [trouble, trouble]
    np.testing.assert_allclose(loaded(spec).encode(TEXTS), expected_vectors(TEXTS, DIM), atol=1e-7)
    assert [request.texts for request in server.requests] == [SENT] * 3


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [{"index": 0, "embedding": [1.0] * DIM}, {"index": 0, "embedding": [1.0] * DIM}]},
        {"data": [{"index": 1, "embedding": [1.0] * DIM}, {"index": 2, "embedding": [1.0] * DIM}]},
        {"data": [{"index": "0", "embedding": [1.0] * DIM}, {"index": 1, "embedding": [1.0] * DIM}]},
        {"data": [{"index": 0}, {"index": 1}]},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": ["what", "ever"]},
        {"data": [{"index": i, "embedding": [[1.0] * DIM]} for i in range(2)]},
    ],
    ids=range(7),
)
def test_odd_answers_of_compatible_servers_are_one_line(server: EmbeddingServer, answer: Any) -> None:
    server.always = body(answer)
    with pytest.raises(FliplensError, match=r"^expected vectors from openai:some/model:v1#dim=16, found [^\n]*$"):
        loaded(OPENAI).encode(["a", "b"])
    assert len(server.requests) == 3


LASTING: dict[str, tuple[Answer, int, str]] = {
    "429": (status(429, "quota\nfor today"), 5, r"status 429 \(quota for today\): wait, then run the same command"),
    "500": (status(500, "x" * 5000), 5, "status 500"),
    "cut": (cut, 5, "could not reach .*: check the connection"),
    "cut within": (cut_within, 5, "could not reach "),
    "not JSON": (body(b"hello"), 5, "something else than the API's JSON"),
    "too few": (changed(lambda vectors: vectors[:-1]), 3, "found 5 vectors for 6 texts: run"),
    "NaN": (changed(lambda vectors: [[float("nan")] * DIM] * 6), 3, "found NaN or infinite values in a vector"),
    "size": (changed(lambda v: [[1.0] * 9] * 6), 1, "found vectors of 9 dimensions instead of 16"),
    "400": (status(400, f"bad thing in {KEY}"), 1, r"status 400 \(bad thing in \*\*\*\)"),
    "418": (status(418), 1, "status 418"),
    "a long wait": (status(429, "tomorrow", Retry_After="4000"), 1, r"status 429 \(tomorrow\): wait 4000 s, then"),
}


@BOTH
@pytest.mark.parametrize(("trouble", "calls", "message"), LASTING.values(), ids=LASTING)
def test_what_does_not_go_away_is_one_line(
    server: EmbeddingServer, spec: str, trouble: Answer, calls: int, message: str
) -> None:
    server.always = trouble
    with pytest.raises(FliplensError, match=message) as error:
        loaded(spec).encode(TEXTS)
    assert len(server.requests) == calls
    said = str(error.value)
    assert "\n" not in said and len(said) < 500
    assert said.endswith("what was answered before is kept")


def test_zeros_cannot_be_brought_to_unit_length(server: EmbeddingServer) -> None:
    server.always = changed(lambda vectors: [[0.0] * DIM] * len(vectors))
    with pytest.raises(FliplensError, match="found a vector of zeros"):
        loaded(GEMINI).encode(TEXTS)


@pytest.mark.parametrize(
    ("spec", "trouble", "message"),
    [
        (GEMINI, status(400, "API key not valid. Please pass a valid API key."), "GEMINI_API_KEY was refused"),
        (GEMINI, status(401), "the key in GOOGLE_API_KEY or GEMINI_API_KEY was refused"),
        (GEMINI, status(403, "denied"), r"was refused \(denied\): check it"),
        (GEMINI, status(404, "is not found"), "expected a model gemini-embedding-001 at the Gemini API, found none"),
        (OPENAI, status(401, "Incorrect API key provided"), r"the key in OPENAI_API_KEY was refused \(Incorrect"),
        (OPENAI, status(403), "the key in OPENAI_API_KEY was refused"),
        (OPENAI, status(404, "no such"), r"expected a model some/model:v1 at http://127.0.0.1:\d+/v1, found none"),
    ],
)
def test_a_wrong_key_or_model_is_the_callers_fault(
    server: EmbeddingServer, spec: str, trouble: Answer, message: str
) -> None:
    server.always = trouble
    with pytest.raises(InputError, match=message):
        loaded(spec).encode(TEXTS)
    assert len(server.requests) == 1


def test_a_quota_that_is_used_up_is_not_waited_for(server: EmbeddingServer) -> None:
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    server.always = lambda handler, _: reply(handler, 429, error)
    with pytest.raises(FliplensError, match="status 429 .You exceeded your current quota"):
        loaded(OPENAI).encode(TEXTS)
    assert len(server.requests) == 1


@BOTH
def test_as_long_as_the_server_asks_for(server: EmbeddingServer, spec: str) -> None:
    server.script = [status(429, Retry_After="0.4")]
    begun = time.monotonic()
    loaded(spec).encode(["a"])
    assert 0.4 <= time.monotonic() - begun < 5


def test_google_also_says_how_long_in_its_answer(server: EmbeddingServer) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.4s"}]
    error = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    server.script = [lambda handler, _: reply(handler, 429, error)]
    begun = time.monotonic()
    loaded(GEMINI).encode(["a"])
    assert 0.4 <= time.monotonic() - begun < 5


@BOTH
def test_a_server_that_does_not_answer_in_time_or_is_not_there(
    server: EmbeddingServer, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_API_TIMEOUT", "0.2")
    monkeypatch.setenv("FLIPLENS_API_ATTEMPTS", "2")
    server.script = [slow(1.0)]
    np.testing.assert_allclose(loaded(spec).encode(["a"]), expected_vectors(["a"], DIM), atol=1e-7)
    server.always = slow(1.0)
    with pytest.raises(FliplensError, match="could not reach .* check the connection"):
        loaded(spec).encode(["b"])
    assert len(server.requests) == 4
    for name in ("GOOGLE_GEMINI_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
    with pytest.raises(FliplensError, match="could not reach"):
        loaded(spec).encode(["b"])


@BOTH
def test_one_call_that_fails_loses_none_of_the_others(server: EmbeddingServer, spec: str) -> None:
    server.always = lambda handler, request: (
        status(400, "no")(handler, request) if "sentence number 5" in request.texts else well(handler, request)
    )
    with pytest.raises(FliplensError, match="status 400"):
        loaded(spec, batch_size=1).encode(numbered(8))
    answered = [text for text in server.texts if text != "sentence number 5"]
    assert len(answered) >= 5
    server.always = well
    loaded(spec).encode(numbered(8))
    assert sorted(server.texts) == sorted([*numbered(8), "sentence number 5"])


@given(
    st.lists(st.sampled_from([None, 0.0, 0.5, 7.0, 299.0]), max_size=8),
    st.integers(1, 6),
    st.floats(0.01, 10),
    st.floats(0.1, 20),
)
def test_delays_grow_keep_their_bounds_and_heed_the_server(
    told: list[float | None], attempts: int, initial: float, longest: float
) -> None:
    patience = CallSettings(attempts=attempts, initial_delay=initial, max_delay=longest)
    left, delays = list(told), []

    def ask() -> str:
        if left:
            raise CallError("not now", status=429, after=left.pop(0), repeats=None)
        return "done"

    if len(told) < attempts:
        assert repeated(ask, patience, wait=lambda delay: delays.append(delay)) == "done"
    else:
        with pytest.raises(CallError, match="not now"):
            repeated(ask, patience, wait=lambda delay: delays.append(delay))
    assert len(delays) == min(len(told), attempts - 1)
    for number, delay in enumerate(delays):
        own = min(longest, initial * 2**number)
        asked = told[number] or 0.0
        assert delay >= asked and delay >= 0.5 * min(own, delay)
        assert 0.5 * own <= delay <= own or asked <= delay <= asked + 0.1 * own


def test_waiting_ends_when_it_is_told_to() -> None:
    def ask() -> None:
        raise CallError("not now", status=503, repeats=None)

    stop = threading.Event()
    stop.set()
    begun = time.monotonic()
    with pytest.raises(CallError):
        repeated(ask, CallSettings(initial_delay=60), wait=stop.wait)
    assert time.monotonic() - begun < 5


def test_retry_after_holds_seconds_or_a_date() -> None:
    assert seconds_told("7") == 7 and seconds_told("0.5") == 0.5 and seconds_told("-3") == 0
    assert seconds_told(None) is None and seconds_told("soon") is None and seconds_told("inf") is None
    found = seconds_told(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert found is not None and 55 < found <= 60
    assert seconds_told(email.utils.formatdate(0, usegmt=True)) == 0


# --- texts that are too long, calls that are too large ---------------------------------------------------------


def limited(limit: int, message: str, code: int = 400) -> Answer:
    """A server that reads no more than `limit` words and refuses a call that holds a longer text."""

    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        most = max(len(text.split()) for text in request.texts)
        if most > limit:
            status(code, message.format(limit=limit, most=most))(handler, request)
        else:
            well(handler, request)

    return answer


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "This model's maximum context length is {limit} tokens, however you requested {most} tokens"),
        (413, "Input validation error: `inputs` must have less than {limit} tokens. Given: {most}"),
        (413, "no numbers here"),
        (400, "the input length exceeds the context length"),
    ],
)
def test_a_text_that_is_refused_as_too_long_is_read_from_its_start(
    server: EmbeddingServer, code: int, message: str
) -> None:
    server.always = limited(40, message, code)
    long = "word " * 300 + "end"
    texts = ["a", "b", long, "c", "d"]
    with pytest.warns(FliplensWarning, match="^1 of 5 texts are longer than some/model:v1 reads: only their start"):
        vectors = loaded(OPENAI).encode(texts)
    beginning = next(request.texts[0] for request in server.requests[::-1] if request.texts[0].startswith("word"))
    assert long.startswith(beginning) and 15 <= len(beginning.split()) <= 40
    np.testing.assert_allclose(vectors, expected_vectors(["a", "b", beginning, "c", "d"], DIM), atol=1e-7)
    before = len(server.requests)
    # Read from the cache, it is no less cut.
    with pytest.warns(FliplensWarning, match="^1 of 5 texts"):
        np.testing.assert_array_equal(loaded(OPENAI).encode(texts), vectors)
    assert len(server.requests) == before


def test_a_service_that_cuts_in_silence_is_told_by_the_number_of_characters(server: EmbeddingServer) -> None:
    with pytest.warns(FliplensWarning, match="^1 of 2 texts are longer than the 2048 tokens that gemini-embedding"):
        loaded(GEMINI).encode(["a", "word " * 2000])


def test_what_is_refused_whatever_its_length_names_the_text(server: EmbeddingServer) -> None:
    server.always = limited(0, "too many tokens")
    with pytest.raises(FliplensError, match=r"too many tokens, for the text of \d+ characters that starts with 'wo"):
        loaded(OPENAI).encode(["word " * 100])
    assert len(server.requests) < 15


def test_a_call_with_too_many_texts_is_halved(server: EmbeddingServer) -> None:
    server.always = lambda handler, request: (
        status(422, f"batch size {len(request.texts)} > maximum allowed batch size 8")(handler, request)
        if len(request.texts) > 8
        else well(handler, request)
    )
    texts = numbered(32)
    np.testing.assert_allclose(loaded(OPENAI).encode(texts), expected_vectors(texts, DIM), atol=1e-7)
    assert sorted(len(request.texts) for request in server.requests) == [8, 8, 8, 8, 16, 16, 32]


# --- the budget ------------------------------------------------------------------------------------------------


@BOTH
def test_the_budget_ends_before_the_call_that_would_exceed_it(server: EmbeddingServer, spec: str) -> None:
    texts = ["a" * 10 + str(i) for i in range(8)]
    service = loaded(spec)._service
    encoder = ServiceEncoder(
        service, budget=Budget(60, ledger=Ledger()), settings=CallSettings(at_once=1), batch_size=2
    )
    with pytest.raises(FliplensError, match="at most 60 characters .FLIPLENS_API_BUDGET., found 66 with the next"):
        encoder.encode(texts)
    assert len(server.texts) == 4 and encoder.usage == Usage(calls=2, texts=4, characters=44)
    again = ServiceEncoder(service, budget=Budget(44, ledger=Ledger()), batch_size=2)
    np.testing.assert_allclose(again.encode(texts), expected_vectors(texts, DIM), atol=1e-7)
    assert sorted(server.texts) == texts
    assert again.usage == Usage(calls=2, texts=4, characters=44, cached=4)


def test_what_was_refused_is_not_counted_and_what_may_have_been_read_is(server: EmbeddingServer) -> None:
    ledger = Ledger()
    server.script = [status(429), status(500), cut, changed(lambda vectors: [])]
    ServiceEncoder(
        loaded(OPENAI)._service, budget=Budget(None, ledger=ledger), settings=CallSettings(initial_delay=0.001)
    ).encode(["four"])
    assert len(server.requests) == 5 and ledger.characters == 3 * len("four")


def test_the_budget_counts_the_words_of_a_task(server: EmbeddingServer) -> None:
    ledger = Ledger()
    ServiceEncoder(loaded(GEMINI_2)._service, budget=Budget(None, ledger=ledger)).encode(["four", "more"])
    assert ledger.characters == sum(map(len, server.texts))


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 100))
def test_a_budget_is_never_exceeded(sizes: list[int], limit: int) -> None:
    ledger = Ledger()
    budget = Budget(limit, ledger=ledger)
    total = 0
    for size in sizes:
        if total + size > limit:
            with pytest.raises(FliplensError, match="FLIPLENS_API_BUDGET"):
                budget.reserve(size)
        else:
            budget.reserve(size)
            total += size
        assert ledger.characters == total


# --- the cache -------------------------------------------------------------------------------------------------


def test_what_makes_other_vectors_shares_nothing(server: EmbeddingServer) -> None:
    specs = [GEMINI, GEMINI_2, f"gemini#dim={DIM},task=CLUSTERING", "gemini#dim=8", OPENAI, "openai:b", "openai:c"]
    for spec in specs:
        loaded(spec).encode(["a"])
    assert sum("a" in text for text in server.texts) >= len(specs)
    before = len(server.requests)
    for spec in specs:
        loaded(spec).encode(["a"])
    assert len(server.requests) == before


def test_another_server_is_another_service(server: EmbeddingServer) -> None:
    loaded(OPENAI).encode(["a"])
    with EmbeddingServer() as other:
        loaded(f"{OPENAI},url={other.url}/v1/").encode(["a"])
        assert other.texts == ["a"] and server.texts == ["a"]


def test_a_model_that_changed_its_size_is_asked_again(server: EmbeddingServer, tmp_path: Path) -> None:
    encoder = loaded(OPENAI)
    encoder._cache.put([(text_key("a"), Kept(np.ones(3, dtype=np.float32), False))])
    np.testing.assert_allclose(encoder.encode(["a"]), expected_vectors(["a"], DIM), atol=1e-7)


def test_another_model_under_the_name_of_one_is_told(server: EmbeddingServer) -> None:
    loaded("openai:m").encode(["a"])
    server.always = changed(lambda vectors: [vector[:9] for vector in vectors])
    with pytest.raises(FliplensError, match=r"vectors of 9 dimensions instead of 24, as before .*, delete /.*m-"):
        loaded("openai:m").encode(["b"])


def test_a_cache_that_is_none_is_one_line(server: EmbeddingServer, tmp_path: Path) -> None:
    encoder = loaded(OPENAI)
    path = encoder._cache.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(FliplensError, match=r"expected to keep vectors in .*sqlite, could not .*: make room or del"):
        encoder.encode(["a"])
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE space (description TEXT PRIMARY KEY)")
        connection.execute("INSERT INTO space VALUES ('another')")
        connection.commit()
    with pytest.raises(FliplensError, match="it is of another model"):
        encoder.encode(["a"])
    assert server.texts == []
    for left in path.parent.iterdir():
        left.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")
    with pytest.raises(FliplensError, match="expected to keep vectors in"):
        encoder.encode(["a"])


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLIPLENS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("FLIPLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fliplens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fliplens"


@settings(max_examples=25)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 255), max_size=9))
def test_what_is_put_is_got(tmp_path_factory: pytest.TempPathFactory, items: dict[str, int]) -> None:
    cache = VectorCache(tmp_path_factory.mktemp("c"), {"model": "a/b: c"})
    put = {
        text_key(text): Kept(np.arange(3, dtype=np.float32) * number, number % 2 == 1)
        for text, number in items.items()
    }
    cache.put(put.items())
    cache.put([(key, Kept(np.zeros(3, dtype=np.float32), False)) for key in put])
    cache.close()
    got = VectorCache(cache.path.parents[1], {"model": "a/b: c"}).get([*put, b"absent"])
    assert got.keys() == put.keys()
    for key, kept in put.items():
        np.testing.assert_array_equal(got[key].vector, kept.vector)
        assert got[key].cut == kept.cut
    cache.close()


_WRITER = """
import sys
import numpy as np
from pathlib import Path
from fliplens.services.vector_cache import Kept, VectorCache, text_key
cache = VectorCache(Path(sys.argv[1]), {"model": "m"})
for round_ in range(40):
    keys = [text_key(f"{round_} {i}") for i in range(int(sys.argv[2]), 30)]
    cache.put([(key, Kept(np.full(4, round_, dtype=np.float32), False)) for key in keys])
    assert len(cache.get(keys)) == len(keys)
"""


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(command([tmp_path, first], script=_WRITER), env=environment(), stderr=subprocess.PIPE)
        for first in (0, 1, 2, 0)
    ]
    for process in running:
        _, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, b"")
    cache = VectorCache(tmp_path, {"model": "m"})
    for round_ in range(40):
        kept = cache.get([text_key(f"{round_} {i}") for i in range(30)]).values()
        assert len(kept) == 30 and all((one.vector == round_).all() for one in kept)
    cache.close()


_KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from fliplens.services.vector_cache import Kept, VectorCache, text_key
cache = VectorCache(Path(sys.argv[1]), {"model": "m"})
for round_ in range(10**6):
    cache.put([(text_key(f"{round_} {i}"), Kept(np.ones(100, dtype=np.float32), False)) for i in range(50)])
    os.write(1, b".")
"""


def test_what_was_put_outlives_a_kill_and_a_put_is_whole_or_absent(tmp_path: Path) -> None:
    process = subprocess.Popen(command([tmp_path], script=_KILLED), env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        done = sum(len(process.stdout.read(1)) for _ in range(60))
    finally:
        process.kill()
    done += len(process.stdout.read())
    process.stdout.close()
    process.wait()
    cache = VectorCache(tmp_path, {"model": "m"})
    found = [len(cache.get([text_key(f"{r} {i}") for i in range(50)])) for r in range(done + 3)]
    assert found[:done] == [50] * done
    assert set(found[done:]) <= {0, 50} and found[done + 1 :] == [0, 0]


def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, {"model": "m"})
    cache.put([(text_key("a"), Kept(np.ones(4, dtype=np.float32), False))])
    mine = cache._connection
    cache._process = -1
    assert len(cache.get([text_key("a")])) == 1
    assert cache._connection is not mine
    cache.close()


def test_answers_under_way_are_kept_when_the_caller_leaves(server: EmbeddingServer) -> None:
    server.always = slow(0.1)
    encoder = loaded(OPENAI, batch_size=2)
    batches = encoder.batches(numbered(40))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    asked = len(server.texts)
    assert 2 <= asked <= 12
    server.always = well
    loaded(OPENAI).encode(numbered(40))
    assert sorted(server.texts) == sorted(numbered(40))


# --- the key ---------------------------------------------------------------------------------------------------


def frames(error: BaseException) -> str:
    """Everything that a traceback can show, values of variables too."""
    trace = error.__traceback__
    assert trace is not None
    # The first frame is the test's own, which knows the key.
    shown = traceback.TracebackException(type(error), error, trace.tb_next, capture_locals=True)
    return "".join(shown.format())


@BOTH
@pytest.mark.parametrize(
    "trouble",
    [status(400, f"what is {KEY}?"), status(401, f"{KEY}"), status(500, KEY), cut, body(KEY.encode()), slow(0.5)],
    ids=range(6),
)
def test_the_key_shows_nowhere(
    server: EmbeddingServer,
    spec: str,
    trouble: Answer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLIPLENS_API_TIMEOUT", "0.2")
    monkeypatch.setenv("FLIPLENS_API_ATTEMPTS", "2")
    caplog.set_level(logging.DEBUG)
    encoder = loaded(spec)
    encode_texts(TEXTS, encoder, tmp_path / "out.npy")
    server.always = trouble
    with pytest.raises(FliplensError) as error:
        encoder.encode(["new"])
    assert server.requests[-1].key is not None and KEY in server.requests[-1].key
    shown = frames(error.value) + caplog.text + repr(encoder) + encoder.spec + "".join(capfd.readouterr())
    shown += repr(vars(encoder)) + repr(vars(encoder._service))
    assert KEY not in shown
    encoder._cache.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert all(KEY.encode() not in path.read_bytes() for path in files)


def test_a_key_does_not_show_itself() -> None:
    key = Key(KEY)
    assert KEY not in f"{key} {key!r} {[key]}" and key.reveal() == KEY


@pytest.mark.parametrize("spec", [GEMINI, "openai:m"])
@pytest.mark.parametrize("bad", ["secret\nsecret", "sécret", "a secret"])
def test_what_cannot_be_a_key_is_not_repeated(
    spec: str, bad: str, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", bad)
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(InputError, match="expected a key of .*API_KEY, found one with spaces") as error:
        loaded(spec)
    assert "cret" not in frames(error.value)


def test_a_spec_cannot_fetch_the_key(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_adapter, "_is_here", lambda url: False)
    spec = f"{OPENAI},url={server.url}/v1"
    loaded(spec).encode(["a"])
    assert server.requests[-1].key == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://example.invalid/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "an-organisation")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Secret: {KEY}")
    loaded(spec).encode(["b"])
    assert server.requests[-1].key is None
    assert not {"x-secret", "openai-organization"} & {name.lower() for name in server.requests[-1].headers}
    server.always = status(401)
    with pytest.raises(InputError, match="is not sent there unless OPENAI_BASE_URL names that server too"):
        loaded(spec).encode(["c"])
    assert server.requests[-1].key is None


def test_servers_of_ones_own_need_no_key(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    loaded(OPENAI).encode(["a"])
    assert server.requests[-1].key is None
    server.always = status(401, "who are you")
    with pytest.raises(InputError, match=r"OPENAI_API_KEY was refused \(who are you\): set OPENAI_API_KEY"):
        loaded(OPENAI).encode(["b"])


@pytest.mark.parametrize(
    "url",
    ["http://user:secret@host/v1", "http://secret@host", "https://host/v1?key=secret", "https://host/#secret"],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="found one with a user, password, query or fragment") as error:
        checked_url(url, where="url=")
    assert "secret" not in str(error.value)


# --- calls that cannot be made ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("gemini#task=SINGING", {}, "expected task= as one of SEMANTIC_SIMILARITY, .*, found SINGING"),
        ("gemini#dim=0", {}, "expected dim= as a number from 1 to 3072, found 0"),
        ("gemini#dim=4000", {}, "from 1 to 3072, found 4000"),
        ("gemini#dim=x", {}, "from 1 to 3072, found x"),
        ("gemini#layer=3", {}, "expected options out of dim, task"),
        ("gemini:no such/../thing", {}, "expected the name of a Gemini model"),
        ("gemini", {"batch_size": 101}, "expected a batch size of at most 100"),
        ("gemini", {"precision": "bfloat16"}, "a service multiplies as it likes"),
        ("openai", {}, "expected openai:MODEL"),
        ("openai:#dim=3", {}, "expected openai:MODEL"),
        ("openai:a\nb", {}, "expected the name of a model"),
        ("openai:m", {"precision": "bfloat16"}, "a service multiplies as it likes"),
        (
            "openai:m#url=localhost:80",
            {},
            "expected an address that starts with https:// or http:// .* in url= of the spec",
        ),
        ("openai:m#url=http://:80", {}, "expected an address that starts with"),
        ("openai:m#url=http://host:port", {}, "expected an address that starts with"),
    ],
)
def test_what_a_service_does_not_have_is_told(
    server: EmbeddingServer, spec: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(spec, **options)
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FLIPLENS_API_BUDGET", "lots", "expected a whole number of 1 or more in FLIPLENS_API_BUDGET, found 'lots'"),
        ("FLIPLENS_API_BUDGET", "0", "FLIPLENS_API_BUDGET"),
        ("FLIPLENS_API_CALLS", "-1", "FLIPLENS_API_CALLS"),
        ("FLIPLENS_API_ATTEMPTS", "1.5", "FLIPLENS_API_ATTEMPTS"),
        (
            "FLIPLENS_API_DELAY",
            "soon",
            "expected a number of seconds above 0 in FLIPLENS_API_DELAY, found 'soon': .* unset it for 1$",
        ),
        ("FLIPLENS_API_TIMEOUT", "inf", "FLIPLENS_API_TIMEOUT"),
        ("GOOGLE_GEMINI_BASE_URL", "localhost", "starts with https:// .* in GOOGLE_GEMINI_BASE_URL, found"),
        (
            "GEMINI_API_KEY",
            " ",
            "expected a key of the Gemini API in GEMINI_API_KEY or GOOGLE_API_KEY, found",
        ),
    ],
)
def test_a_variable_that_says_nonsense_is_told(
    server: EmbeddingServer, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        load_encoder("gemini")


def test_openai_itself_needs_a_key(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(InputError, match="expected a key of OpenAI in OPENAI_API_KEY, found none set: set it, or"):
        load_encoder("openai:text-embedding-3-small")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    encoder = loaded("openai:text-embedding-3-small")
    assert (encoder.max_tokens, encoder.batch_size) == (8192, 256)


@pytest.mark.parametrize("extra", ["gemini", "openai"])
def test_a_missing_extra_names_the_command(
    server: EmbeddingServer, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fliplens.services import google

    monkeypatch.setattr(google, "find_spec", lambda name: None)
    monkeypatch.setattr(openai_adapter, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'fliplens\[{extra}\]'"):
        load_encoder("gemini" if extra == "gemini" else "openai:m")


def test_specs_of_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_spec("openai:nomic-embed-text:latest#url=http://host:11434/v1,dim=256")
    assert spec.model == "nomic-embed-text:latest"
    assert dict(spec.options) == {"url": "http://host:11434/v1", "dim": "256"}
    assert str(spec) == "openai:nomic-embed-text:latest#url=http://host:11434/v1,dim=256"
    spec = parse_spec("openai:@cf/baai/bge-m3@x")
    assert (spec.model, spec.revision) == ("@cf/baai/bge-m3@x", None)
    # A folder that happens to have the name of a service's model is not that model.
    (tmp_path / "BAAI" / "bge-m3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert canonical_spec("openai:BAAI/bge-m3#dim=8") == "openai:BAAI/bge-m3#dim=8"
    assert canonical_spec("st:BAAI/bge-m3").startswith("st:/")


@pytest.mark.parametrize(
    "text", ["gemini", "gemini:gemini-embedding-001", "gemini#dim=768", "gemini#task=SEMANTIC_SIMILARITY,dim=768"]
)
def test_a_record_spells_defaults_out(text: str) -> None:
    assert canonical_spec(text) == "gemini:gemini-embedding-001#dim=768,task=SEMANTIC_SIMILARITY"
    assert canonical_spec(canonical_spec(text)) == canonical_spec(text)


def test_a_folder_named_like_a_family_with_options_is_still_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gemini#dim=8").mkdir()
    monkeypatch.chdir(tmp_path)
    assert canonical_spec("gemini#dim=8") == f"st:{tmp_path / 'gemini#dim=8'}"


# --- the command -----------------------------------------------------------------------------------------------


def encode_argv(texts: Path, out: Path, spec: str) -> list[object]:
    return ["encode", texts, "-e", spec, "-o", out, "--batch-size", "5", "--quiet"]


@BOTH
@pytest.mark.parametrize("at_once", [1, 4])
def test_a_command_that_is_killed_goes_on_and_pays_for_nothing_twice(
    server: EmbeddingServer, spec: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_API_CALLS", str(at_once))
    lines = [f"line {i % 90}" for i in range(100)]
    texts, out = tmp_path / "texts.txt", tmp_path / "out.npy"
    write_lines(texts, lines)
    waiting, go = threading.Event(), threading.Event()
    stuck_from = 9

    def stuck(handler: BaseHTTPRequestHandler, request: Request) -> None:
        if len(server.requests) <= stuck_from:
            well(handler, request)
            return
        if len(server.requests) == stuck_from + at_once:
            waiting.set()
        go.wait(60)
        cut(handler, request)

    server.always = stuck
    argv = encode_argv(texts, out, spec)
    process = subprocess.Popen(command(argv), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert waiting.wait(60)
    finally:
        process.kill()
        process.communicate()
        go.set()
    assert not out.exists()
    server.always = well
    before = len(server.texts)
    run = call(*argv)
    assert run.status == 0 and run.err == ""
    twice = len(server.texts) - len(set(server.texts))
    assert 0 < twice <= 5 * at_once
    # OpenAI's API is also asked for one full stop, to tell the length of its vectors by.
    assert set(server.texts) - {"."} == set(lines) and before < len(server.texts)
    # An unbroken run, with nothing kept, writes the same bytes.
    monkeypatch.setenv("FLIPLENS_CACHE", str(tmp_path / "other"))
    whole = tmp_path / "whole.npy"
    assert call(*encode_argv(texts, whole, spec)).status == 0
    assert whole.read_bytes() == out.read_bytes()
    np.testing.assert_allclose(open_embeddings(out).to_numpy(), expected_vectors(lines, DIM), atol=1e-7)
    manifest = (tmp_path / "out.npy.json").read_text() if (tmp_path / "out.npy.json").is_file() else ""
    assert KEY not in manifest
    # Encoded once more, elsewhere: nothing is sent at all.
    sent = len(server.texts)
    assert call(*encode_argv(texts, tmp_path / "third.npy", spec)).status == 0
    assert len(server.texts) == sent


def test_the_command_shows_progress_and_tells_trouble_in_one_line(server: EmbeddingServer, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    write_lines(texts, numbered(20))
    run = call("encode", texts, "-e", "gemini#dim=8", "-o", tmp_path / "a.npy")
    assert run.status == 0 and "20/20" in run.err
    assert run.out.startswith("20 vectors of 8 dimensions (gemini:gemini-embedding-001#dim=8,task=SEMANTIC_SIM")
    server.always = status(403, f"{KEY} is not welcome")
    run = call("encode", texts, "-e", "gemini#dim=9", "-o", tmp_path / "b.npy", "--quiet")
    assert_one_line(run, 2, "GEMINI_API_KEY was refused (*** is not welcome)")


def test_the_command_stops_at_its_budget_and_goes_on_with_another(
    server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "out.npy"
    write_lines(texts, numbered(60))
    monkeypatch.setenv("FLIPLENS_API_BUDGET", "600")
    run = start(*encode_argv(texts, out, GEMINI))
    assert_one_line(run, 1, "expected to send at most 600 characters (FLIPLENS_API_BUDGET), found 6", "what was answ")
    assert 500 < sum(map(len, server.texts)) <= 600
    assert start(*encode_argv(texts, out, GEMINI)).status == 0
    assert sorted(server.texts) == sorted(numbered(60))


def test_ctrl_c_ends_the_command_and_keeps_what_was_answered(
    server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_API_CALLS", "1")
    texts = tmp_path / "texts.txt"
    write_lines(texts, numbered(100))
    enough = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        if len(server.requests) == 4:
            enough.set()
        slow(0.1)(handler, request)

    server.always = answer
    argv = encode_argv(texts, tmp_path / "out.npy", OPENAI)
    process = subprocess.Popen(
        command(argv),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert enough.wait(60)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert len(err.decode().splitlines()) <= 1, err.decode()
    server.always = well
    assert call(*argv).status == 0
    assert sorted(server.texts) == sorted([*numbered(100), "."])


def test_a_lens_is_fitted_on_a_services_vectors_and_reads_text(server: EmbeddingServer, tmp_path: Path) -> None:
    from fliplens import Lens, TrainConfig, fit

    words = ["cat", "dog", "rain", "sun", "tree", "house", "bird", "fish"]
    chance = random.Random(3)  # noqa: S311 - of a test
    texts = [" ".join(chance.choices(words, k=4)) for _ in range(200)]
    encoder = loaded("gemini#dim=32")
    lens = fit(texts, encoder.encode(texts), encoder=encoder, config=TrainConfig(passes=1))
    lens.save(tmp_path / "lens")
    again = Lens.load(tmp_path / "lens")
    assert again.encoder == "gemini:gemini-embedding-001#dim=32,task=SEMANTIC_SIMILARITY"
    assert again.encoder is not None
    np.testing.assert_array_equal(loaded(again.encoder).encode(texts[:3]), encoder.encode(texts[:3]))


def test_the_oracle_is_not_of_unit_length() -> None:
    # Else nothing here would notice a vector that is not renormalised.
    assert abs(np.linalg.norm(raw_vector("a", DIM)) - 1) > 0.5
