"""Names by Gemini: Google's own client against a server of ours on the loopback, which is not always well."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import assert_one_line, call, command, environment

from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.files import write_lines
from fliplens.tagging import DecliningTagger, load_tagger, tag_texts

pytest.importorskip("google.genai")

from fliplens.services import google
from fliplens.tagging.gemini import DEFAULT_MODEL, GeminiTagger

KEY = "loopback-key-0123456789"
TEXTS = ["Ann lives in Köln.", "Nobody.", "Bob's “dog” saw Ann", "", "Oslo\tand Rome", 'He said: "Rome".', "end"]
NAMES = [["Ann", "Köln"], [], ["Bob", "Ann"], [], ["Oslo", "Rome"], ["Rome"], []]
KNOWN = ("Ann", "Bob", "Köln", "Oslo", "Rome")

Answer = Callable[[BaseHTTPRequestHandler, list[str]], None]


def names_of(text: str) -> list[str]:
    """What our model finds: known names in the order of the text."""
    return re.findall("|".join(KNOWN), text)


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def candidate(text: str | None, reason: str = "STOP") -> dict[str, Any]:
    content = {} if text is None else {"content": {"role": "model", "parts": [{"text": text}]}}
    return {"candidates": [{**content, "finishReason": reason, "index": 0}], "modelVersion": "loopback"}


def listed(texts: Sequence[str], rows: Sequence[int] | None = None) -> str:
    rows = range(len(texts)) if rows is None else rows
    return json.dumps([{"sentence": row + 1, "names": names_of(texts[row])} for row in rows])


def well(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
    reply(handler, 200, candidate(listed(texts)))


def says(text: str, reason: str = "STOP") -> Answer:
    return lambda handler, _: reply(handler, 200, candidate(text, reason))


def status(code: int, message: str = "trouble", name: str = "UNKNOWN") -> Answer:
    error = {"error": {"code": code, "message": message, "status": name}}
    return lambda handler, _: reply(handler, code, error)


def cut(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
    handler.close_connection = True


def cut_within(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"candidates": [')
    handler.close_connection = True


class Server:
    """Answers calls by a script, one entry a call, and well once the script is over; keeps what was asked."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.always: Answer = well
        self.bodies: list[dict[str, Any]] = []
        self.texts: list[list[str]] = []
        self.keys: set[str | None] = set()
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["contents"][0]["parts"][0]["text"]
                numbered = [line.partition(": ") for line in prompt.split("\n")]
                assert [number for number, _, _ in numbered] == [str(i + 1) for i in range(len(numbered))]
                texts = [json.loads(text) for _, _, text in numbered]
                outer.bodies.append(body)
                outer.texts.append(texts)
                outer.paths.append(self.path)
                outer.keys.add(self.headers["x-goog-api-key"])
                (outer.script.pop(0) if outer.script else outer.always)(self, texts)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Server:
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        yield running


def tagger_at(server: Server, **options: Any) -> GeminiTagger:
    return GeminiTagger(base_url=server.url, initial_delay=0.001, max_delay=0.01, **options)


