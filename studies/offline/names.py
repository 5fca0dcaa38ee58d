"""Make a gazetteer of the names in a text: words with a capital inside a sentence, and never in small letters.

Run `python studies/offline/names.py TRAIN.txt TEST.txt > runs/names.txt`, then
`fliplens tag TEST.txt -o runs/names.jsonl --by gazetteer:runs/names.txt --match-case`.

No model is needed, and no name is missed for being rare; what it takes for a name is right more often than not, but
"Easter", "English" and the like are among them.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Written with a capital wherever they stand.
NO_NAMES = {"I", "I'm", "I'd", "I'll", "I've", "I’m", "I’d", "I’ll", "I’ve", "Mr", "Mrs", "Ms", "Dr", "St", "O", "OK"}


def names(lines: list[str]) -> list[str]:
    """Return runs of such words, the most frequent first."""
    small: set[str] = set()
    runs: Counter[str] = Counter()
    for line in lines:
        words = list(WORD.finditer(line))
        small.update(word.group() for word in words if word.group()[0].islower())
    for line in lines:
        run: list[re.Match[str]] = []
        for word in [*WORD.finditer(line), None]:
            name = word is not None and word.group()[0].isupper() and word.group() not in NO_NAMES
            # A word that begins a sentence has a capital whatever it is.
            first = word is not None and not line[: word.start()].rstrip(" \"'“‘([").strip(".!?:;… ")
            after = word is not None and re.search(r"[.!?:]['\"”’)]?\s*[\"“‘(]?$", line[: word.start()]) is not None
            name = name and not first and not after and word is not None and word.group().lower() not in small
            if run and (not name or word is None or line[run[-1].end() : word.start()] != " "):
                runs[line[run[0].start() : run[-1].end()]] += 1
                run = []
            if name and word is not None:
                run.append(word)
    return [run for run, _ in sorted(runs.items(), key=lambda item: (-item[1], item[0]))]


if __name__ == "__main__":
    text = [line for path in sys.argv[1:] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    sys.stdout.write("".join(f"{name}\n" for name in names(text)))
