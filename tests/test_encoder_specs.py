"""The string that names an encoder: taken apart, put together again, looked up in the table of families."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.encoders import canonical_spec, known_encoders, load_encoder, loading
from fliplens.encoders.registry import FAMILIES, SHORT_NAMES, Family, parse_spec
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


@pytest.mark.parametrize(
    "text", ["minilm:else", "minilm#a=b", "minilm@v1", "minilm:#a=b", "st:", "st:OWNER/NAME#nothing=1"]
)
def test_what_a_family_does_not_take_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected (minilm|st:MODEL|no options|options out of)|name one of"):
        parse_spec(text)
    assert canonical_spec(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minilm@abc", r"^expected minilm alone, .* found 'minilm@abc': .* say st:OWNER/NAME\[@REVISION\]$"),
        ("minilm#dim=3", r"^expected no options in a spec minilm, found dim in 'minilm#dim=3': .* st:minilm#"),
        ("st:minilm@abc", r"^expected st:minilm without a revision, .* found 'st:minilm@abc': leave out @abc"),
        ("hf:minilm@abc#layer=3", r"^expected hf:minilm without a revision, .* hf:OWNER/NAME@REVISION$"),
        ("hf:", r"^expected hf:MODEL\[@REVISION\], found no model in 'hf:': say hf:minilm#layer=3, for"),
        ("hf:#layer=2", r"found no model in 'hf:#layer=2': say"),
        ("st:", r"found no model in 'st:': say st:\S+, for instance$"),
        ("openai", r"found no model in 'openai': say openai:\S+, for instance$"),
        ("cascade:#encoder=minilm", r"found no model in 'cascade:#encoder=minilm': say cascade:\S+, for"),
        ("cascade:OWNER/ASR", r"found no encoder=SPEC in 'cascade:OWNER/ASR': say cascade:\S+, for instance$"),
        ("sonar-speech", r"found no language in 'sonar-speech': say sonar-speech-eng, for instance$"),
        ("sonar-speech-english", r"found 'sonar-speech-english': say sonar-speech-eng, for instance$"),
        ("hf:O/N#beam=3", r"options out of layer, pool, normalise .* fliplens encoders tells what they mean$"),
    ],
)
def test_a_refusal_says_what_to_do(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_spec(text)
    assert "\n" not in str(caught.value)


def test_a_short_name_stands_behind_st_and_hf() -> None:
    assert canonical_spec("st:minilm") == "minilm" and canonical_spec("st:labse") == "labse"
    for text in ("st:minilm#dim=3", "hf:minilm", "hf:labse#layer=2"):
        assert canonical_spec(text) == text
    assert set(loading.PUBLISHED) == set(SHORT_NAMES)
    assert canonical_spec("sonar-speech#language=eng") == "sonar-speech-eng"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_example_of_a_family_is_one(family: str) -> None:
    assert parse_spec(FAMILIES[family].example).family == family


def test_every_family_says_what_it_is() -> None:
    for name, family in FAMILIES.items():
        assert family.form.partition(":")[0].partition("-LANG")[0].startswith(name.partition(":")[0])
        assert family.about and "\n" not in family.about


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sonar-text", ("", None, {})),
        ("sonar-text#language=fra_Latn", ("", None, {"language": "fra_Latn"})),
        ("sonar-text@v1#layer=3", ("", "v1", {"layer": "3"})),
        ("sonar-text:OWNER/NAME@v1", ("OWNER/NAME", "v1", {})),
    ],
)
def test_a_family_with_a_model_of_its_own_needs_no_name(text: str, expected: tuple[object, ...]) -> None:
    spec = parse_spec(text)
    assert (spec.model, spec.revision, dict(spec.options)) == expected
    assert str(spec) == canonical_spec(text) == text


def test_a_family_tells_whether_what_it_needs_is_installed() -> None:
    assert Family("x", "x", "x", "x", needs=("json", "email.message")).installed
    assert not Family("x", "x", "x", "x", needs=("json", "no.such.module")).installed
    assert FAMILIES["hf"].needs == ("transformers",)
    assert Family("x", "x", "x", "x").installed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:O/N#layer=two", "whole number as layer="),
        ("hf:O/N#pool=max", "pool=mean or cls or last"),
        ("hf:O/N#normalise=1", "normalise=no or yes"),
        ("sonar-text#layer=x", "whole number"),
    ],
)
def test_an_option_of_another_kind_is_refused_before_anything_is_loaded(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"expected {message}|expected a {message}"):
        load_encoder(text)


def test_precision_is_checked() -> None:
    with pytest.raises(InputError, match="expected a precision of auto, float32, bfloat16, found 'int8'"):
        load_encoder("minilm", precision="int8")


def test_importing_is_light() -> None:
    code = (
        "import sys, fliplens.encoders as e; e.known_encoders()\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_known_encoders_are_described() -> None:
    assert {"minilm", "labse", "st:MODEL[@REVISION]", "hf:MODEL[@REVISION]"} <= set(known_encoders())
    assert all(known_encoders().values())


@pytest.mark.parametrize("spec", ["word2vec", "", "a/b/c", "/nowhere/at/all"])
def test_unknown_specs_are_told_what_is_known(spec: str) -> None:
    with pytest.raises(InputError, match=r"name one of minilm, labse, st:MODEL.*OWNER/NAME") as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["st:./nowhere", "st:/nowhere/at/all", "st:~/nowhere/at", "st:a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(spec: str) -> None:
    with pytest.raises(InputError, match="found none: check the path"):
        load_encoder(spec)


def test_batch_size_is_checked() -> None:
    with pytest.raises(InputError, match=r"^expected a batch size of 1 or more, found 0: leave it out"):
        load_encoder("minilm", batch_size=0)