def test_sentences_go_in_numbered_and_names_come_back(server: Server, tmp_path: Path) -> None:
    tagger = tagger_at(server, batch_size=3)
    assert isinstance(tagger, DecliningTagger)
    done = tag_texts(TEXTS, tagger, tmp_path / "names.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "names.jsonl").read_text().splitlines()]
    assert [line["entity_names"] for line in lines] == NAMES
    assert (done.names, done.sentences_with_names, done.dropped, done.declined) == (7, 4, 0, 0)
    # The empty text is not worth a place in a call.
    assert server.texts == [TEXTS[:3], TEXTS[4:6], TEXTS[6:]]
    assert server.keys == {KEY}
    assert set(server.paths) == {f"/v1beta/models/{DEFAULT_MODEL}:generateContent"}
    (config,) = {json.dumps(body["generationConfig"], sort_keys=True) for body in server.bodies}
    asked = json.loads(config)
    assert asked["responseMimeType"] == "application/json" and asked["temperature"] == 0
    schema = asked["responseSchema"]
    assert schema["type"] == "ARRAY" and schema["items"]["required"] == ["sentence", "names"]
    assert schema["items"]["properties"]["names"] == {"type": "ARRAY", "items": {"type": "STRING"}}
    assert "named entities" in server.bodies[0]["systemInstruction"]["parts"][0]["text"]
    assert tagger.spec == f"gemini:{DEFAULT_MODEL}" and DEFAULT_MODEL == "gemini-2.5-flash-lite"


def test_inventions_and_odd_answers_are_kept_out(server: Server, tmp_path: Path) -> None:
    answer = [
        {"sentence": 2, "names": ["Nobody Else", "Paris"]},
        {"sentence": 1, "names": ["Ann,", "ANN", "", "köln", "Cologne"]},
        {"sentence": 3, "names": ["Bob"]},
        {"sentence": 3, "names": ["“Ann”"]},
        {"sentence": 9, "names": ["Oslo"]},
        {"sentence": True, "names": ["Oslo"]},
        {"sentence": 0, "names": ["Oslo"]},
        {"sentence": "1", "names": ["Oslo"]},
        "Oslo",
    ]
    server.script = [says(json.dumps(answer))]
    done = tag_texts(TEXTS[:3], tagger_at(server), tmp_path / "names.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "names.jsonl").read_text().splitlines()]
    assert [line["entity_names"] for line in lines] == NAMES[:3]
    assert (done.names, done.dropped) == (4, 3) and len(server.texts) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        status(429, "quota", "RESOURCE_EXHAUSTED"),
        status(500),
        status(503, "overloaded", "UNAVAILABLE"),
        lambda handler, _: reply(handler, 502, b"<html>bad gateway</html>"),
        cut,
        cut_within,
        lambda handler, _: reply(handler, 200, b"<html>hello</html>"),
        lambda handler, _: reply(handler, 200, {"candidates": []}),
        lambda handler, _: reply(handler, 200, {"candidates": "what"}),
        lambda handler, _: reply(handler, 200, candidate(None)),
        lambda handler, _: reply(handler, 200, candidate(None, "OTHER")),
        says("Here are your names: Ann"),
        says('[{"sentence": 1, "names": ["Ann"'),
        says('{"1": ["Ann"]}'),
        says("[" * 5000),
        says("[]"),
        says('[{"sentence": 1, "names": "Ann"}, {"sentence": 2}]'),
    ],
    ids=range(17),
)
def test_what_may_go_away_is_tried_again(server: Server, trouble: Answer) -> None:
    tagger = tagger_at(server)
    server.script = [trouble]
    assert tagger.tag(TEXTS) == NAMES
    assert server.texts == [TEXTS, TEXTS]
    server.script = [trouble, trouble, trouble]
    assert tagger.tag(TEXTS) == NAMES
    assert tagger.declined == 0


def test_an_answer_without_some_sentences_is_kept_and_the_rest_asked_for(server: Server) -> None:
    server.script = [
        lambda handler, texts: reply(handler, 200, candidate(listed(texts, [0, 2, 5]))),
        lambda handler, texts: reply(handler, 200, candidate(listed(texts, [1]))),
    ]
    assert tagger_at(server).tag(TEXTS) == NAMES
    assert server.texts == [TEXTS, [TEXTS[1], TEXTS[3], TEXTS[4], TEXTS[6]], [TEXTS[1], TEXTS[4], TEXTS[6]]]


