"""What both runners do, over real sockets: one suite, each case in Python and in Node."""

import asyncio
import hashlib
import json
import os
import random

from tests.runners.conftest import Start
from tests.runners.driver import Ended

from sth_sandbox.runners import frames

TEXT = "text/plain"
OCTET = "application/octet-stream"
NDJSON = "application/x-ndjson"


def check_frames(ended: Ended) -> None:
    """Positions go on without a gap, flags are true, and END is the last."""
    offset = number = 0
    at_line_start = True
    lines = ended.declared["content_type"] != OCTET
    for header, payload in ended.output[1:]:
        assert (header.offset, header.number) == (offset, number)
        if header.type == frames.END:
            continue
        count = payload.count(b"\n") if lines else 0
        whole = lines and at_line_start and payload.endswith(b"\n")
        assert header.count == count
        assert bool(header.flags & frames.RECORDS) == whole
        at_line_start = payload.endswith(b"\n")
        offset += len(payload)
        number += count
    assert [f.header.type for f in ended.output].index(frames.END) == len(ended.output) - 1


async def test_text_passes_unchanged(start: Start) -> None:
    text = "".join(f"{n} äöü€𝄞 line\n" for n in range(5000)).encode() + b"no newline"
    cuts = sorted(random.Random(1).sample(range(len(text)), 40))
    async with start("pass_lines") as runner:
        await runner.open_input(TEXT)
        for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            await runner.feed(text[begin:end])
        await runner.end_input()
        ended = await runner.wait()
    assert ended.code == 0
    assert ended.content == text
    assert ended.declared == {"content_type": TEXT, "provides": {"contentType": TEXT}} or (
        ended.declared == {"content_type": TEXT, "provides": {}}
    )
    check_frames(ended)


async def test_bytes_pass_unchanged_and_uncut(start: Start) -> None:
    chunks = [os.urandom(size) for size in (1, 65536, 1 << 20, 70000, 3)]
    async with start("pass_bytes") as runner:
        await runner.open_input(OCTET)

        async def feed() -> None:
            await runner.feed(*chunks)
            await runner.end_input()

        feeding = asyncio.create_task(feed())
        ended = await runner.wait()
        await feeding
    assert ended.code == 0
    assert hashlib.sha256(ended.content).digest() == hashlib.sha256(b"".join(chunks)).digest()
    check_frames(ended)


async def test_values_come_as_objects_and_leave_as_lines(start: Start) -> None:
    async with start("double_values") as runner:
        await runner.open_input(NDJSON)
        await runner.feed(b'{"n": 1}\n{"n"', b": 2}\n\n  \n", b'{"n": 3}')
        await runner.end_input()
        ended = await runner.wait()
    assert ended.code == 0
    assert ended.content == b'{"n":2}\n{"n":4}\n{"n":6}\n'
    assert ended.declared["content_type"] == NDJSON
    check_frames(ended)


async def test_records_of_one_frame_leave_in_few_frames(start: Start) -> None:
    async with start("pass_lines") as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"x" * 99 + b"\n" * 1, (b"y" * 99 + b"\n") * 10000)
        await runner.end_input()
        ended = await runner.wait()
    assert len(ended.content) == 1000100
    assert len(ended.output) < 100


async def test_a_lone_record_leaves_while_the_input_stays_open(start: Start) -> None:
    async with start("pass_lines") as runner:
        await runner.open_input(TEXT)
        for n in range(50):
            await runner.feed(b"ping %d\n" % n)
            expected = b"ping %d\n" % n
            assert await runner.read_output(len(expected)) == expected


async def test_a_source_needs_no_input(start: Start) -> None:
    async with start("count_to", args=[30000]) as runner:
        ended = await runner.wait()
    assert ended.code == 0
    assert ended.content == b"".join(b"%d\n" % n for n in range(30000))
    check_frames(ended)


async def test_a_record_larger_than_a_frame_is_cut_and_not_lost(start: Start) -> None:
    async with start("long_line") as runner:
        ended = await runner.wait()
    assert ended.code == 0
    assert ended.content == b"short\n" + b"x" * 3_000_000 + b"\nshort\n"
    check_frames(ended)


async def test_output_that_nobody_reads_holds_the_program(start: Start) -> None:
    async with start("pass_bytes") as runner:
        await runner.open_input(OCTET)
        chunk = bytes(65536)
        accepted = 0
        try:
            async with asyncio.timeout(10):
                while accepted < 1000:
                    async with asyncio.timeout(0.5):
                        await runner.feed(chunk)
                    accepted += 1
        except TimeoutError:
            pass
        assert accepted < 400  # 25 MB: what the sockets and a few batches hold


async def test_output_read_late_is_complete(start: Start) -> None:
    async with start("many_chunks", args=[300]) as runner:
        await runner.message("ready")
        ended = await runner.wait()
    assert ended.code == 0
    assert ended.content == b"".join(bytes([n % 256]) * 65536 for n in range(300))


async def test_a_plain_value_is_text(start: Start) -> None:
    async with start("plain_value") as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b"forty-two")
    assert ended.declared["content_type"] == TEXT


