"""A server on the loopback that embeds texts as the Gemini API and OpenAI's do, and misbehaves when told to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.encoders import load_encoder
from fliplens.encoders.service import ServiceEncoder

KEY = "loopback-key-0123456789"
DIM = 16
OWN_DIM = 24
"""What a model gives that is not asked for a size."""

Answer = Callable[[BaseHTTPRequestHandler, "Request"], None]


def raw_vector(text: str, dim: int) -> list[float]:
    """The server's opinion of a text: of any length for Gemini."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    numbers: list[float] = (3 * np.random.default_rng(seed).standard_normal(dim)).tolist()
    return numbers


def expected_vectors(texts: Sequence[str], dim: int) -> NDArray[np.float64]:
    """What an encoder should make of it, in float64: unit length, and a full stop for what is blank."""
    vectors = np.array([raw_vector(text if text.strip() else ".", dim) for text in texts]).reshape(len(texts), dim)
    lengths: NDArray[np.float64] = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    return vectors / lengths


class Request:
    """A call, as the server got it."""

    def __init__(self, path: str, headers: Any, body: Any) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.google = path.endswith(":batchEmbedContents")
        self.key = headers.get("x-goog-api-key") if self.google else headers.get("Authorization")
        self.texts: list[str]
        if self.google:
            self.parts = [one["content"]["parts"] for one in body["requests"]]
            self.texts = [parts[0]["text"] for parts in self.parts]
            self.dim = body["requests"][0].get("outputDimensionality", OWN_DIM)
        else:
            self.texts = body["input"]
            self.dim = body.get("dimensions", OWN_DIM)

    def vectors(self) -> list[list[float]]:
        """OpenAI's have unit length, Gemini's any."""
        if self.google:
            return [raw_vector(text, self.dim) for text in self.texts]
        vectors: list[list[float]] = expected_vectors(self.texts, self.dim).tolist()
        return vectors

    def wrapped(self, vectors: Sequence[Any]) -> dict[str, Any]:
        """Vectors as the API puts them."""
        if self.google:
            return {"embeddings": [{"values": vector} for vector in vectors]}
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        # Some servers answer in the order in which they were done.
        return {"object": "list", "data": data[::-1], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def well(handler: BaseHTTPRequestHandler, request: Request) -> None:
    reply(handler, 200, request.wrapped(request.vectors()))


def status(code: int, message: str = "trouble", **headers: str) -> Answer:
    error = {"error": {"code": code, "message": message, "status": "UNKNOWN", "type": "t"}}
    return lambda handler, _: reply(handler, code, error, **headers)


def body(content: Any) -> Answer:
    return lambda handler, _: reply(handler, 200, content)


def changed(change: Callable[[list[Any]], list[Any]]) -> Answer:
    return lambda handler, request: reply(handler, 200, request.wrapped(change(request.vectors())))


def cut(handler: BaseHTTPRequestHandler, _: Request) -> None:
    handler.close_connection = True


def cut_within(handler: BaseHTTPRequestHandler, _: Request) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')
    handler.close_connection = True


def slow(seconds: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        time.sleep(seconds)
        with contextlib.suppress(OSError):
            well(handler, request)

    return answer


class EmbeddingServer:
    """Answers calls by a script, one entry a call, and by `always` once it is over; keeps what was asked."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.always: Answer = well
        self.requests: list[Request] = []
        self.at_once = 0
        self.most_at_once = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = Request(self.path, self.headers, content)
                with lock:
                    outer.requests.append(request)
                    answer = outer.script.pop(0) if outer.script else outer.always
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    answer(self, request)
                finally:
                    with lock:
                        outer.at_once -= 1

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def texts(self) -> list[str]:
        """All texts of all calls."""
        return [text for request in self.requests for text in request.texts]

    def __enter__(self) -> EmbeddingServer:
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@contextlib.contextmanager
def variables(**values: str | None) -> Iterator[None]:
    """Set variables of the environment, or unset those that are None, for a while."""
    before = {name: os.environ.get(name) for name in values}

    def put(some: dict[str, str | None]) -> None:
        for name, value in some.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(dict(values))
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def services(server: EmbeddingServer, cache: Path) -> Iterator[None]:
    """Make both services be the loopback server, hardly waiting between attempts, with a cache of its own."""
    with variables(
        GEMINI_API_KEY=KEY,
        GOOGLE_API_KEY=None,
        GOOGLE_GEMINI_BASE_URL=server.url,
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=f"{server.url}/v1",
        NO_PROXY="127.0.0.1",
        FLIPLENS_CACHE=str(cache),
        FLIPLENS_API_DELAY="0.001",
        FLIPLENS_API_ATTEMPTS="5",
        FLIPLENS_API_CALLS=None,
        FLIPLENS_API_TIMEOUT=None,
        FLIPLENS_API_BUDGET=None,
    ):
        yield


@contextlib.contextmanager
def gemini_encoder(folder: Path) -> Iterator[ServiceEncoder]:
    """Yield the encoder `gemini` against a loopback server of its own; `folder` is for its cache."""
    with EmbeddingServer() as server, services(server, folder):
        encoder = load_encoder(f"gemini#dim={DIM}")
        assert isinstance(encoder, ServiceEncoder)
        yield encoder


@contextlib.contextmanager
def openai_encoder(folder: Path) -> Iterator[ServiceEncoder]:
    """Yield the encoder `openai:MODEL` against a loopback server of its own; `folder` is for its cache."""
    with EmbeddingServer() as server, services(server, folder):
        encoder = load_encoder(f"openai:a-model:latest#url={server.url}/v1")
        assert isinstance(encoder, ServiceEncoder)
        yield encoder
