"""What only the Node runner does: arrays of functions, streams, the original's serialisation."""

from pathlib import Path

import pytest
from tests.runners.conftest import Start

TEXT = "text/plain"
NDJSON = "application/x-ndjson"


async def test_functions_of_an_array_are_chained_and_all_get_the_arguments(
    start_node: Start,
) -> None:
    source = """
        module.exports = [
          async function* (input, n) { for await (const row of input) yield row.v + n; },
          async function* (input, n) { for await (const value of input) yield { v: value * n }; },
        ];
    """
    async with start_node(source, args=[10]) as runner:
        await runner.open_input(NDJSON)
        await runner.feed(b'{"v":1}\n{"v":2}\n')
        await runner.end_input()
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b'{"v":110}\n{"v":120}\n')


async def test_a_function_in_the_middle_must_return_something(start_node: Start) -> None:
    async with start_node("module.exports = [() => {}, (x) => x];\n") as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert "SEQUENCE_ENDED_PREMATURE" in ended.of_type("error")[0]["message"]


@pytest.mark.parametrize(
    ("returned", "content", "content_type"),
    [
        ("['a', 1]", b'"a"\n1\n', NDJSON),
        ("(function* () { yield 'a'; yield null; })()", b'"a"\nnull\n', NDJSON),
        ("Object.assign(['a', 'b'], {contentType: 'text/plain'})", b"ab", TEXT),
        ("Readable.from(['a', 'b'])", b"ab", TEXT),
        ("Readable.from([{n: 1}])", b'{"n":1}\n', NDJSON),
        ("Readable.from([Buffer.from('x')])", b"x", "application/octet-stream"),
        ("new (class DataStream extends Readable {})({objectMode: true, read})", b'"s"\n', NDJSON),
        ("new (class StringStream extends DataStream {})({objectMode: true, read})", b"s", TEXT),
        ("({n: 1})", b'{"n":1}\n', NDJSON),
        ("true", b"true", TEXT),
        ("() => ['later']", b'"later"\n', NDJSON),
    ],
)
async def test_a_result_is_serialised_as_the_original_does(
    start_node: Start, returned: str, content: bytes, content_type: str
) -> None:
    source = f"""
        const {{ Readable }} = require("stream");
        class DataStream extends Readable {{}}
        function read() {{ this.push("s"); this.push(null); }}
        module.exports = () => ({returned});
    """
    async with start_node(source) as runner:
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, content)
    assert ended.declared["content_type"] == content_type


async def test_the_default_export_is_used(start_node: Start) -> None:
    async with start_node("exports.default = () => 'default';\n") as runner:
        assert (await runner.wait()).content == b"default"


async def test_an_ecmascript_module_is_loaded(start_node: Start, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "main.mjs").write_text("export default () => 'module';\n")
    async with start_node("", main="main.mjs") as runner:
        assert (await runner.wait()).content == b"module"


async def test_a_promise_that_nobody_waits_for_fails_the_instance(start_node: Start) -> None:
    source = """
        module.exports = function () {
          setImmediate(() => Promise.reject(new Error("forgotten")));
          return new Promise(() => {});
        };
    """
    async with start_node(source) as runner:
        ended = await runner.wait()
    assert ended.code == 23
    assert "forgotten" in ended.of_type("error")[0]["message"]


async def test_text_is_never_cut_inside_a_character(start_node: Start) -> None:
    source = """
        module.exports = async function* (input) {
          for await (const text of input) yield [text, input.contentType];
        };
    """
    async with start_node(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(b"\xe2\x82", b"\xac!")
        await runner.end_input()
        ended = await runner.wait()
    assert ended.content == '["€!","text/plain"]\n'.encode()


async def test_a_bad_line_reaches_the_loop_that_reads_it(start_node: Start) -> None:
    source = """
        module.exports = async function* (input) {
          try {
            for await (const row of input) yield row;
          } catch (error) {
            yield error.name;
          }
        };
    """
    async with start_node(source) as runner:
        await runner.open_input(NDJSON)
        await runner.feed(b"1\n2\n{broken\n3\n")
        ended = await runner.wait()
    assert (ended.code, ended.content) == (0, b'1\n2\n"SyntaxError"\n')


async def test_piped_input_is_read_and_reported(start_node: Start) -> None:
    source = """
        const { Transform } = require("stream");
        module.exports = (input) => input.pipe(new Transform({
          decodeStrings: false,
          encoding: "utf8",
          writableObjectMode: true,
          transform(text, encoding, done) { done(null, text.toUpperCase()); },
        }));
    """
    text = b"some words\n" * 50_000
    async with start_node(source) as runner:
        await runner.open_input(TEXT)
        await runner.feed(*(text[at : at + 60_000] for at in range(0, len(text), 60_000)))
        await runner.end_input()
        ended = await runner.wait()
    assert ended.content == text.upper()
    assert ended.of_type("consumed")[-1]["offset"] == len(text)


async def test_log_lines_carry_further_values(start_node: Start) -> None:
    source = """
        module.exports = function () {
          const ring = {};
          ring.self = ring;
          this.logger.warn("look", { a: 1 }, ring);
        };
    """
    async with start_node(source) as runner:
        ended = await runner.wait()
    assert ended.logs[0]["level"] == "WARN"
    assert ended.logs[0]["data"][0] == {"a": 1}
    assert "Circular" in ended.logs[0]["data"][1]


async def test_a_missing_module_is_told_without_the_runners_files(start_node: Start) -> None:
    async with start_node('const missing = require("left-pad");\n') as runner:
        ended = await runner.wait()
    error = ended.of_type("error")[0]
    assert error["message"] == "Error: Cannot find module 'left-pad'"
    assert error["traceback"]["frames"][-1]["source"] == 'const missing = require("left-pad");'
    assert "runner.cjs" not in ended.stderr


async def test_stderr_has_the_authors_line_and_none_of_nodes_frames(start_node: Start) -> None:
    source = """
        function convert(text) { throw new TypeError("not a number: " + text); }
        module.exports = async function* () { await null; yield convert("x"); };
    """
    async with start_node(source) as runner:
        ended = await runner.wait()
    place, line, gap, message, *frames = ended.stderr.splitlines()
    assert place.endswith(":2") and gap == ""
    assert line.strip().startswith("function convert(text) {")
    assert message == "TypeError: not a number: x"
    assert len(frames) == 2 and all(".js:" in each for each in frames)
    assert "node:" not in ended.stderr
