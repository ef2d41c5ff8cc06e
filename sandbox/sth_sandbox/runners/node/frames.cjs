// The frames of the runner sockets. Every number comes from wire.json, which the Python side reads
// as well; docs/reference/wire.md section 4 says what the frames mean.
"use strict";

const wire = require("../wire.json");

const HEADER_BYTES = wire.header_bytes;
const MAX_PAYLOAD = wire.max_payload;
const TWO_TO_32 = 0x100000000;

/**
 * The bytes before a payload of `length` bytes.
 * @param {number} type
 * @param {number} length
 * @param {{flags?: number, count?: number, offset?: number, number?: number}} [fields]
 * @returns {Buffer}
 */
function packHeader(type, length, { flags = 0, count = 0, offset = 0, number = 0 } = {}) {
  if (length > MAX_PAYLOAD) {
    throw new RangeError(`a payload is at most ${MAX_PAYLOAD} bytes, this one has ${length}`);
  }
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(length, 0);
  header[4] = type;
  header[5] = flags;
  header.writeUInt32LE(count, 8);
  // Two halves: 64-bit integers of the language are an order of magnitude slower.
  header.writeUInt32LE(offset % TWO_TO_32, 16);
  header.writeUInt32LE(Math.floor(offset / TWO_TO_32), 20);
  header.writeUInt32LE(number % TWO_TO_32, 24);
  header.writeUInt32LE(Math.floor(number / TWO_TO_32), 28);
  return header;
}

/** A MESSAGE frame of the control socket. */
function packMessage(message) {
  const payload = Buffer.from(JSON.stringify(message));
  return Buffer.concat([packHeader(wire.types.MESSAGE, payload.length), payload]);
}

function unpackHeader(buffer) {
  const header = {
    length: buffer.readUInt32LE(0),
    type: buffer[4],
    flags: buffer[5],
    count: buffer.readUInt32LE(8),
    offset: buffer.readUInt32LE(16) + buffer.readUInt32LE(20) * TWO_TO_32,
    number: buffer.readUInt32LE(24) + buffer.readUInt32LE(28) * TWO_TO_32,
  };
  if (header.length > MAX_PAYLOAD) {
    throw new RangeError(`a payload is at most ${MAX_PAYLOAD} bytes, ${header.length} announced`);
  }
  return header;
}

/** Bytes in, whole frames out. A payload is copied once, into a buffer of its own. */
class FrameReader {
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.dropIncomplete();
  }

  /** Forgets a frame of which only a part has come. */
  dropIncomplete() {
    this.header = null;
    this.wanted = Buffer.alloc(HEADER_BYTES);
    this.filled = 0;
  }

  /** Calls `onFrame(header, payload)` for every frame that `data` completes. */
  feed(data) {
    let at = 0;
    while (at < data.length || (this.header && this.header.length === 0)) {
      const taken = data.copy(this.wanted, this.filled, at);
      at += taken;
      this.filled += taken;
      if (this.filled < this.wanted.length) {
        return;
      }
      this._complete();
    }
  }

  _complete() {
    if (!this.header) {
      this.header = unpackHeader(this.wanted);
      this.wanted = Buffer.allocUnsafe(this.header.length);
      this.filled = 0;
      if (this.header.length > 0) {
        return;
      }
    }
    const { header, wanted } = this;
    this.dropIncomplete();
    this.onFrame(header, wanted);
  }
}

module.exports = { wire, packHeader, packMessage, FrameReader, MAX_PAYLOAD };
