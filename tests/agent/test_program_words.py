"""What a hostile program may say of itself, and what is passed on of it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sth_agent import program_words
from sth_protocol import codec
from sth_protocol.control import PAGE_BYTES
from sth_protocol.model import InstanceReport, from_map, to_map

# With halves of characters, as JSON escapes can name them.
TEXT = st.text(st.characters(codec="utf-8") | st.just("\ud800"), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(
    st.sampled_from(["exit_code", "message", "traceback", "frames", "type", "file"]),
    JSON | st.fixed_dictionaries({"type": JSON, "message": JSON, "frames": st.lists(JSON)}),
)


@settings(max_examples=300)
@given(JSON, MESSAGES)
def test_whatever_is_said_can_be_sent(said: Any, message: dict[str, Any]) -> None:
    report = InstanceReport(
        instance="i",
        sequence="s",
        state="running",
        requires=program_words.declaration(said),
        error=program_words.error(message),
    )
    codec.unpack(codec.pack(to_map(report)))
    assert from_map(InstanceReport, to_map(report)) == report
    assert 0 <= program_words.whole(said) < 2**63


def test_longest_report_fits_into_a_page_of_the_list() -> None:
    endless = "\U0001f600" * 100_000
    frame = {"file": endless, "line": 2**62, "function": endless, "source": endless}
    error = program_words.error(
        {
            "exit_code": 23,
            "message": endless,
            "traceback": {"type": endless, "message": endless, "frames": [frame] * 1000},
        }
    )
    declared = program_words.declaration({f"{n}{endless}": endless for n in range(1000)})
    report = InstanceReport(
        instance="i" * 36,
        sequence="s" * 36,
        state="errored",
        reason=f"Failed during execution: {error['message']}",
        requires=declared,
        provides=declared,
        error=error,
    )
    # What the sandbox enforces is said beside it.
    assert len(codec.pack(to_map(report))) < PAGE_BYTES - 8192


def test_ordinary_words_are_passed_on_as_they_are() -> None:
    declared = {"requires": "topic", "contentType": "text/plain"}
    assert program_words.declaration(declared) == declared
    frame = {"file": "main.py", "line": 7, "function": "run", "source": "raise E"}
    told = {
        "exit_code": 23,
        "message": "E: w\u00e4re",
        "traceback": {"type": "E", "message": "w\u00e4re", "frames": [frame]},
    }
    assert program_words.error(told) == told
    assert program_words.error({"exit_code": 21, "message": "m", "traceback": None}) == {
        "exit_code": 21,
        "message": "m",
        "traceback": None,
    }


def test_innermost_frames_are_kept() -> None:
    frames = [{"file": "main.py", "line": n} for n in range(100)]
    kept = program_words.error({"traceback": {"frames": frames}})["traceback"]["frames"]
    assert [each["line"] for each in kept] == list(range(76, 100))
