"""Text values are the typed characters, and quotes mean what they mean to Hydra."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from analysis.load import as_path
from harness.config.compose import quoted
from harness.config.kinds import is_text, read_text

PARSER = OverridesParser.create()
SPECIAL = st.text("ab'\"\\ ~ä,=()[]{}$1.", max_size=8)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("2026_11_26", "2026_11_26"),
        ("1.10", "1.10"),
        ("a,b", "a,b"),
        ("~/x y", "~/x y"),
        ("'my runs/ä'", "my runs/ä"),
        ('"1.10"', "1.10"),
        (r"'it\'s'", "it's"),
        (r"'a\\'", "a\\"),
        (r"C:\new", r"C:\new"),
        ("'a'b'", "'a'b'"),
        ("'", "'"),
        ("", ""),
        ("'null'", "null"),
        ("null", None),
    ],
)
def test_a_text_is_the_typed_characters_without_quotes(typed, text):
    assert read_text(typed) == text


@given(text=SPECIAL)
def test_hydra_reads_a_quoted_text_and_so_does_read_text(text):
    assert PARSER.parse_override(f"key={quoted(text)}").value() == read_text(quoted(text)) == text


@given(inner=SPECIAL, quote=st.sampled_from("'\""))
def test_quotes_mean_what_they_mean_to_hydra(inner, quote):
    typed = f"{quote}{inner}{quote}"
    try:
        read = PARSER.parse_override(f"key={typed}").value()
    except HydraException:
        return
    if isinstance(read, str) and not PARSER.parse_override(f"key={typed}").is_sweep_override():
        assert read_text(typed) == read


@given(typed=SPECIAL)
def test_the_analysis_reads_run_directories_as_the_harness_does(typed):
    text = read_text(f"/x{typed}")
    assert str(as_path(f"/x{typed}")) == str(as_path(quoted(text)))


def test_texts_are_known_by_their_type():
    assert is_text(str)
    assert is_text(str | None)
    assert not is_text(int | str)
    assert not is_text(list[str])
    assert not is_text(type(None))