@pytest.mark.parametrize("how", ["prompt", "safety", "recitation", "too long", "too long within"])
def test_a_sentence_that_is_declined_is_told_from_the_others(server: Server, how: str, tmp_path: Path) -> None:
    def wary(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
        if not any("Bob" in text for text in texts):
            well(handler, texts)
        elif how == "prompt":
            reply(handler, 200, {"promptFeedback": {"blockReason": "SAFETY"}})
        elif how == "safety":
            reply(handler, 200, candidate(None, "SAFETY"))
        elif how == "recitation":
            reply(handler, 200, candidate('[{"sentence": 1, "na', "RECITATION"))
        elif how == "too long":
            reply(handler, 200, candidate(None, "MAX_TOKENS"))
        else:
            reply(handler, 200, candidate('[{"sentence": 1, "names": ["Ann", "Ann", "Ann"', "MAX_TOKENS"))

    server.always = wary
    tagger = tagger_at(server)
    assert tagger.tag(TEXTS) == [*NAMES[:2], [], *NAMES[3:]]
    assert tagger.declined == 1
    assert len(server.texts) <= 7
    # An earlier count is not counted again.
    done = tag_texts(TEXTS, tagger, tmp_path / "names.jsonl")
    assert (done.declined, done.names, tagger.declined) == (1, 5, 2)


def test_a_sentence_that_spoils_answers_is_found_and_ends_the_job(server: Server, tmp_path: Path) -> None:
    def spoilt(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
        (says("oops") if any("Bob" in text for text in texts) else well)(handler, texts)

    server.always = spoilt
    tagger = tagger_at(server, attempts=3)
    with pytest.raises(FliplensError, match="names of a sentence from gemini:.*, found something else than JSON, 3"):
        tagger.tag(TEXTS)
    assert server.texts[-1] == [TEXTS[2]]


@pytest.mark.parametrize(
    ("trouble", "calls", "message"),
    [
        (status(429, "quota\nfor today", "RESOURCE_EXHAUSTED"), 3, "status 429 .quota for today.: wait, then run"),
        (status(500, "x" * 5000), 3, "status 500"),
        (cut, 3, "could not reach gemini:.* check the connection"),
        (cut_within, 3, "could not reach gemini:"),
        (lambda handler, _: reply(handler, 200, b"hello"), 3, "something else than the API's JSON"),
        (status(400, f"bad thing in {KEY}"), 1, r"status 400 \(bad thing in \*\*\*\)"),
        (status(418), 1, "status 418"),
    ],
    ids=range(7),
)
def test_what_does_not_go_away_is_one_line(server: Server, trouble: Answer, calls: int, message: str) -> None:
    server.always = trouble
    with pytest.raises(FliplensError, match=message) as error:
        tagger_at(server, attempts=3).tag(["Ann"])
    assert len(server.texts) == calls
    said = str(error.value)
    assert KEY not in said and "\n" not in said and len(said) < 500
    assert (
        error.value.__suppress_context__
        or error.value.__context__ is None
        or KEY not in repr(error.value.__context__)
    )


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (status(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), "was refused"),
        (status(401), "key in GOOGLE_API_KEY or GEMINI_API_KEY was refused"),
        (status(403, "denied", "PERMISSION_DENIED"), r"was refused \(denied\)"),
        (
            status(404, "models/x is not found", "NOT_FOUND"),
            "expected a model gemini-2.5-flash-lite at the Gemini API",
        ),
    ],
    ids=range(4),
)
def test_a_wrong_key_or_model_is_the_callers_fault(server: Server, trouble: Answer, message: str) -> None:
    server.always = trouble
    with pytest.raises(InputError, match=message):
        tagger_at(server).tag(["Ann"])
    assert len(server.texts) == 1


def test_a_server_that_is_not_there_or_does_not_answer(server: Server) -> None:
    silent = threading.Event()

    def mute(handler: BaseHTTPRequestHandler, texts: list[str]) -> None:
        silent.wait(5)
        cut(handler, texts)

    server.always = mute
    with pytest.raises(FliplensError, match="could not reach"):
        tagger_at(server, attempts=2, timeout=0.2).tag(["Ann"])
    assert len(server.texts) == 2
    silent.set()
    with pytest.raises(FliplensError, match="could not reach .* check the connection"):
        GeminiTagger(base_url="http://127.0.0.1:9", attempts=2, initial_delay=0.001).tag(["Ann"])