async def test_a_value_that_comes_later_is_text(start: Start) -> None:
    async with start("later_value") as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b"42")


async def test_a_program_without_output_runs_until_its_input_ends(start: Start) -> None:
    async with start("nothing") as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"one\n", b"two\n")
        await runner.end_input()
        ended = await runner.wait()
    assert (ended.code, ended.content, ended.stdout) == (0, b"", "one\ntwo\n")
    check_frames(ended)


async def test_arguments_and_configuration_reach_the_program(start: Start) -> None:
    async with start("tell_start", args=[1, "two", {"3": 4}], config={"a": [1]}) as runner:
        ended = await runner.wait()
    assert json.loads(ended.content) == {
        "args": [1, "two", {"3": 4}],
        "config": {"a": [1]},
        "id": "11111111-2222-4333-8444-555555555555",
    }


async def test_events_go_both_ways(start: Start) -> None:
    async with start("echo_events") as runner:
        assert (await runner.message("event"))["name"] == "listening"
        await runner.send("event", name="ask", message={"n": 1})
        answer = await runner.message("event")
        assert (answer["name"], answer["message"]) == ("answer", {"got": {"n": 1}})
        await runner.send("event", name="ask", message="end")
        assert (await runner.wait()).code == 0


async def test_log_lines_have_message_level_time_and_origin(start: Start) -> None:
    async with start("log") as runner:
        ended = await runner.wait()
    assert [(line["msg"], line["level"]) for line in ended.logs] == [
        ("hello log", "INFO"),
        ("bad", "ERROR"),
    ]
    assert all(line["ts"] > 1_600_000_000_000 and line["from"] for line in ended.logs)


async def test_standard_streams_are_the_programs_own(start: Start) -> None:
    async with start("standard_streams") as runner:
        os.write(runner.stdin, b"typed\n")
        ended = await runner.wait()
    assert (ended.code, ended.stdout, ended.stderr) == (0, "out typed\n", "err\n")


async def test_topics_are_announced(start: Start) -> None:
    async with start("feeds_topic") as runner:
        await runner.message("ready")
        await runner.open_input(NDJSON)
        await runner.feed(b'{"n":1}\n')
        await runner.end_input()
        ended = await runner.wait()
    ready = ended.of_type("ready")[-1]
    assert ready["requires"] == {"requires": "raw", "contentType": NDJSON}
    assert ready["provides"] == {"provides": "clean", "contentType": NDJSON}
    assert ready["content_type"] == NDJSON
    assert ended.declared == {"content_type": NDJSON, "provides": ready["provides"]}
    assert ended.content == b'{"n":1}\n'


async def test_consumed_stops_before_the_record_in_hand(start: Start) -> None:
    rows = [b'{"n": 1}\n', b'{"n": 2}\n', b'{"n": 3}\n']
    async with start("wait_for_go") as runner:
        await runner.open_input(NDJSON)
        await runner.feed(b"".join(rows))
        assert await runner.read_output(16) == b'{"n":1}\n{"n":2}\n'
        consumed = await runner.message("consumed")
        assert (consumed["offset"], consumed["sequence"]) == (len(rows[0]), 1)
        await runner.send("event", name="go")
        while consumed["sequence"] < 3:
            consumed = await runner.message("consumed")
        assert consumed["offset"] == len(b"".join(rows))
        await runner.end_input()
        assert (await runner.wait()).code == 0


async def test_a_frame_cut_by_a_dead_agent_is_sent_again_by_its_successor(start: Start) -> None:
    first, second = b"first line\n", b"second line\n"
    async with start("pass_lines") as runner:
        await runner.open_input(TEXT)
        await runner.feed(first)
        cut = frames.pack_frame(frames.DATA, second, count=1, offset=len(first), number=1)
        for token in (b"0123456789abcdef", b"fedcba9876543210"):
            await runner.input.send_raw(cut[:-3])
            await runner.control.send_raw(frames.pack_frame(frames.RESYNC, token))
            answer = await runner.message("resynced")
            assert answer == {
                "type": "resynced",
                "token": token.hex(),
                "offset": len(first),
                "sequence": 1,
                "content_type": TEXT,
                "ended": False,
            }
        await runner.input.send_raw(cut)
        await runner.end_input()
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, first + second)


async def test_resync_before_anything_was_sent(start: Start) -> None:
    async with start("pass_lines") as runner:
        await runner.message("ready")
        await runner.control.send_raw(frames.pack_frame(frames.RESYNC, bytes(16)))
        answer = await runner.message("resynced")
        assert (answer["offset"], answer["content_type"], answer["ended"]) == (0, None, False)


async def test_stop_runs_the_handler_and_sends_what_was_given_out(start: Start) -> None:
    async with start("stop_handler") as runner:
        assert await runner.read_output(7) == b"before\n"
        await runner.send("stop", timeout_ms=2500, can_keepalive=False)
        ended = await runner.wait()
    assert ended.code == 138
    assert [line["msg"] for line in ended.logs] == ["stopping in 2.5 s"]
    assert len(ended.of_type("stopped")) == 1
    assert ended.output[-1].header.type == frames.END


