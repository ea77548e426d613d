"""The key grammar of long-term memory: what is built parses back, nothing aliases, a listing shows what is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_checkpoint._format.keys import MAX_KEY_BYTES
from s3_checkpoint._format.memory_keys import ItemName, item_key, memories_prefix, namespace_prefix, parse_item
from s3_checkpoint._format.thread_keys import MAX_PREFIX_BYTES, is_hashed, parse_segment
from s3_checkpoint.errors import InvalidArgumentError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LABELS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), max_size=4).map(tuple)


@given(LABELS, TEXT)
def test_a_built_key_parses_back(namespace: tuple[str, ...], key: str) -> None:
    """Labels and key in clear, but for those that are hashed."""
    found = parse_item("a/prefix", item_key("a/prefix", namespace, key))

    assert found is not None
    assert is_hashed(found.name) or parse_segment(found.name) == key
    assert len(found.labels) == len(namespace)
    assert found.namespace in (namespace, None)
    assert (found.namespace is None) == any(map(is_hashed, found.labels))


@given(LABELS, TEXT, LABELS, TEXT)
def test_two_items_never_share_a_key(
    one: tuple[str, ...], one_key: str, other: tuple[str, ...], other_key: str
) -> None:
    """Neither by labels that run together, nor by a key that looks like a label."""
    assert (item_key("", one, one_key) == item_key("", other, other_key)) == ((one, one_key) == (other, other_key))


@given(LABELS, TEXT, LABELS)
def test_a_listing_of_a_namespace_shows_what_begins_with_it_and_nothing_else(
    namespace: tuple[str, ...], key: str, listed: tuple[str, ...]
) -> None:
    """`("a",)` lists `("a", "b")`, and never `("ab",)`."""
    shown = item_key("p", namespace, key).startswith(namespace_prefix("p", listed))

    assert shown == (namespace[: len(listed)] == listed)


def test_long_names_are_hashed_and_too_many_labels_are_refused() -> None:
    """Any label and any key go into a key of S3, even under the longest prefix; not any number of labels."""
    prefix, long = "p" * MAX_PREFIX_BYTES, "é" * 2_000

    assert len(item_key(prefix, (long, long, "l" * 80, long), long)) <= MAX_KEY_BYTES
    assert len(item_key("p" * 100, (long,) * 8, long)) <= MAX_KEY_BYTES
    with pytest.raises(InvalidArgumentError, match="namespace makes keys of"):
        item_key("", ("l" * 80,) * 13, "k")
    with pytest.raises(InvalidArgumentError, match="namespace makes keys of"):
        namespace_prefix("", ("l" * 80,) * 13)


def test_text_with_lone_surrogates_is_refused_by_its_own_name() -> None:
    """They have no UTF-8."""
    with pytest.raises(InvalidArgumentError, match="namespace must be text"):
        item_key("", ("\ud800",), "k")
    with pytest.raises(InvalidArgumentError, match="key must be text"):
        item_key("", ("a",), "\ud800")


@pytest.mark.parametrize(
    "key",
    ["", "a", "a/b", ".json", "a/.json", "//k.json", "!/k.json", "!ab/k.json", "a.b/k.json", "%2f/k.json", "k.JSON"],
)
def test_other_keys_are_no_items(key: str) -> None:
    """Not even those that decode to what we would have written otherwise."""
    assert parse_item("p", memories_prefix("p") + key) is None
    assert parse_item("q", memories_prefix("p") + "k.json") is None


def test_an_item_of_no_namespace_has_a_key_of_its_own() -> None:
    """Operations of a batch may name it."""
    assert parse_item("", item_key("", (), "")) == ItemName((), "!")