def test_a_job_that_breaks_off_goes_on_with_the_next_call(server: Server, tmp_path: Path) -> None:
    server.script = [well, well, status(400, "no more")]
    out = tmp_path / "names.jsonl"
    with pytest.raises(FliplensError, match="what was answered before is kept"):
        tag_texts(TEXTS, tagger_at(server, batch_size=2), out)
    assert not out.exists()
    before = len(server.texts)
    # Another number of sentences a call is no other job; another model is.
    with pytest.raises(InputError, match="another tagger"):
        tag_texts(TEXTS, tagger_at(server, model="gemini-2.5-pro"), out)
    done = tag_texts(TEXTS, tagger_at(server, batch_size=3), out)
    assert server.texts[before:] == [TEXTS[4:]] and done.names == 7


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({}, {}, "expected a key of the Gemini API in GEMINI_API_KEY or GOOGLE_API_KEY, found neither"),
        ({"GEMINI_API_KEY": "  "}, {}, "found neither"),
        ({"GEMINI_API_KEY": "secret\nsecret"}, {}, "found one with spaces, line breaks"),
        ({"GEMINI_API_KEY": "sécret"}, {}, "letters that no key has"),
        ({"GEMINI_API_KEY": KEY}, {"base_url": "localhost:80"}, "starts with https:// .* in base_url"),
        ({"GEMINI_API_KEY": KEY}, {"model": "no such/../thing?"}, "expected the name of a Gemini model"),
    ],
)
def test_a_call_that_cannot_be_made_is_told(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: dict[str, Any], message: str
) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message) as error:
        GeminiTagger(**options)
    assert "cret" not in str(error.value)


def test_the_key_and_the_server_are_those_of_the_call(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "the-other-key")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    tagger = tagger_at(server)
    assert tagger.tag(TEXTS) == NAMES
    assert server.keys == {"the-other-key"}
    assert "key" not in repr(tagger)
    assert capfd.readouterr() == ("", "")


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(google, "find_spec", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[gemini\]'"):
        load_tagger("gemini")


def test_the_command(server: Server, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "names.jsonl"
    write_lines(texts, [*TEXTS, "a secret"])
    server.script = [says(json.dumps([{"sentence": 1, "names": ["Ann", "Atlantis"]}, {"sentence": 2, "names": []}]))]
    server.always = lambda handler, rows: (
        reply(handler, 200, candidate(None, "SAFETY"))
        if any("secret" in row for row in rows)
        else well(handler, rows)
    )
    argv = [
        "tag",
        texts,
        "-o",
        out,
        "--by",
        "gemini:gemini-9",
        "--base-url",
        server.url,
        "--batch-size",
        "2",
        "--quiet",
    ]
    run = call(*argv)
    assert (run.status, run.err) == (0, "")
    assert run.out.splitlines() == [
        f"8 sentences, 4 with names, 6 names (gemini:gemini-9) in {out}",
        "left out 1 name that the sentence does not hold",
        "the tagger declined 1 sentence: no names are listed there",
    ]
    assert server.paths[0] == "/v1beta/models/gemini-9:generateContent"
    asked = len(server.texts)
    again = call(*argv, "--json").json
    assert (again["names"], again["dropped"], again["declined"], again["tagger"]) == (6, 1, 1, "gemini:gemini-9")
    assert len(server.texts) == asked
    server.always = status(403, f"{KEY} is not welcome")
    refused = call(*argv, "--overwrite")
    assert_one_line(refused, 2, "was refused (*** is not welcome)")
    assert out.is_file()


def test_a_job_that_is_killed_in_a_call_loses_no_other(server: Server, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "names.jsonl"
    write_lines(texts, [f"{name} is number {i}" for i, name in enumerate(KNOWN * 4)])
    waiting, go = threading.Event(), threading.Event()

    def stuck(handler: BaseHTTPRequestHandler, rows: list[str]) -> None:
        waiting.set()
        go.wait(60)
        cut(handler, rows)

    server.script = [well, well, well, stuck]
    argv = ["tag", texts, "-o", out, "--by", "gemini", "--base-url", server.url, "--batch-size", "4", "--quiet"]
    process = subprocess.Popen(command(argv), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert waiting.wait(60)
    finally:
        process.kill()
        process.communicate()
        go.set()
    assert not out.exists()
    before = len(server.texts)
    run = call(*argv)
    assert run.out.startswith("20 sentences, 20 with names, 20 names")
    assert [len(rows) for rows in server.texts[before:]] == [4, 4]
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in files


def test_without_the_key_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    texts = tmp_path / "texts.txt"
    write_lines(texts, ["Ann"])
    run = call("tag", texts, "-o", tmp_path / "x.jsonl", "--by", "gemini")
    assert_one_line(run, 2, "GEMINI_API_KEY")
