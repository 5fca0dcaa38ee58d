"""Pretrained models from folders and the Hugging Face Hub: loading quietly, errors of one line, identities."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.files import sha256_of_file, sha256_of_lines

__all__ = ["check_hub_name", "commit_of", "load_error", "quiet", "revision_of"]

_Filter: TypeAlias = tuple[str, Any, Any, Any, int]
"""One of `warnings.filters`: action, pattern of the message, category or some, pattern of the module, line."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars, log lines and warnings of the libraries that run models; leave all as it was.

    These are states of the process. So the first thread that comes in silences, the last one that leaves puts back
    what was there before the first, and `FliplensWarning` is heard all the time, as another thread may have one to
    give.
    """
    with _SILENCE.lock:
        if not _SILENCE.threads:
            _SILENCE.put_back = _silence()
        _SILENCE.threads += 1
    try:
        yield
    finally:
        with _SILENCE.lock:
            _SILENCE.threads -= 1
            if not _SILENCE.threads:
                _SILENCE.put_back()


class _Silence:
    """How many threads want it, and how it ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = 0
        self.put_back: Callable[[], None] = lambda: None


_SILENCE = _Silence()


def _silence() -> Callable[[], None]:
    """Silence, and return what puts everything back."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    before: Sequence[_Filter] = warnings.filters
    ours = _of_fliplens_alone(before)
    warnings.filters = ours

    def put_back() -> None:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if warnings.filters is ours:
            warnings.filters = before
        # Another thread may be in a `catch_warnings` of its own, and put this list back when it leaves it.
        ours[:] = before

    return put_back


def _of_fliplens_alone(filters: Sequence[_Filter]) -> list[_Filter]:
    """Return filters of warnings that do with ours what these do, and ignore all others."""
    ours: list[_Filter] = []
    for action, message, category, module, line in filters:
        for kind in category if isinstance(category, tuple) else (category,):
            if issubclass(kind, FliplensWarning):
                ours.append((action, message, kind, module, line))
            elif issubclass(FliplensWarning, kind):
                ours.append((action, message, FliplensWarning, module, line))
    return [*ours, ("default", None, FliplensWarning, None, 0), ("ignore", None, Warning, None, 0)]


def check_hub_name(model: str) -> None:
    """Refuse what can be no model of the Hub: it was meant as a folder, which is not there.

    Raises:
        InputError: it looks like a path, or is a file.
    """
    if not model or model.count("/") > 1 or model[0] in "./~" or "\\" in model or Path(model).exists():
        raise InputError(f"expected a model folder at {model}, found none: check the path")


def revision_of(folder: Path) -> str | None:
    """Return an identity of a model folder's weights, so that work of retrained ones is not taken for its own."""
    weights = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin") and path.is_file())
    if not weights:
        return None
    return f"sha256:{sha256_of_lines(sha256_of_file(path) for path in weights)}"


def commit_of(model: Any) -> str | None:
    """Return the Hub commit that a model's weights came from, if transformers kept it."""
    for module in model.modules():
        commit = getattr(getattr(module, "config", None), "_commit_hash", None)
        if isinstance(commit, str):
            return commit
    return None


def load_error(what: str, spec: str, source: str, revision: str | None, error: Exception) -> FliplensError:
    """Return the exception that says, in one line, why a model did not load and what to do.

    Args:
        what: the kind of model that was expected, with its article.
        spec: how a folder of such a model is named in a call.
        source: the folder or Hub id.
        revision: the branch, tag or commit that was asked for.
        error: what the loading library raised.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    reason = (str(error).strip().splitlines() or [""])[0].strip() or type(error).__name__
    if Path(source).is_dir():
        return FliplensError(
            f"expected {what} in {source}, could not load it ({reason}): download or copy the folder again"
        )
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, GatedRepoError):
            return InputError(
                f"the model {source} asks for its terms to be accepted: accept them on its page on the Hugging Face "
                "Hub, then hf auth login"
            )
        if isinstance(cause, RevisionNotFoundError):
            return InputError(
                f"expected the revision {revision} of {source} on the Hugging Face Hub, found none: name a branch, a "
                "tag or a commit of it, or none for the newest"
            )
        if isinstance(cause, RepositoryNotFoundError):
            return InputError(
                f"expected a model {source} on the Hugging Face Hub, found none (or none that you may read): check "
                "the name, or hf auth login for a private one"
            )
    return FliplensError(
        f"could not load {source} from the Hugging Face Hub ({reason}): check the name and the connection, or "
        f"download the model where there is one and name its folder as {spec}"
    )
