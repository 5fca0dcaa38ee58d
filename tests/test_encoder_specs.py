"""The string that names an encoder: taken apart and put together again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.encoders import canonical_spec
from fliplens.encoders.registry import FAMILIES, parse_spec
from fliplens.encoders.specs import Spec
from fliplens.errors import InputError

WORDS = st.text("abcXYZ019_.", min_size=1, max_size=8)


@given(
    model=WORDS,
    revision=st.none() | WORDS,
    options=st.dictionaries(st.sampled_from(["layer", "pool", "task", "dim"]), WORDS, max_size=4),
)
def test_a_spec_survives_being_written(model: str, revision: str | None, options: dict[str, str]) -> None:
    spec = Spec("hf", model, revision, options)
    assert Spec.parse("hf", str(spec).removeprefix("hf:")) == spec


def test_a_nested_spec_keeps_its_own_options() -> None:
    spec = Spec.parse("cascade", "OWNER/ASR@v1#language=en,encoder=hf:OWNER/NAME@v2#layer=3,pool=mean")
    assert spec.revision == "v1"
    assert dict(spec.options) == {"language": "en", "encoder": "hf:OWNER/NAME@v2#layer=3,pool=mean"}


def test_a_folder_wins_whatever_its_name_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd@name#x=1").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = parse_spec("st:odd@name#x=1")
    assert (spec.model, spec.revision, dict(spec.options)) == ("odd@name#x=1", None, {})
    assert canonical_spec("odd@name#x=1") == f"st:{tmp_path / 'odd@name#x=1'}"


@pytest.mark.parametrize("rest", ["m#layer", "m#=3", "m#layer=", "m#layer=1,layer=2", "m#LAYER=1", "m#a b=1"])
def test_options_that_are_none_are_refused(rest: str) -> None:
    with pytest.raises(InputError, match=r"expected (options as name=value|every option once)"):
        Spec.parse("hf", rest)


@pytest.mark.parametrize("text", ["minilm:else", "minilm#a=b", "minilm:#a=b", "st:", "st:OWNER/NAME#nothing=1"])
def test_what_a_family_does_not_take_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected (minilm|st:MODEL|no options|options out of)|name one of"):
        parse_spec(text)
    assert canonical_spec(text) == text


def test_every_family_says_what_it_is() -> None:
    for name, family in FAMILIES.items():
        assert family.form.partition(":")[0].partition("-LANG")[0].startswith(name.partition(":")[0])
        assert family.about and "\n" not in family.about