async def test_keep_alive_puts_a_stop_off_once(start: Start) -> None:
    async with start("keep_alive") as runner:
        await runner.read_output(3)
        await runner.send("stop", timeout_ms=1000, can_keepalive=True)
        assert (await runner.message("alive"))["keepalive_ms"] == 1
        # The program still answers: another stop, which the handler lets pass.
        while True:
            await runner.send("stop", timeout_ms=1000, can_keepalive=True)
            try:
                async with asyncio.timeout(1):
                    await runner.message("stopped")
                break
            except TimeoutError:
                continue
        assert (await runner.wait()).code == 138


async def test_kill_ends_at_once(start: Start) -> None:
    async with start("stop_handler") as runner:
        await runner.read_output(7)
        await runner.send("kill")
        assert (await runner.wait()).code == 137


async def test_kill_needs_no_reader_of_the_output(start: Start) -> None:
    async with start("many_chunks", args=[10000]) as runner:
        await runner.message("ready")
        await runner.send("kill")
        async with asyncio.timeout(10):
            code = await runner._exit_code()
    assert code == 137


async def test_the_end_of_control_ends_the_instance(start: Start) -> None:
    async with start("stop_handler") as runner:
        await runner.read_output(7)
        runner.control.socket.shutdown(2)
        assert (await runner.wait()).code == 137


async def test_a_program_may_end_itself(start: Start) -> None:
    async with start("ends_itself") as runner:
        ended = await runner.wait()
    assert ended.code == 0
    assert b"last" in ended.content


async def test_a_program_may_destroy_itself(start: Start) -> None:
    async with start("destroys_itself") as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert "enough" in ended.of_type("error")[0]["message"]


async def test_a_failing_health_check_is_told(start: Start) -> None:
    async with start("unhealthy") as runner:
        assert (await runner.message("health"))["healthy"] is False


async def test_a_missing_main_is_a_bad_entry_point(start: Start) -> None:
    async with start("nothing", main="absent.file") as runner:
        ended = await runner.wait()
    error = ended.of_type("error")[0]
    assert (ended.code, error["exit_code"]) == (21, 21)
    assert "absent.file" in error["message"]


async def test_a_main_outside_of_the_package_is_a_bad_entry_point(start: Start) -> None:
    async with start("nothing", main="../../etc/passwd") as runner:
        ended = await runner.wait()
    assert ended.code == 21
    assert "outside" in ended.of_type("error")[0]["message"]


async def test_a_program_without_a_function_is_a_bad_entry_point(start: Start) -> None:
    async with start("no_function") as runner:
        ended = await runner.wait()
    assert ended.code == 21
    assert ended.of_type("ready") == []


async def test_a_program_that_fails_to_load_says_where(start: Start) -> None:
    async with start("fail_loading") as runner:
        ended = await runner.wait()
    error = ended.of_type("error")[0]
    assert (ended.code, error["exit_code"]) == (22, 22)
    assert error["traceback"]["message"] == "not today"
    assert [frame["line"] for frame in error["traceback"]["frames"]] == [1]
    assert "not today" in error["traceback"]["frames"][0]["source"]
    assert "not today" in ended.stderr


async def test_a_syntax_error_says_where(start: Start) -> None:
    async with start("syntax_error") as runner:
        ended = await runner.wait()
    error = ended.of_type("error")[0]
    assert ended.code == 22
    assert error["traceback"]["type"] == "SyntaxError"
    assert error["traceback"]["frames"][-1]["line"] == 2


async def test_a_crash_keeps_the_output_and_names_the_authors_lines(start: Start) -> None:
    async with start("fail_after_output") as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert ended.content == b"first\n"
    assert ended.output[-1].header.type == frames.END
    error = ended.of_type("error")[0]
    assert error["message"].endswith("went wrong")
    found = error["traceback"]["frames"]
    assert [frame["function"].split(".")[-1] for frame in found][-1] == "inner"
    assert len(found) == 2
    assert all(not frame["file"].startswith("/") for frame in found)
    assert "went wrong" in ended.stderr
    assert "sth_sandbox" not in ended.stderr


async def test_output_of_a_wrong_type_is_explained(start: Start) -> None:
    async with start("wrong_items") as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert "output" in ended.of_type("error")[0]["message"]


async def test_input_of_an_unknown_type_is_explained(start: Start) -> None:
    async with start("pass_lines") as runner:
        await runner.open_input("image/png")
        ended = await runner.wait()
    assert ended.code == 23
    assert "image/png" in ended.of_type("error")[0]["message"]


async def test_a_line_that_is_no_json_is_shown(start: Start) -> None:
    async with start("double_values") as runner:
        await runner.open_input(NDJSON)
        await runner.feed(b'{"n": 1}\n{broken\n')
        ended = await runner.wait()
    assert ended.code == 23
    assert ended.content == b'{"n":2}\n'
    assert "{broken" in ended.of_type("error")[0]["message"]


async def test_input_that_breaks_off_is_not_its_end(start: Start) -> None:
    async with start("pass_lines") as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"one\n")
        assert await runner.read_output(4) == b"one\n"
        runner.input.socket.shutdown(1)
        ended = await runner.wait()
    assert ended.code != 0
