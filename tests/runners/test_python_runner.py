"""What only the Python runner does: synchronous programs, decorated ones, tracebacks, modules."""

import os
import sys
from pathlib import Path

import pytest
from tests.runners.conftest import Start
from tests.runners.driver import RUNNERS, spawn, write_program

from sth_sandbox.runners import frames

TEXT = "text/plain"
NDJSON = "application/x-ndjson"


async def test_lines_keep_their_newline_and_invalid_bytes_are_replaced(start_python: Start) -> None:
    source = """
        async def run(context, input):
            async for line in input:
                yield ascii(line) + "|"
    """
    async with start_python(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"a\r\nb\x0bc\n\xff\xfe\n", "\u2028\n".encode(), b"end")
        await runner.end_input()
        ended = await runner.wait()
    assert ended.content == rb"'a\r\n'|'b\x0bc\n'|'\ufffd\ufffd\n'|'\u2028\n'|'end'|"


async def test_a_synchronous_generator_reads_its_input_with_for(start_python: Start) -> None:
    source = """
        def run(context, input):
            for line in input:
                yield line.upper()
    """
    async with start_python(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"one\n")
        assert await runner.read_output(4) == b"ONE\n"
        consumed = await runner.message("consumed")
        assert (consumed["offset"], consumed["sequence"]) == (4, 1)
        await runner.feed(b"two\n")
        assert await runner.read_output(4) == b"TWO\n"
        await runner.end_input()
        assert (await runner.wait()).code == 0


async def test_a_record_leaves_though_its_generator_blocks(start_python: Start) -> None:
    source = """
        import sys

        def run(context, input):
            yield "asked\\n"
            yield sys.stdin.readline()
    """
    async with start_python(source) as runner:
        assert await runner.read_output(6) == b"asked\n"
        os.write(runner.stdin, b"told\n")
        assert await runner.read_output(5) == b"told\n"
        assert (await runner.wait()).code == 0


async def test_a_synchronous_program_that_waits_is_stopped(start_python: Start) -> None:
    source = """
        def run(context, input):
            def stopping(seconds):
                context.logger.info("stopping")
            context.set_stop_handler(stopping)
            try:
                yield "up\\n"
                for line in input:
                    yield line
            finally:
                print("unwound")
    """
    async with start_python(source) as runner:
        assert await runner.read_output(3) == b"up\n"
        await runner.send("stop", timeout_ms=5000, can_keepalive=False)
        ended = await runner.wait()
    assert (ended.code, ended.stdout) == (138, "unwound\n")
    assert [line["msg"] for line in ended.logs] == ["stopping"]


async def test_events_reach_a_synchronous_program_that_waits(start_python: Start) -> None:
    source = """
        def run(context, input):
            context.on("ask", lambda message: context.emit("answer", message))
            for line in input:
                pass
    """
    async with start_python(source) as runner:
        await runner.message("ready")
        await runner.send("event", name="ask", message=1)
        assert (await runner.message("event"))["message"] == 1


async def test_a_stopped_program_is_unwound(start_python: Start) -> None:
    source = """
        async def run(context, input):
            try:
                yield "up\\n"
                async for line in input:
                    yield line
            finally:
                print("unwound")
    """
    async with start_python(source) as runner:
        await runner.read_output(3)
        await runner.send("stop", timeout_ms=5000, can_keepalive=False)
        ended = await runner.wait()
    assert (ended.code, ended.stdout) == (138, "unwound\n")


async def test_a_decorated_function_is_the_sequence(start_python: Start) -> None:
    source = """
        from sth import Context, sequence

        @sequence(input="text/x-ndjson", output="application/x-ndjson")
        async def scale(rows, ctx: Context, factor: float = 1.0, *, offset: int = 0):
            async for row in rows:
                yield {"t": row["t"] * factor + offset, "id": ctx.instance_id[:2]}
    """
    async with start_python(source, args=[2], config={"offset": 3}) as runner:
        ready = await runner.message("ready")
        assert ready["requires"] == {"contentType": "text/x-ndjson"}
        assert ready["provides"] == {"contentType": NDJSON}
        await runner.open_input(NDJSON)
        await runner.feed(b'{"t": 10}\n')
        await runner.end_input()
        ended = await runner.wait()
    assert ended.content == b'{"t":23,"id":"11"}\n'


async def test_arguments_that_do_not_fit_are_explained(start_python: Start) -> None:
    async with start_python("def run(context, input, a): pass\n", args=[1, 2]) as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert "takes 3 positional arguments" in ended.of_type("error")[0]["message"]


async def test_the_operators_of_the_original_work(start_python: Start) -> None:
    source = """
        async def shout(line):
            return line.upper()

        def run(context, input):
            return input.filter(lambda line: line != "b\\n").map(shout).each(print)
    """
    async with start_python(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"a\nb\nc\n")
        await runner.end_input()
        ended = await runner.wait()
    assert ended.content == b"A\nC\n"


