"""The key grammar: building and parsing are each other's inverse, and byte order is step order."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_checkpoint import InvalidArgumentError
from s3_checkpoint._format.keys import (
    MAX_STEP,
    RunKeys,
    check_run_id,
    check_step,
    decode_segment,
    encode_segment,
    new_write_id,
    parse_run_prefix,
    runs_prefix,
)
from tests.states import RUN

STEPS = st.integers(0, MAX_STEP)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PREFIXES = st.sampled_from(["", "team", "a/b", "/odd/"])


@given(prefix=PREFIXES, run_id=st.uuids(), namespace=TEXT, step=STEPS)
def test_a_state_key_parses_to_its_step(prefix: str, run_id: UUID, namespace: str, step: int) -> None:
    """Whatever prefix, run, namespace and step."""
    run = RunKeys(prefix, run_id, namespace)

    assert run.parse_state(run.state(step)) == step
    assert run.parse_active(run.state(step)) is None


@given(run_id=st.uuids(), namespace=TEXT, step=STEPS, write_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
def test_an_active_key_parses_to_step_and_write_id(run_id: UUID, namespace: str, step: int, write_id: str) -> None:
    """`save_active`'s key has no write id."""
    run = RunKeys("p", run_id, namespace)

    assert run.parse_active(run.active(step)) == (step, None)
    assert run.parse_active(run.committed_active(step, write_id)) == (step, write_id)
    assert run.parse_state(run.active(step)) is None


@given(STEPS, STEPS)
def test_byte_order_is_step_order(a: int, b: int) -> None:
    """Which is what lets a listing find the latest."""
    run = RunKeys("", RUN)

    assert (run.state(a).encode() < run.state(b).encode()) == (a < b)


@given(TEXT)
def test_a_segment_is_one_segment_and_comes_back(text: str) -> None:
    """No value can leave its place: no slash, no dot, nothing but ASCII."""
    segment = encode_segment(text)

    assert decode_segment(segment) == text
    assert set(segment) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_%")


@given(TEXT, TEXT)
def test_namespaces_do_not_share_keys(a: str, b: str) -> None:
    """Nor is one the prefix of another."""
    one, other = RunKeys("", RUN, a), RunKeys("", RUN, b)

    assert a == b or not other.state(0).startswith(one.steps)


def test_the_layout_is_as_documented() -> None:
    """These keys are in users' buckets; they do not change."""
    run = RunKeys("/team/", RUN)

    assert run.state(7) == f"team/runs/{RUN}/steps/00000000000000000007.json"
    assert run.active(7) == f"team/runs/{RUN}/active/00000000000000000007.json"
    assert run.committed_active(7, "ab12") == f"team/runs/{RUN}/active/00000000000000000007.ab12.json"
    assert RunKeys("", RUN, "a/b.c").state(0) == (f"runs/{RUN}/namespaces/a%2Fb%2Ec/steps/00000000000000000000.json")


@pytest.mark.parametrize(
    "name",
    ["7.json", "0" * 21 + ".json", "18446744073709551616.json", "٠" * 20 + ".json", "-" + "0" * 19 + ".json",
     "0" * 20, "0" * 20 + ".json.bak", "x/" + "0" * 20 + ".json", " " + "0" * 19 + ".json", "0" * 20 + ".json\n"],
)  # fmt: skip
def test_keys_that_only_look_like_a_step_are_none(name: str) -> None:
    """A foreign key among the steps is skipped."""
    run = RunKeys("", RUN)

    assert run.parse_state(run.steps + name) is None


@pytest.mark.parametrize("bad", ["", "abc", "../x", "{" + str(RUN) + "}", "urn:uuid:" + str(RUN), RUN.hex, 7, None])
def test_a_run_id_that_is_no_uuid_is_refused(bad: object) -> None:
    """Braces, URNs and bare hexadecimals included: two spellings would be two runs."""
    with pytest.raises(InvalidArgumentError) as caught:
        check_run_id(bad)  # type: ignore[arg-type]

    assert caught.value.argument == "run_id"
    assert 'uuid5(NAMESPACE_URL, "my-run")' in str(caught.value)
    assert "ulid.to_uuid()" in str(caught.value)


def test_a_run_id_may_be_text_in_either_case() -> None:
    """It is canonical in the key."""
    assert check_run_id(str(RUN).upper()) == RUN


@pytest.mark.parametrize("bad", [-1, 2**64, True, "3", 1.0, None])
def test_a_step_out_of_bounds_is_refused(bad: object) -> None:
    """0 … 2^64-1, and an int."""
    with pytest.raises(InvalidArgumentError, match="2\\^64-1"):
        check_step(bad)  # type: ignore[arg-type]


def test_keys_too_long_for_s3_are_refused() -> None:
    """Before any request, with both numbers."""
    with pytest.raises(InvalidArgumentError, match="1024"):
        RunKeys("", uuid4(), "é" * 200)


@pytest.mark.parametrize("letter", ["p", "é"])
def test_the_longest_key_of_a_run_just_fits(letter: str) -> None:
    """A prefix whose last step's snapshot has a key of 1,024 bytes is taken, one of a byte more is not."""
    room = 1024 - len(RunKeys("", RUN).committed_active(MAX_STEP, new_write_id())) - 1
    count, rest = divmod(room, len(letter.encode()))
    prefix = letter * count + "x" * rest

    assert len(RunKeys(prefix, RUN).committed_active(MAX_STEP, new_write_id()).encode()) == 1024
    with pytest.raises(InvalidArgumentError, match="1025"):
        RunKeys(prefix + "x", RUN)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_namespace_with_a_lone_surrogate_is_refused(text: str) -> None:
    """It has no bytes."""
    with pytest.raises(InvalidArgumentError):
        RunKeys("", RUN, text)


def test_runs_are_told_from_what_else_is_there() -> None:
    """By delimiter listing of `runs/`."""
    assert parse_run_prefix("team", f"team/runs/{RUN}/") == RUN
    assert parse_run_prefix("team", "team/runs/not-a-run/") is None
    assert parse_run_prefix("team", f"other/runs/{RUN}/") is None
    assert parse_run_prefix("", runs_prefix("")) is None
