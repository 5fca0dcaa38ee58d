"""Names looked up in a list of them: the longest that starts at a word, from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fliplens.errors import InputError
from fliplens.files import read_lines, sha256_of_lines
from fliplens.tagging.names import Place, elided, possessor, words_of
from fliplens.text.tokenisation import Tokeniser

__all__ = ["GazetteerTagger", "WordRule"]

WordRule = Literal["default", "icu"]
"""The modes of the tokeniser that tell where in a text a word is."""

_END = ""
"""Key of a node of the trie at which a name ends; no word is empty."""


class GazetteerTagger:
    """Finds the names of a list in texts, word by word.

    A name is found where its words follow each other in the text, whatever the punctuation between them; of names
    that start at the same word the longest counts, and the search goes on behind it. It is given as the text has it.

    Args:
        names: the list. Case (unless `match_case`), punctuation and repeats make no difference; a name without any
            word is left out.
        match_case: ask for the capital letters of the list, so that the name Rose is not found in "a rose".
        tokeniser: "default", or "icu", which finds names in Chinese, Japanese, Thai, Lao, Khmer and Burmese as well:
            those that its dictionary cuts in the text as it cuts them alone. Needs the extra `icu`.
        spec: what `load_tagger` takes to get it again.

    Raises:
        InputError: no name has a word, or a tokeniser that is neither.
        MissingExtraError: the tokeniser icu, and its extra is not installed.
    """

    texts_a_call = 16_384

    def __init__(
        self,
        names: Iterable[str],
        *,
        match_case: bool = False,
        tokeniser: WordRule = "default",
        spec: str = "gazetteer",
    ) -> None:
        if isinstance(names, str):
            raise InputError("expected a list of names, found one text: put it in a list")
        if tokeniser not in get_args(WordRule):
            raise InputError(f"expected the tokeniser default or icu of a gazetteer, found {tokeniser!r}: correct it")
        self.spec = spec
        self.match_case = match_case
        self._tokeniser = Tokeniser(mode=tokeniser, lowercase=not match_case)
        self._names: dict[str, Any] = {}
        self.n_names = 0
        given = list(names)
        self.revision = f"sha256:{sha256_of_lines(given)}"
        for name in given:
            terms = self._tokeniser.terms(name)
            if not terms:
                continue
            node = self._names
            for term in terms:
                node = node.setdefault(term, {})
            self.n_names += _END not in node
            node[_END] = True
        if not self.n_names:
            raise InputError(
                f"expected names, one a line, in {spec.partition(':')[2] or 'the gazetteer'}, found none"
            )

    @classmethod
    def load(cls, path: str | Path, *, match_case: bool = False, tokeniser: WordRule = "default") -> GazetteerTagger:
        """Read a text file of names, one a line; empty lines are left out.

        Raises:
            InputError: the file is missing, unreadable, not UTF-8, or holds no name, or a tokeniser that is none.
            MissingExtraError: the tokeniser icu, and its extra is not installed.
        """
        path = Path(path).expanduser()
        return cls(read_lines(path), match_case=match_case, tokeniser=tokeniser, spec=f"gazetteer:{path.resolve()}")

    def __repr__(self) -> str:
        return f"GazetteerTagger(spec={self.spec!r}, n_names={self.n_names}, match_case={self.match_case})"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Whether capital letters must match; with the tokeniser icu, that and the version of ICU."""
        settings: dict[str, Any] = {"match_case": self.match_case}
        if self._tokeniser.mode == "icu":
            settings |= {"tokeniser": "icu", "icu_version": self._tokeniser.icu_version}
        return settings

    def tag(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the names in each text, in order and with repeats; see `Tagger.tag`."""
        return [self._tag(text) for text in texts]

    def _tag(self, text: str) -> list[str]:
        terms = self._tokeniser.terms(text)
        if self._names.keys().isdisjoint(terms) and not any("'" in term for term in terms):
            return []
        words = words_of(text, self._tokeniser)
        names: list[str] = []
        i = 0
        while i < len(words):
            found = self._longest(text, words, i)
            if found is None:
                i += 1
            else:
                start, end, i = found
                names.append(text[start:end])
        return names

    def _longest(self, text: str, words: Sequence[Place], i: int) -> tuple[int, int, int] | None:
        """Return start and end of the longest name at word `i`, and the word behind it."""
        best: tuple[int, int, int] | None = None
        beginnings = [words[i]]
        if "'" in words[i].term and (rest := elided(words[i], text)) is not None:
            beginnings.append(rest)
        for beginning in beginnings:
            node, word, j = self._names, beginning, i
            while True:
                # The whole word goes before the word without its possessive.
                longer = best is None or j + 1 > best[2]
                owner = possessor(word, text) if longer and "'" in word.term else None
                if owner is not None and _END in node.get(owner.term, ()):
                    best = (beginning.start, owner.end, j + 1)
                if word.term not in node:
                    break
                node, j = node[word.term], j + 1
                if longer and _END in node:
                    best = (beginning.start, word.end, j)
                if j == len(words):
                    break
                word = words[j]
        return best
