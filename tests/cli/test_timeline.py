"""The timeline: in the terminal, as JSON, and as a page that a browser is driven through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import as_json
from s3_checkpoint.web.page_json import CHANGES_SHOWN, STATE_BYTES
from tests.browser import found, log_of, open_at, text_of
from tests.cli.pages import page
from tests.command_line import FIRST, FORK, Cli

HOSTILE = "</script><img src=x onerror=\"document.title='taken over'\"><!--"


def test_the_document_has_steps_changes_gaps_and_forks(three_runs: Cli) -> None:
    """For programs; the fork is found among the other runs."""
    document = three_runs.json("timeline", "aaaa0")

    steps = {step["step"]: step for step in document["steps"]}
    assert list(steps) == [*range(7), *range(11, 16)]
    assert steps[11]["missing_before"] == [7, 10]
    assert steps[12]["missing_before"] is None
    assert {change["path"] for change in steps[12]["changes"]} == {
        "$.notes[11]",
        "$active[0].node_name",
        "$active[0].payload.section",
    }
    assert document["forks"] == [{"run_id": str(FORK), "step": 3}]
    assert three_runs.json("timeline", str(FORK))["steps"][0]["origin"] == {"run_id": str(FIRST), "step": 3}
    assert three_runs.json("timeline", "aaaa0", "--no-forks")["forks"] == []


def test_timeline_in_the_terminal_has_a_line_for_each_step(three_runs: Cli) -> None:
    """With gap and fork between them, and a note of what is not shown."""
    shown = three_runs("timeline", "aaaa0", "--output", "table").stdout

    assert "steps 7–10 missing" in shown
    assert f"forked as {FORK}" in shown
    assert shown.count("█") > 12
    assert "the last 2 of 12 steps" in three_runs("timeline", "aaaa0", "-n", "2").stderr


def test_a_page_that_cannot_be_written_is_said(three_runs: Cli, tmp_path: Path) -> None:
    """With the reason."""
    result = three_runs("timeline", "aaaa0", "--html", str(tmp_path / "no" / "such" / "folder.html"))

    assert result.exit_code == 5
    assert "No such file or directory" in result.stderr


def test_a_page_is_written_over_nothing_unless_forced(three_runs: Cli, tmp_path: Path) -> None:
    """Neither over a file, nor through a link, whatever it leads to; `--force` says that it is meant."""
    file, link, nowhere = tmp_path / "file.html", tmp_path / "link.html", tmp_path / "nowhere.html"
    file.write_text("mine")
    link.symlink_to(file)
    nowhere.symlink_to(tmp_path / "not-there")

    for path in (file, link, nowhere):
        refused = three_runs("timeline", "aaaa0", "--html", str(path))
        assert (refused.exit_code, "--force" in refused.stderr) == (ExitCode.CONFLICT, True)
    assert file.read_text() == "mine"
    assert not (tmp_path / "not-there").exists()

    forced = three_runs("timeline", "aaaa0", "--html", str(file), "--force")
    assert forced.exit_code == 0
    assert file.read_text().startswith("<!doctype html>")


def test_a_document_written_row_by_row_is_the_document(three_runs: Cli) -> None:
    """Indented as any other, or on one line; steps of which one is held at a time."""
    indented = three_runs("timeline", "aaaa0", "--output", "json").stdout
    line = three_runs("timeline", "aaaa0", "--output", "jsonl").stdout

    assert indented == as_json(json.loads(indented), indent=True) + "\n"
    assert line == as_json(json.loads(indented)) + "\n"


def test_a_key_of_a_state_is_never_a_property_of_the_page() -> None:
    """`__proto__` as a key is data: the page parses it as JSON, where it is a key like any other."""
    text = page(document(step(0, {"__proto__": {"polluted": True}})))

    assert '<script type="application/json" id="data">{' in text
    assert '"__proto__"' in text


def test_the_tasks_and_changes_of_a_page_are_bounded() -> None:
    """Large payloads, many tasks and many changes are left out with a note, as large states are."""
    tasks = [{"node_name": f"node-{n}", "payload": "p" * 10_000} for n in range(200)]
    large = [{"node_name": "large", "payload": "p" * 1_000_000}]
    changes = [{"path": f"$.n[{n}]", "change": "added", "after": "x" * 10_000} for n in range(300)]

    text = page(document(step(0, 1, changes, active=tasks), step(1, 1, active=large)))
    many, one = json.loads(text.split('id="data">')[1].split("</script>")[0])["steps"]

    assert len(text) < 1_000_000
    for name, count in (("active", 200), ("changes", 300)):
        assert 10 < len(many[name]) < count
        assert many[name + "_left_out"] == count - len(many[name])
    assert one["active"][0]["payload"] == "… 1,000,002 bytes"


def step(number: int, state: Any, changes: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "run_id": str(UUID(int=1)),
        "step": number,
        "last_modified": f"2026-01-01T00:00:{number % 60:02d}+00:00",
        "size": 100 + number,
        "schema_version": "1",
        "write_id": "w",
        "committed": True,
        "encoding": None,
        "origin": None,
        "active": [{"node_name": f"node-{number % 3}", "payload": {"text": HOSTILE}}],
        "state": state,
        "changes": changes or [],
        "missing_before": None,
        "pause_s": 1.0,
        **fields,
    }


def document(*steps: dict[str, Any]) -> Any:
    forks = [{"run_id": str(UUID(int=2)), "step": steps[0]["step"]}]
    return {"run_id": str(UUID(int=1)), "namespace": "", "bucket": "s3://b", "steps": list(steps), "forks": forks}


def test_values_too_large_for_a_page_are_left_out_with_a_note() -> None:
    """A page stays one that a browser opens."""
    many = [{"path": f"$.n[{n}]", "change": "added", "after": "x" * STATE_BYTES} for n in range(CHANGES_SHOWN + 7)]

    text = page(document(step(0, "x" * STATE_BYTES, many)))

    assert f'"state_left_out":{STATE_BYTES + 2}' in text
    assert '"changes_left_out":7' in text
    assert page(document(*[step(n, "y" * 200_000) for n in range(100)])).count('"state":null') == 17
    assert len(text) < 200_000


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_steps_through_the_run(three_runs: Cli, browser: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    """By click, key and slider; each step shows its state and what it changed. At two widths."""
    path = tmp_path / "run.html"
    result = three_runs("timeline", "aaaa0", "--html", str(path))
    assert result.exit_code == 0, result.stderr
    open_at(browser, path.as_uri(), width)

    assert text_of(browser, "h1") == f"Run {FIRST}"
    assert len(found(browser, ".step .bar")) == 12
    assert len(found(browser, "svg .gap")) == 1
    assert len(found(browser, "svg .fork")) == 1
    assert text_of(browser, "#where") == "step 15 (12 of 12)"
    assert "$.final" in text_of(browser, "#changes")
    assert not found(browser, "#next")[0].is_enabled()

    found(browser, "#previous")[0].click()
    assert text_of(browser, "#where") == "step 14 (11 of 12)"
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.HOME)
    assert text_of(browser, "#where") == "step 0 (1 of 12)"
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
    assert text_of(browser, "#where") == "step 1 (2 of 12)"
    assert "note <0>" in text_of(browser, "#changes")
    assert "note <0>" in text_of(browser, "#state .touched")
    found(browser, "#slider")[0].send_keys(Keys.END)
    assert text_of(browser, "#where") == "step 15 (12 of 12)"
    browser.execute_script("arguments[0].scrollIntoView({inline: 'center'})", found(browser, ".step .bar")[7])
    found(browser, ".step .bar")[7].click()
    assert text_of(browser, "#where") == "step 11 (8 of 12)"
    assert "missing before it: steps 7 to 10" in text_of(browser, "#stored")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert log_of(browser, "browser") == []


def test_the_page_asks_the_network_for_nothing_and_runs_nothing_of_the_states(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """Whatever a state holds is shown as text."""
    browser.get("about:blank")
    log_of(browser, "performance")
    path = tmp_path / "hostile.html"
    changes = [{"path": "$.text", "change": "changed", "before": HOSTILE, "after": HOSTILE * 2}]
    path.write_text(page(document(step(0, {"text": HOSTILE}), step(1, {HOSTILE: HOSTILE}, changes))), encoding="utf-8")

    open_at(browser, path.as_uri(), 1280)

    assert browser.title == f"Run {UUID(int=1)}"
    assert HOSTILE in text_of(browser, "#state").replace('\\"', '"')
    assert not found(browser, "img")
    asked = [
        line["message"] for line in log_of(browser, "performance") if "Network.requestWillBeSent" in line["message"]
    ]
    assert all(path.as_uri() in message for message in asked)
    assert len(asked) == 1


def test_changes_are_marked_in_the_state_whatever_their_key(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Keys with dots, quotes and brackets included; what did not change is folded."""
    path = tmp_path / "keys.html"
    state = {"a.b": {"x]": 1}, "a": {"b": {"x]": 2}}, "it's": [1, [2]]}
    at: list[list[Any]] = [["a.b", "x]"], ["it's", 1, 0]]
    changes = [{"path": "$…", "change": "changed", "before": 0, "after": 1, "at": keys} for keys in at]
    path.write_text(page(document(step(0, state, changes))), encoding="utf-8")

    open_at(browser, path.as_uri(), 1280)

    assert [mark.text for mark in found(browser, "#state .touched")] == ["1", "2"]
    assert [folded.text for folded in found(browser, "#state details:not([open])")] == ["a: {1}"]


