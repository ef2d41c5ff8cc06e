// The program's output, collected into batches and sent as frames: never one write for a record.
//
// A batch leaves when it is large enough, or when the program has nothing more to do at once:
// an immediate runs after everything that could go on without waiting.
"use strict";

const net = require("net");
const { wire, packHeader, MAX_PAYLOAD } = require("./frames.cjs");

const types = wire.content_types;
const BATCH_BYTES = 64 * 1024;
const NEWLINE = 10;

class Output {
  constructor() {
    this.contentType = undefined;
    this._socket = new net.Socket({
      fd: wire.descriptors.output,
      readable: false,
      writable: true,
    });
    this._socket.on("error", () => {
      // Whoever read is gone; the control socket tells.
    });
    this._pieces = [];
    this._size = 0;
    this._planned = null;
    this._offset = 0;
    this._number = 0;
    this._whole = true; // whether what was sent ends with a whole record
    this._ended = false;
  }

  /** Sends what the output is; only the first time. Throws a TypeError for another type. */
  declare(contentType, provides) {
    if (this.contentType !== undefined) return;
    if (!Object.values(types).includes(contentType)) {
      throw new TypeError(
        `"${contentType}" is no type of output; use ${types.text}, ${types.ndjson} or ${types.octet}`,
      );
    }
    this.contentType = contentType;
    const payload = Buffer.from(JSON.stringify({ content_type: contentType, provides }));
    this._write(packHeader(wire.types.TYPE, payload.length), payload);
  }

  /**
   * Collects a string or buffer.
   * @returns {boolean} whether more is welcome now; if not, wait for `drained`
   */
  add(piece) {
    this._pieces.push(piece);
    this._size += piece.length;
    if (this._size >= BATCH_BYTES) {
      this.flush();
      return !this._socket.writableNeedDrain;
    }
    if (this._planned === null) this._planned = setImmediate(() => this.flush());
    return true;
  }

  /** Sends what is collected. */
  flush() {
    clearImmediate(this._planned);
    this._planned = null;
    if (!this._pieces.length) return;
    const payload = joined(this._pieces);
    this._pieces = [];
    this._size = 0;
    for (let start = 0; start < payload.length;) {
      const end = this._cut(payload, start);
      this._sendFrame(payload.subarray(start, end));
      start = end;
    }
  }

  /** Resolves when the socket takes more. */
  drained() {
    return new Promise((resolve) => {
      if (this._socket.writableNeedDrain) this._socket.once("drain", resolve);
      else setImmediate(resolve);
    });
  }

  /** Sends what is left and the end; resolves when all of it is in the socket. */
  end() {
    this.flush();
    if (!this._ended) {
      this._ended = true;
      const position = { offset: this._offset, number: this._number };
      this._socket.write(packHeader(wire.types.END, 0, position));
    }
    return new Promise((resolve) => {
      this._socket.write("", () => resolve());
    });
  }

  /** Where a frame that begins at `start` ends: after a record if one ends in reach. */
  _cut(payload, start) {
    const end = start + MAX_PAYLOAD;
    if (end >= payload.length) return payload.length;
    if (this.contentType === types.octet) return end;
    const newline = payload.lastIndexOf(NEWLINE, end - 1);
    return newline >= start ? newline + 1 : end;
  }

  _sendFrame(payload) {
    let flags = 0;
    let count = 0;
    if (this.contentType !== types.octet) {
      count = newlines(payload);
      const whole = payload[payload.length - 1] === NEWLINE;
      if (whole && this._whole) flags = wire.flags.RECORDS;
      this._whole = whole;
    }
    const position = { flags, count, offset: this._offset, number: this._number };
    this._write(packHeader(wire.types.DATA, payload.length, position), payload);
    this._offset += payload.length;
    this._number += count;
  }

  _write(header, payload) {
    this._socket.cork();
    this._socket.write(header);
    this._socket.write(payload);
    this._socket.uncork();
  }
}

function joined(pieces) {
  if (pieces.every((piece) => typeof piece === "string")) return Buffer.from(pieces.join(""));
  if (pieces.length === 1) return pieces[0];
  return Buffer.concat(pieces.map((piece) => Buffer.from(piece)));
}

function newlines(payload) {
  let count = 0;
  for (let at = payload.indexOf(NEWLINE); at >= 0; at = payload.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}

module.exports = { Output };
