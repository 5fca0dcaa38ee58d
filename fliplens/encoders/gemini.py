"""Google's embedding models through the Gemini API, by its own client: `gemini[:MODEL][#dim=768,task=...]`.

The paper's third encoder (section 3.1). Vectors are shortened by the service (their first numbers carry most: the
models are trained so) and brought to unit length here, which the API leaves to its caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fliplens.encoders.service import ServiceEncoder, check_precision, size_option
from fliplens.encoders.service_calls import UNUSABLE_REPEATS
from fliplens.encoders.specs import Spec
from fliplens.errors import FliplensError, InputError
from fliplens.services.calls import CallError, CallSettings, ServiceWords
from fliplens.services.google import API, KEYS, GoogleApi, check_model

__all__ = ["DEFAULT_MODEL", "TASKS", "GeminiService", "load"]

DEFAULT_MODEL = "gemini-embedding-001"

LARGEST_DIM = 3072

TEXTS_A_CALL = 100
"""The API takes no more."""

CHARACTERS_A_TOKEN = 4
"""As the API's documentation has it, for English."""

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "SEMANTIC_SIMILARITY": "task: sentence similarity | query: ",
        "CLASSIFICATION": "task: classification | query: ",
        "CLUSTERING": "task: clustering | query: ",
        "RETRIEVAL_DOCUMENT": "title: none | text: ",
        "RETRIEVAL_QUERY": "task: search result | query: ",
        "CODE_RETRIEVAL_QUERY": "task: code retrieval | query: ",
        "QUESTION_ANSWERING": "task: question answering | query: ",
        "FACT_VERIFICATION": "task: fact checking | query: ",
    }
)
"""The API's task types, each with what stands before a text for models that know tasks by such words alone."""


class GeminiService:
    """A Gemini embedding model; see `EmbeddingService`.

    Args:
        spec: with the options dim and task.
        base_url: another server than Google's; None for what GOOGLE_GEMINI_BASE_URL names, or Google's.
        timeout: seconds for one answer.

    Raises:
        InputError, MissingExtraError: as for `GoogleApi`; or a dim or task that the API does not have.
    """

    renormalise = True
    texts_a_call = TEXTS_A_CALL

    def __init__(self, spec: Spec, *, base_url: str | None = None, timeout: float = 120.0) -> None:
        self.spec = str(spec)
        self.model = check_model(spec.model, example=DEFAULT_MODEL)
        self.dim = size_option(spec.options.get("dim"), largest=LARGEST_DIM, spec=self.spec)
        self.task = spec.options["task"]
        if self.task not in TASKS:
            raise InputError(
                f"expected task= as one of {', '.join(TASKS)}, found {self.task} in {self.spec}: name one of them"
            )
        # Models up to 001 take a task type; later ones read it in the text, and would pass over the other.
        self._by_type = self.model.rpartition("/")[2].startswith(("gemini-embedding-001", "gemini-embedding-exp"))
        self._by_type |= "gemini" not in self.model
        self.max_tokens = 2048 if self._by_type else 8192
        # Longer texts are cut without a word. This is a guess; services that refuse them are the better ones.
        self.silent_after = CHARACTERS_A_TOKEN * self.max_tokens
        self._before = "" if self._by_type else TASKS[self.task]
        self.characters_around = len(self._before)
        self._api = GoogleApi(f"the encoder {self.spec}", base_url=base_url, timeout=timeout)

    @property
    def space(self) -> Mapping[str, str | None]:
        """See `EmbeddingService`."""
        return {"service": self._api.url, "model": self.model, "dim": str(self.dim), "task": self.task}

    def ask(self, texts: Sequence[str]) -> list[Any]:
        """See `EmbeddingService`."""
        from google.genai import types

        # A list of strings would be one content of many parts for the multimodal models, and come back as one vector.
        contents = [types.Content(parts=[types.Part(text=self._before + text)]) for text in texts]
        config = types.EmbedContentConfig(
            output_dimensionality=self.dim, task_type=self.task if self._by_type else None
        )
        response = self._api.ask(
            lambda models: models.embed_content(model=self.model, contents=contents, config=config)
        )
        vectors = [one.values for one in response.embeddings or []]
        if not all(vectors):
            raise CallError("an empty vector", status=200, repeats=UNUSABLE_REPEATS, billed=True)
        return vectors

    def error(self, failure: CallError) -> FliplensError:
        """See `EmbeddingService`."""
        return ServiceWords(self.spec, "vectors", self.model, API, " or ".join(KEYS)).error(failure)


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> ServiceEncoder:
    """Return the encoder of a spec; its key, and whether the model exists, are known to the first call alone.

    Args:
        spec: `gemini` with its model and options.
        device: of no meaning here: a lens that is trained on a GPU may well have such an encoder.
        batch_size: texts a call, at most 100.
        precision: auto or float32.

    Raises:
        InputError, MissingExtraError: see `GeminiService`; a batch_size or precision that cannot be.
    """
    del device
    check_precision(precision, spec=str(spec))
    if batch_size is not None and batch_size > TEXTS_A_CALL:
        raise InputError(
            f"expected a batch size of at most {TEXTS_A_CALL} for {spec}, found {batch_size}: {API} takes no more"
        )
    settings = CallSettings.from_environment()
    return ServiceEncoder(GeminiService(spec, timeout=settings.timeout), settings=settings, batch_size=batch_size)
