// Payloads of input frames as what the program is given: objects, text or buffers.
//
// A batch keeps what tells how long its pieces were, so that how far the program has come can be
// told in bytes at any moment without counting anything for a record.
"use strict";

const { StringDecoder } = require("string_decoder");
const { wire } = require("./frames.cjs");

const types = wire.content_types;
const SHOWN = 80; // characters of a line that is no JSON

/** Items that came together. `lengths(done)`: bytes of the first `done` of them. */
class Batch {
  constructor({ items, start, end, lengths }) {
    this.items = items;
    this.start = start;
    this.end = end;
    this.lengths = lengths;
  }

  /** Offset and record number after the first `done` items. */
  position(done) {
    if (done >= this.items.length) return this.end;
    return { offset: this.start.offset + this.lengths(done), sequence: this.start.sequence + done };
  }
}

function ends(header) {
  return {
    start: { offset: header.offset, sequence: header.number },
    end: { offset: header.offset + header.length, sequence: header.number + header.count },
  };
}

/** application/octet-stream: every frame's payload as it came. */
class Chunks {
  feed(header, payload) {
    if (!payload.length) return null;
    return new Batch({ items: [payload], ...ends(header), lengths: () => 0 });
  }

  finish() {
    return null;
  }
}

/** text/plain: strings, never cut inside a character. */
class Text {
  constructor() {
    this.decoder = new StringDecoder("utf8");
    this.last = { offset: 0, sequence: 0 };
  }

  feed(header, payload) {
    const text = this.decoder.write(payload);
    const { start, end } = ends(header);
    this.last = end;
    return text ? new Batch({ items: [text], start, end, lengths: () => 0 }) : null;
  }

  finish() {
    const text = this.decoder.end();
    const { last } = this;
    return text ? new Batch({ items: [text], start: last, end: last, lengths: () => 0 }) : null;
  }
}

/** application/x-ndjson: the value of every line that is not blank. */
class Objects {
  constructor() {
    this.cut = [];
    this.next = { offset: 0, sequence: 0 };
  }

  feed(header, payload) {
    if (!this.cut.length) {
      const sequence = header.count ? header.number : this.next.sequence;
      this.next = { offset: header.offset, sequence };
    }
    const newline = payload.lastIndexOf(10);
    if (newline < 0) {
      if (payload.length) this.cut.push(payload);
      return null;
    }
    const whole = payload.subarray(0, newline + 1);
    const bytes = this.cut.length ? Buffer.concat([...this.cut, whole]) : whole;
    this.cut = newline + 1 < payload.length ? [payload.subarray(newline + 1)] : [];
    return this._batch(bytes);
  }

  finish() {
    const bytes = Buffer.concat(this.cut);
    this.cut = [];
    return bytes.length ? this._batch(bytes) : null;
  }

  _batch(bytes) {
    const lines = bytes.toString().split("\n");
    // What follows the last newline is nothing.
    if (lines[lines.length - 1] === "") lines.pop();
    const { next } = this;
    this.next = { offset: next.offset + bytes.length, sequence: next.sequence + lines.length };
    const records = lines.filter((line) => line.trim() !== "");
    if (!records.length) return null;
    const items = records.map(value);
    const lengths = (done) =>
      records.slice(0, done).reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0);
    return new Batch({ items, start: next, end: this.next, lengths });
  }
}

/** Stands in a batch where a line was no JSON: the items before it are good. */
class BadLine {
  constructor(line, reason) {
    const shown = JSON.stringify(line.slice(0, SHOWN));
    this.error = new SyntaxError(`a line of the input is no JSON: ${shown}: ${reason}`);
  }
}

function value(line) {
  try {
    return JSON.parse(line);
  } catch (error) {
    return new BadLine(line, error.message);
  }
}

/** Throws a TypeError if no program can be given this type. */
function decoderFor(contentType) {
  const kind = contentType.split(";")[0].trim().toLowerCase();
  if (kind === types.octet) return new Chunks();
  if (kind === types.text) return new Text();
  if (kind === types.ndjson || kind === types.text_ndjson) return new Objects();
  throw new TypeError(
    `the input is "${contentType}", which is not read here; ` +
      `send ${types.text}, ${types.ndjson} or ${types.octet}`,
  );
}

module.exports = { decoderFor, BadLine };
