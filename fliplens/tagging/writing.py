"""Names of many texts, written as the published code's JSONL; a job that is killed goes on where it was.

While a job runs, the answers of each call are appended to `OUT.part`: one line that says what job it is, then one for
each call. When the last one is there, OUT is written whole, with `OUT.manifest.json` beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fliplens.encoders.inputs import checked_texts
from fliplens.errors import FliplensError, InputError
from fliplens.files import atomic_file, check_free_file, read_json, sha256_of_file, sha256_of_lines, write_json
from fliplens.progress import Progress
from fliplens.tagging.names import names_in
from fliplens.tagging.tagger import DecliningTagger, Tagger
from fliplens.text.tokenisation import Tokeniser

__all__ = ["FORMAT_VERSION", "Tagged", "check_output", "tag_texts"]

FORMAT_VERSION = 1
"""Of the part file and the manifest."""

_TOKENISER = Tokeniser()


@dataclass(frozen=True)
class Tagged:
    """What a finished job wrote."""

    sentences: int
    """Texts, and so lines."""
    sentences_with_names: int
    """Those with at least one name."""
    names: int
    """Names in all lines."""
    dropped: int
    """Names that the tagger gave and their text does not hold; they are not in the file."""
    declined: int
    """Texts that the tagger declined to answer on; their lines list no names."""

    def to_json(self) -> dict[str, int]:
        """Return the counts as a JSON object."""
        return asdict(self)


def check_output(out: str | Path) -> Path:
    """Return where names are to be written; called before a tagger is loaded, so that a wrong place is known at once.

    Raises:
        InputError: a suffix other than .jsonl, or a folder.
    """
    # What an earlier run of the same job left there is gone on with.
    return check_free_file(out, (".jsonl",), overwrite=True)


def tag_texts(
    texts: Sequence[str],
    tagger: Tagger,
    out: str | Path,
    *,
    name: str = "texts",
    overwrite: bool = False,
    show_progress: bool = False,
) -> Tagged:
    """Write the names in each text, going on from whatever an interrupted run of the same job left.

    A line is `{"text", "line_number", "entity_names"}`, as `read_entities` reads it, one for each text, lines counted
    from 1. Names stand as the text writes them, without punctuation around them, each once; one that the text does
    not hold is left out and counted. Texts without any word are not handed to the tagger. A finished job is not done
    again.

    Args:
        texts: one line each.
        tagger: what finds the names.
        out: the `.jsonl` file.
        name: what the manifest calls the texts.
        overwrite: replace what another job, or nobody's job, left at `out`, or do a finished job again.
        show_progress: a bar on stderr.

    Raises:
        InputError: no texts, something that is not text, or `out` holds something else.
        FliplensError: the tagger did not answer, or answered something else than names for each text. What was
            answered before is kept.
    """
    out = check_output(out)
    texts = checked_texts(texts)
    if not texts:
        raise InputError(f"expected texts to tag in {name}, found none")
    job = {
        "format_version": FORMAT_VERSION,
        "tagger": tagger.spec,
        "revision": tagger.revision,
        "settings": dict(tagger.settings),
        "texts": {"rows": len(texts), "sha256": sha256_of_lines(texts)},
    }
    if not overwrite and (finished := _finished(out, job)) is not None:
        return finished
    part = out.with_name(out.name + ".part")
    start = _resume(part, job, overwrite=overwrite)
    with (
        Progress("tag", total=len(texts), unit="sentences", show=show_progress, done=start) as bar,
        part.open("ab") as stream,
    ):
        while start < len(texts):
            rows = texts[start : start + tagger.texts_a_call]
            _append(stream, {"start": start, **_answer(tagger, rows)})
            start += len(rows)
            bar.update(len(rows))
    return _finish(out, part, job, texts, name)


def _manifest(out: Path) -> Path:
    return out.with_name(out.name + ".manifest.json")


def _finished(out: Path, job: dict[str, Any]) -> Tagged | None:
    """Return what `out` holds if it is this very job, finished; None if nothing is there."""
    if not out.exists():
        return None
    manifest = _manifest(out)
    found = read_json(manifest) if manifest.is_file() else None
    if isinstance(found, dict) and {key: found.get(key) for key in job} == job and "counts" in found:
        if found.get("sha256") == sha256_of_file(out):
            return Tagged(**found["counts"])
        raise InputError(
            f"expected {out} as this job wrote it, found it changed since: name another place, or pass --overwrite "
            "(overwrite=True) to write it again"
        )
    raise InputError(
        f"expected {out} to be free or to hold this job, found names of other texts or by another tagger: "
        "name another place, or pass --overwrite (overwrite=True)"
    )


def _resume(part: Path, job: dict[str, Any], *, overwrite: bool) -> int:
    """Return how many texts of this job are done, and leave `part` so that the next answers can be appended."""
    if part.is_file() and part.stat().st_size:
        with part.open("rb") as stream:
            if _document(stream.readline()) == job:
                rows, end = 0, stream.tell()
                for rows, end in _whole(stream):  # noqa: B007 - the last ones count
                    pass
                # What is behind is half a line, which a kill left.
                os.truncate(part, end)
                return rows
        if not overwrite:
            raise InputError(
                f"expected {part} to hold this job, found the start of one of other texts or by another tagger: "
                "finish that one, name another place, or pass --overwrite (overwrite=True)"
            )
    with atomic_file(part) as whole:
        whole.write(_line(job))
    return 0


def _whole(stream: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield, after each whole record from here on, how many texts are done and where in the file it ends."""
    rows = 0
    while line := stream.readline():
        record = _document(line)
        # Two processes on one file would tell on themselves here.
        if not isinstance(record, dict) or record.get("start") != rows:
            return
        rows += len(record["names"])
        yield rows, stream.tell()