def test_numbers_are_shown_as_they_are_stored(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """A browser's numbers end at 2^53, and 1.0 is not 1."""
    path = tmp_path / "numbers.html"
    changes = [{"path": "$.id", "change": "changed", "before": 1, "after": 1.0}]
    state = {"id": 12345678901234567890, "score": 1.0, "half": 0.5, "list": [2**53 + 1]}
    path.write_text(page(document(step(2**64 - 1, state, changes))), encoding="utf-8")

    open_at(browser, path.as_uri(), 1280)
    for summary in found(browser, "#state details:not([open]) > summary"):
        summary.click()

    assert "id: 12345678901234567890" in text_of(browser, "#state")
    assert "score: 1.0" in text_of(browser, "#state")
    assert "9007199254740993" in text_of(browser, "#state")
    assert [value.text for value in found(browser, "#changes .value")] == ["1", "1.0"]
    assert text_of(browser, "#where") == "step 18446744073709551615 (1 of 1)"


def test_a_long_pause_is_marked(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Over the step it came before."""
    path = tmp_path / "pause.html"
    steps = [step(n, {"n": n}, pause_s=9000.0 if n == 5 else 2.0) for n in range(9)]
    path.write_text(page(document(*steps)), encoding="utf-8")

    open_at(browser, path.as_uri(), 390)

    assert [mark.text for mark in found(browser, "svg .pause")] == ["+2.5 h"]
