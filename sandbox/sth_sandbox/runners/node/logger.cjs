// The program's logger, written to the log socket line by line.
"use strict";

const net = require("net");
const { inspect } = require("util");
const { wire, packHeader } = require("./frames.cjs");

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const LONGEST = 256 * 1024; // characters of a message; longer ones are cut
const MOST_WAITING = 4 * 1024 * 1024; // bytes that nobody has read; more are dropped and counted

class Logger {
  constructor() {
    this._offset = 0;
    this._number = 0;
    this._dropped = 0;
    this._socket = new net.Socket({ fd: wire.descriptors.log, readable: false, writable: true });
    this._socket.on("error", () => {
      // Nobody reads logs any more: no reason to end a program.
    });
    for (const level of LEVELS) {
      this[level.toLowerCase()] = (message, ...data) => this._log(level, message, data);
    }
  }

  /** The original's name for a line that says its own level. */
  write(level, message, ...data) {
    this._log(String(level).toUpperCase(), message, data);
  }

  /** Resolves when everything has reached the socket. */
  drained() {
    return new Promise((resolve) => {
      this._socket.write("", () => resolve());
    });
  }

  _log(level, message, data) {
    if (this._socket.writableLength > MOST_WAITING) {
      this._dropped += 1;
      return;
    }
    if (this._dropped) {
      const dropped = this._dropped;
      this._dropped = 0;
      this._log("WARN", `${dropped} lines of this log were dropped: nobody read it`, []);
    }
    const text = (typeof message === "string" ? message : inspect(message)).slice(0, LONGEST);
    const fields = { msg: text, level, ts: Date.now(), from: "Sequence" };
    if (data.length) fields.data = data.map(plain);
    this._send(Buffer.from(`${JSON.stringify(fields)}\n`));
  }

  _send(line) {
    const position = {
      flags: wire.flags.RECORDS,
      count: 1,
      offset: this._offset,
      number: this._number,
    };
    this._offset += line.length;
    this._number += 1;
    this._socket.write(Buffer.concat([packHeader(wire.types.DATA, line.length, position), line]));
  }
}

/** What JSON can carry of a value. */
function plain(value) {
  if (value instanceof Error) return value.stack || String(value);
  try {
    const text = JSON.stringify(value);
    return text !== undefined && text.length <= LONGEST ? value : inspect(value).slice(0, LONGEST);
  } catch {
    return inspect(value).slice(0, LONGEST);
  }
}

module.exports = { Logger };
