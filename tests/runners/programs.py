"""The same programs in both languages: name -> language -> source."""

PROGRAMS: dict[str, dict[str, str]] = {
    "pass_lines": {
        "python": """
            async def run(context, input):
                async for line in input:
                    yield line
        """,
        "node": """
            module.exports = (input) => Object.assign(pass(input), { contentType: "text/plain" });
            async function* pass(input) { for await (const text of input) yield text; }
        """,
    },
    "pass_bytes": {
        "python": """
            provides = {"contentType": "application/octet-stream"}

            async def run(context, input):
                async for chunk in input:
                    yield chunk
        """,
        "node": """
            module.exports = (input) =>
              Object.assign(input, { contentType: "application/octet-stream" });
        """,
    },
    "double_values": {
        "python": """
            provides = {"contentType": "application/x-ndjson"}

            async def run(context, input):
                async for row in input:
                    yield {"n": row["n"] * 2}
        """,
        "node": """
            module.exports = async function* (input) {
              for await (const row of input) yield { n: row.n * 2 };
            };
        """,
    },
    "count_to": {
        "python": """
            async def run(context, input, last):
                for n in range(last):
                    yield f"{n}\\n"
        """,
        "node": """
            const contentType = "text/plain";
            module.exports = (input, last) => Object.assign(count(last), { contentType });
            function* count(last) { for (let n = 0; n < last; n += 1) yield `${n}\\n`; }
        """,
    },
    "many_chunks": {
        "python": """
            provides = {"contentType": "application/octet-stream"}

            async def run(context, input, count):
                for n in range(count):
                    yield bytes([n % 256]) * 65536
        """,
        "node": """
            module.exports = (input, count) =>
              Object.assign(chunks(count), { contentType: "application/octet-stream" });
            function* chunks(count) {
              for (let n = 0; n < count; n += 1) yield Buffer.alloc(65536, n % 256);
            }
        """,
    },
    "plain_value": {
        "python": "def run(context, input):\n    return 'forty-two'\n",
        "node": "module.exports = () => 'forty-two';\n",
    },
    "later_value": {
        "python": """
            import asyncio

            async def run(context, input):
                await asyncio.sleep(0)
                return 42
        """,
        "node": """
            module.exports = () => new Promise((resolve) => setImmediate(() => resolve(42)));
        """,
    },
    "nothing": {
        "python": """
            async def run(context, input):
                async for line in input:
                    print(line, end="", flush=True)
        """,
        "node": """
            module.exports = (input) => {
              input.on("data", (text) => process.stdout.write(text));
            };
        """,
    },
    "tell_start": {
        "python": """
            import json

            def run(context, input, *args):
                told = {"args": args, "config": context.config, "id": context.instance_id}
                return json.dumps(told)
        """,
        "node": """
            module.exports = function (input, ...args) {
              return JSON.stringify({ args, config: this.config, id: this.instanceId });
            };
        """,
    },
    "echo_events": {
        "python": """
            import asyncio

            async def run(context, input):
                events = asyncio.Queue()
                context.on("ask", events.put_nowait)
                context.emit("listening")
                while (message := await events.get()) != "end":
                    context.emit("answer", {"got": message})
        """,
        "node": """
            module.exports = function () {
              return new Promise((resolve) => {
                this.on("ask", (message) => {
                  if (message === "end") resolve();
                  else this.emit("answer", { got: message });
                });
                this.emit("listening");
              });
            };
        """,
    },
    "log": {
        "python": """
            def run(context, input):
                context.logger.info("hello %s", "log")
                context.logger.error("bad")
        """,
        "node": """
            module.exports = function () {
              this.logger.info("hello log");
              this.logger.error("bad");
            };
        """,
    },
    "standard_streams": {
        "python": """
            import sys

            def run(context, input):
                line = sys.stdin.readline()
                print("out", line.strip())
                print("err", file=sys.stderr)
        """,
        "node": """
            module.exports = () => new Promise((resolve) => {
              process.stdin.once("data", (data) => {
                console.log("out", data.toString().trim());
                console.error("err");
                process.stdin.destroy();
                resolve();
              });
            });
        """,
    },
    "wait_for_go": {
        "python": """
            import asyncio

            provides = {"contentType": "application/x-ndjson"}

            async def run(context, input):
                go = asyncio.Event()
                context.on("go", lambda message: go.set())
                async for row in input:
                    yield row
                    if row["n"] == 2:
                        await go.wait()
        """,
        "node": """
            module.exports = async function* (input) {
              const go = new Promise((resolve) => this.on("go", resolve));
              for await (const row of input) {
                yield row;
                if (row.n === 2) await go;
              }
            };
        """,
    },
    "stop_handler": {
        "python": """
            import asyncio

            async def run(context, input):
                async def stopping(seconds):
                    context.logger.info("stopping in %s s", seconds)
                context.set_stop_handler(stopping)
                yield "before\\n"
                await asyncio.Event().wait()
        """,
        "node": """
            module.exports = function () {
              this.addStopHandler(async (milliseconds) => {
                this.logger.info(`stopping in ${milliseconds / 1000} s`);
              });
              const { Readable } = require("stream");
              const out = new Readable({ read() {} });
              out.setEncoding("utf8");
              out.push("before\\n");
              return out;
            };
        """,
    },
    "keep_alive": {
        "python": """
            import asyncio

            async def run(context, input):
                stops = 0
                async def stopping(seconds, can_keep_alive):
                    nonlocal stops
                    stops += 1
                    if stops == 1:
                        await context.keep_alive(0.001)
                context.set_stop_handler(stopping)
                yield "up\\n"
                await asyncio.Event().wait()
        """,
        "node": """
            module.exports = function () {
              let stops = 0;
              this.addStopHandler(() => { stops += 1; if (stops === 1) this.keepAlive(1); });
              const { Readable } = require("stream");
              const out = new Readable({ read() {} });
              out.setEncoding("utf8");
              out.push("up\\n");
              return out;
            };
        """,
    },
    "fail_after_output": {
        "python": """
            async def run(context, input):
                yield "first\\n"
                inner()

            def inner():
                raise RuntimeError("went wrong")
        """,
        "node": """
            module.exports = () => Object.assign(items(), { contentType: "text/plain" });
            async function* items() {
              yield "first\\n";
              inner();
            }
            function inner() {
              throw new RangeError("went wrong");
            }
        """,
    },
    "fail_loading": {
        "python": "raise RuntimeError('not today')\n",
        "node": "throw new RangeError('not today');\n",
    },
    "syntax_error": {
        "python": "x = 1\ndef run(context, input:\n",
        "node": "const x = 1;\nmodule.exports = (input => ;\n",
    },
    "no_function": {
        "python": "x = 1\n",
        "node": "module.exports = [];\n",
    },
    "wrong_items": {
        "python": """
            async def run(context, input):
                yield "good\\n"
                yield 7
        """,
        "node": """
            module.exports = () => Object.assign(items(), { contentType: "text/plain" });
            async function* items() { yield "good\\n"; yield 7; }
        """,
    },
    "long_line": {
        "python": """
            async def run(context, input):
                yield "short\\n"
                yield "x" * 3_000_000 + "\\n"
                yield "short\\n"
        """,
        "node": """
            module.exports = () => Object.assign(items(), { contentType: "text/plain" });
            function* items() {
              yield "short\\n";
              yield "x".repeat(3000000) + "\\n";
              yield "short\\n";
            }
        """,
    },
    "feeds_topic": {
        "python": """
            requires = {"requires": "raw", "contentType": "application/x-ndjson"}
            provides = {"provides": "clean", "contentType": "application/x-ndjson"}

            async def run(context, input):
                async for row in input:
                    yield row
        """,
        "node": """
            module.exports = [
              { requires: "raw", contentType: "application/x-ndjson" },
              (input) => Object.assign(input, {
                topic: "clean",
                contentType: "application/x-ndjson",
              }),
            ];
        """,
    },
    "ends_itself": {
        "python": """
            import asyncio

            async def run(context, input):
                yield "last\\n"
                context.end()
                await asyncio.Event().wait()
        """,
        "node": """
            module.exports = function () {
              const context = this;
              async function* items() {
                yield "last\\n";
                context.end();
                await new Promise(() => {});
              }
              return Object.assign(items(), { contentType: "text/plain" });
            };
        """,
    },
    "destroys_itself": {
        "python": """
            def run(context, input):
                context.destroy(ValueError("enough"))
        """,
        "node": """
            module.exports = function () { this.destroy(new TypeError("enough")); };
        """,
    },
    "unhealthy": {
        "python": """
            import asyncio

            async def run(context, input):
                context.set_health_check(lambda: {"healthy": False})
                await asyncio.Event().wait()
        """,
        "node": """
            module.exports = function () {
              this.addMonitoringHandler(() => ({ healthy: false }));
              return new Promise(() => {});
            };
        """,
    },
}
