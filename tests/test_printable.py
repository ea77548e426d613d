"""Foreign text: nothing of it that a terminal would act on is left, and nothing of it is lost."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_checkpoint._printable import ESCAPING, printable

ACTED_ON = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ANY_TEXT = st.text(st.characters(codec=None, categories=None, exclude_categories=()))


@given(ANY_TEXT)
def test_no_character_is_left_that_a_terminal_acts_on(text: str) -> None:
    """Whatever the text: controls, bidirectional overrides, separators and surrogates included."""
    assert not {unicodedata.category(char) for char in printable(text)} & ACTED_ON


@pytest.mark.parametrize(
    "char",
    [chr(code) for code in (0, 7, 9, 10, 13, 27, 0x7F, 0x85, 0x9B, 0x61C, 0x200B, 0x200E, 0x2028, 0x2029, 0x202E)]
    + [chr(code) for code in (0x2066, 0x2069, 0xFEFF, 0xD800, 0xDFFF, 0xE000, 0xE0041, 0x10FFFF)],
)
def test_the_escape_is_json_s_own(char: str) -> None:
    """So a JSON text can be escaped as a whole."""
    shown = printable(char)

    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == char


@given(st.recursive(ANY_TEXT | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_json_escaped_as_a_whole_has_the_same_value(value: object) -> None:
    """Keys and values, indented or not."""
    text = json.dumps(value, ensure_ascii=False, indent=2)

    assert json.loads(printable(text, keep="\n")) == value


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_text_of_any_language_stays_as_it_is(text: str) -> None:
    """Letters, marks, digits, punctuation, symbols and spaces."""
    assert printable(text) == text


def test_characters_that_a_stream_cannot_encode_are_escaped() -> None:
    """A terminal that knows Latin-1 only, and lone surrogates anywhere."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="latin-1", errors=ESCAPING) as stream:
        stream.write("é █ \ud800 😀")
        stream.flush()

        assert raw.getvalue() == b"\xe9 \\u2588 \\ud800 \\ud83d\\ude00"
