// The Node runner: runs the Instance that the control socket says, and ends with its exit code.
"use strict";

const fs = require("fs");
const { wire } = require("./frames.cjs");
const { Context } = require("./context.cjs");
const { Control } = require("./control.cjs");
const { Input } = require("./input.cjs");
const { Logger } = require("./logger.cjs");
const { Output } = require("./output.cjs");
const { load, BadEntryPoint } = require("./program.cjs");
const { send, providesOf } = require("./results.cjs");
const failures = require("./failures.cjs");

const codes = wire.exit_codes;

class Instance {
  constructor() {
    this.started = false;
    this.ending = false;
    this.stopping = false;
    this.directory = "";
    this.logger = new Logger();
    this.output = new Output();
    this.input = new Input({ report: (position) => this.control.send("consumed", position) });
    this.input.on("error", (error) => {
      // A program that listens, or is in a loop over its input, is left to handle it.
      if (this.input.listenerCount("error") === 1) this.fail(error);
    });
    this.control = new Control({
      handlers: {
        start: (message) => this.start(message),
        stop: (message) => this.stop(message),
        kill: () => this.kill(),
        event: ({ name, message }) => this.context.emitter.emit(name, message),
      },
      resynchronise: (token) => {
        const answer = this.input.resynchronise();
        this.control.send("resynced", { token: token.toString("hex"), ...answer });
      },
      gone: () => process.exit(codes.killed),
    });
  }

  async start(message) {
    this.directory = realPath(message.path);
    this.context = new Context(message, {
      logger: this.logger,
      send: (type, fields) => this.control.send(type, fields),
      end: () => this.finish(codes.completed),
      destroy: (error) => this.fail(error ?? "the program ended itself as failed"),
    });
    const program = await this.load(message);
    if (!program) return;
    if (!this.isAnnounced(program)) return;
    try {
      await this.run(program, message.args || []);
    } catch (error) {
      this.fail(error);
    }
  }

  async load(message) {
    try {
      return await load(message.path, message.main);
    } catch (error) {
      const bad = error instanceof BadEntryPoint;
      this.finish(bad ? codes.bad_entrypoint : codes.failed_on_start, error ?? `threw ${error}`);
      return null;
    }
  }

  isAnnounced({ requires }) {
    try {
      this.announce(requires, {});
    } catch (error) {
      const why = `what it requires cannot be told: ${failures.text(error)}`;
      this.finish(codes.bad_entrypoint, new BadEntryPoint(why));
      return false;
    }
    return true;
  }

  announce(requires, provides) {
    const content_type = provides.contentType || wire.content_types.text;
    this.control.send("ready", { requires, provides, content_type });
  }

  async run({ functions, requires }, args) {
    let value = this.input;
    for (const [n, part] of functions.entries()) {
      value = await part.call(this.context, value, ...args);
      if (typeof value === "function") value = value.call(this.context);
      if (!value && n < functions.length - 1) {
        throw new Error(`SEQUENCE_ENDED_PREMATURE: function ${n} of the Sequence returned nothing`);
      }
    }
    const provides = providesOf(value);
    if (Object.keys(provides).length) this.announce(requires, provides);
    if (await send(value, this.output)) {
      this.finish(codes.completed);
      return;
    }
    // No output: the program is done when nothing is left that it waits for.
    this.output.declare(wire.content_types.text, {});
    this.control.release();
    process.once("beforeExit", () => this.finish(codes.completed));
  }

  fail(error) {
    this.finish(codes.failed, error ?? `threw ${error}`);
  }

  async stop({ timeout_ms: timeout = 0, can_keepalive: canKeepAlive = false }) {
    if (this.stopping || this.ending) return;
    this.stopping = true;
    this.context._keptAlive = false;
    await this.context._runStopHandlers(timeout, canKeepAlive);
    this.stopping = false; // one that goes on may be stopped again
    if (!(canKeepAlive && this.context._keptAlive)) this.finish(codes.stopped);
  }

  kill() {
    if (this.context) this.context._runKillHandlers();
    // What the sockets take at once is sent; nothing is waited for.
    this.output.end();
    process.exit(codes.killed);
  }

  /** Sends what is left, and ends the process; only the first time. */
  async finish(code, error) {
    if (this.ending) return;
    this.ending = true;
    if (error !== undefined) this.tell(code, error);
    this.input.reportPosition();
    if (code === codes.stopped) this.control.send("stopped", {});
    await Promise.all([this.output.end(), this.control.drained(), this.logger.drained()]);
    process.exit(code);
  }

  tell(code, error) {
    const traceback = error instanceof Error ? failures.describe(error, this.directory) : null;
    let message = traceback ? `${traceback.type}: ${traceback.message}` : failures.text(error);
    if (error instanceof BadEntryPoint) message = error.message;
    failures.print(error, this.directory);
    this.control.send("error", { exit_code: code, message, traceback });
  }
}

function realPath(directory) {
  try {
    return fs.realpathSync(directory);
  } catch {
    return directory;
  }
}

const instance = new Instance();
// A program that handles these itself is left to it.
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => {
    if (process.listenerCount(event) === 1) instance.fail(error);
  });
}