async def test_a_loop_that_was_left_goes_on_where_it_stopped(start_python: Start) -> None:
    source = """
        async def run(context, input):
            yield "first " + await input.read()
            async for line in input:
                yield line
                break
            async for line in input:
                yield "rest " + line
            assert await input.read() is None
    """
    async with start_python(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"1\n2\n3\n4\n")
        await runner.end_input()
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b"first 1\n2\nrest 3\nrest 4\n")


async def test_a_buffer_that_is_reused_leaves_as_it_was(start_python: Start) -> None:
    source = """
        provides = {"contentType": "application/octet-stream"}

        def run(context, input):
            buffer = bytearray(2)
            for n in range(3):
                buffer[:] = bytes([n, n])
                yield buffer
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert ended.content == bytes([0, 0, 1, 1, 2, 2])


async def test_an_object_that_is_reused_leaves_as_it_was(start_python: Start) -> None:
    source = """
        provides = {"contentType": "application/x-ndjson"}

        async def run(context, input):
            row = {}
            for n in range(3):
                row["n"] = n
                yield row
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert ended.content == b'{"n":0}\n{"n":1}\n{"n":2}\n'


async def test_other_tasks_run_while_a_generator_never_waits(start_python: Start) -> None:
    source = """
        import asyncio

        async def run(context, input):
            ticked = asyncio.Event()

            async def tick():
                await asyncio.sleep(0.001)
                ticked.set()

            task = asyncio.create_task(tick())
            while not ticked.is_set():
                yield "x" * 999 + "\\n"
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert ended.code == 0
    assert len(ended.content) > 0


@pytest.mark.parametrize(("raised", "code"), [("0", 0), ("3", 3), ("'why'", 1)])
async def test_exit_in_a_program_is_its_exit_code(
    start_python: Start, raised: str, code: int
) -> None:
    source = f"""
        import sys

        async def run(context, input):
            yield "last\\n"
            sys.exit({raised})
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (code, b"last\n")


async def test_a_chained_error_is_printed_whole_without_the_runner(start_python: Start) -> None:
    source = """
        async def run(context, input):
            try:
                {}["absent"]
            except KeyError as error:
                raise ValueError("outer") from error
            yield
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert "KeyError: 'absent'" in ended.stderr
    assert "ValueError: outer" in ended.stderr
    assert "direct cause" in ended.stderr
    assert "sth_sandbox" not in ended.stderr


async def test_not_a_number_is_refused_in_json(start_python: Start) -> None:
    source = """
        provides = {"contentType": "application/x-ndjson"}

        def run(context, input):
            return [1.5, float("nan")]
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (23, b"1.5\n")


async def test_packages_beside_the_program_are_found(start_python: Start, tmp_path: Path) -> None:
    source = """
        import os, sys
        import helper, bundled

        def run(context, input):
            return f"{helper.NAME} {bundled.NAME} {os.path.basename(os.getcwd())} {len(sys.argv)}"
    """
    package = tmp_path / "package"
    (package / "__pypackages__").mkdir(parents=True)
    (package / "helper.py").write_text("NAME = 'helper'\n")
    (package / "__pypackages__" / "bundled.py").write_text("NAME = 'bundled'\n")
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert ended.content == b"helper bundled package 1"


async def test_a_program_named_as_a_loaded_module_does_not_hide_it(
    start_python: Start, tmp_path: Path
) -> None:
    package = write_program(tmp_path / "package", "python", "")
    (package / "json.py").write_text("import json\n\ndef run(c, i):\n    return json.dumps([])\n")
    async with start_python("", main="json.py") as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b"[]")


async def test_a_refused_event_is_the_programs_error(start_python: Start) -> None:
    source = """
        def run(context, input):
            try:
                context.emit("big", "x" * 100_000)
            except ValueError as error:
                return str(error)
    """
    async with start_python(source) as runner:
        ended = await runner.wait()
    assert b"64 KiB" in ended.content


async def test_a_runner_needs_nothing_more_once_it_is_imported(tmp_path: Path) -> None:
    source = """
        import asyncio

        async def run(context, input):
            context.logger.info("said")
            async for line in input:
                yield line
            "bücher.example".encode("idna")
            await asyncio.sleep(0.001)
            raise RuntimeError("with a traceback")
    """
    package = write_program(tmp_path / "package", "python", source)
    command = f"""
import sys
sys.path.insert(0, {str(RUNNERS.parents[1])!r})
from sth_sandbox.runners.python import run_instance
import atexit
before = set(sys.modules)
atexit.register(lambda: print(sorted(set(sys.modules) - before - {{"main"}})))
run_instance()
"""
    runner = spawn([sys.executable, "-I", "-S", "-c", command])
    try:
        await runner.send("start", path=str(package), main="main.py", args=[], config={})
        await runner.open_input(TEXT)
        await runner.feed(b"line\n")
        await runner.end_input()
        ended = await runner.wait()
    finally:
        runner.close()
    assert ended.code == frames.EXIT_FAILED
    assert ended.stdout == "[]\n"