def _document(line: bytes) -> Any:
    """Return the JSON of a line; None if the line is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def _append(stream: IO[bytes], record: dict[str, Any]) -> None:
    """Append one record, and see it on the disk before the next call is made."""
    stream.write(_line(record))
    stream.flush()
    os.fsync(stream.fileno())


def _answer(tagger: Tagger, texts: Sequence[str]) -> dict[str, Any]:
    """Return what one call gives for some texts: their names, how many were dropped, how many texts declined."""
    asked = [row for row, text in enumerate(texts) if _TOKENISER.terms(text)]
    before = tagger.declined if isinstance(tagger, DecliningTagger) else 0
    answers = tagger.tag([texts[row] for row in asked]) if asked else []
    if not (len(answers) == len(asked) and all(isinstance(name, str) for names in answers for name in names)):
        raise FliplensError(
            f"expected a list of names for each of {len(asked)} texts from {tagger.spec}, found {len(answers)} lists "
            "or something else in them"
        )
    names: list[list[str]] = [[] for _ in texts]
    dropped = 0
    for row, given in zip(asked, answers, strict=True):
        names[row], missing = names_in(texts[row], given) if given else ([], 0)
        dropped += missing
    declined = tagger.declined - before if isinstance(tagger, DecliningTagger) else 0
    return {"names": names, "dropped": dropped, "declined": declined}


def _finish(out: Path, part: Path, job: dict[str, Any], texts: Sequence[str], name: str) -> Tagged:
    """Write the lines, the manifest beside them, and delete the part file."""
    counts = dict.fromkeys(Tagged.__dataclass_fields__, 0)
    counts["sentences"] = len(texts)
    with part.open("rb") as answers, atomic_file(out) as stream:
        answers.readline()
        for line in answers:
            record = _document(line)
            counts["dropped"] += record["dropped"]
            counts["declined"] += record["declined"]
            for number, names in enumerate(record["names"], record["start"]):
                stream.write(_line({"text": texts[number], "line_number": number + 1, "entity_names": names}))
                counts["names"] += len(names)
                counts["sentences_with_names"] += bool(names)
        stream.flush()
        # The manifest comes first: a kill before the file has its name leaves a job that the part file finishes. An
        # old file under that name goes before: the two must never be taken for a pair.
        digest = sha256_of_file(stream.name)
        out.unlink(missing_ok=True)
        write_json(_manifest(out), {**job, "texts_name": name, "counts": counts, "sha256": digest})
    part.unlink(missing_ok=True)
    return Tagged(**counts)
