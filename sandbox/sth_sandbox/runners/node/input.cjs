// The program's input: a Readable of objects (ndjson), strings (text) or buffers (octet-stream).
//
// The socket is read only while the program asks for more than was read before, so that what it
// does not want stays with the agent.
"use strict";

const fs = require("fs");
const net = require("net");
const { Readable } = require("stream");
const { wire, FrameReader } = require("./frames.cjs");
const { decoderFor, BadLine } = require("./decoding.cjs");

const REPORT_MILLISECONDS = 100;
const SELDOM_MILLISECONDS = 5000;
const REPORT_BYTES = 256 * 1024;
const READ_BYTES = 64 * 1024;

class Input extends Readable {
  /** @param {function({offset: number, sequence: number}): void} report tells what is consumed */
  constructor({ report }) {
    // In object mode no item is ever joined with another or cut.
    super({ objectMode: true });
    this.contentType = undefined;
    this._report = report;
    this._reported = { offset: 0, sequence: 0 };
    this._timer = null;
    this._decoder = null;
    this._received = { offset: 0, sequence: 0 };
    this._ended = false;
    this._batches = []; // not pushed yet, or only in part
    this._pushed = []; // {batch, count}: how many items of it the stream has
    this._held = 0; // items in the hands of a `for await` loop
    this._wanted = false;
    this._failure = null; // comes after the items that are there
    this._frames = new FrameReader((header, payload) => this._onFrame(header, payload));
    this._socket = this._open();
  }

  /**
   * As that of any Readable. It knows when the program has finished with an item: when it asks for
   * the next one.
   */
  async *[Symbol.asyncIterator]() {
    let wake = () => {};
    const changed = () => wake();
    const events = ["readable", "end", "error", "close"];
    for (const event of events) this.on(event, changed);
    try {
      for (;;) {
        const item = this.destroyed ? null : this.read();
        if (item !== null) {
          this._held = 1;
          yield item;
          this._held = 0;
          continue;
        }
        if (this.errored) throw this.errored;
        if (this.readableEnded || this.destroyed) return;
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      this._held = 0;
      for (const event of events) this.off(event, changed);
      this.destroy();
    }
  }

  read(size) {
    const item = super.read(size);
    if (item === null && this._failure && this.readableLength === 0) this.destroy(this._failure);
    return item;
  }

  /** Up to where the program is done with its input. */
  position() {
    const current = this._current();
    return current ? current.batch.position(current.done) : this._reported;
  }

  /** Tells what is consumed, if that is news. */
  reportPosition() {
    clearTimeout(this._timer);
    this._timer = null;
    const position = this.position();
    if (position.offset > this._reported.offset) {
      this._reported = position;
      this._report(position);
    }
  }

  /** Takes what a dead agent has left in the socket, and says where its successor goes on. */
  resynchronise() {
    // What the stream over it holds goes to its "data" listener; what the kernel holds comes after.
    while (this._socket.read() !== null);
    const buffer = Buffer.alloc(READ_BYTES);
    try {
      let count = 0;
      while ((count = fs.readSync(wire.descriptors.input, buffer)) > 0) {
        this._take(buffer.subarray(0, count));
      }
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
    this._frames.dropIncomplete();
    this._pushAll();
    return { ...this._received, content_type: this.contentType ?? null, ended: this._ended };
  }

  _open() {
    const socket = new net.Socket({ fd: wire.descriptors.input, readable: true, writable: false });
    socket.pause();
    socket.unref();
    socket.on("data", (data) => {
      this._take(data);
      this._pushAll();
      if (!this._wanted) socket.pause();
    });
    const gone = () => {
      if (!this._ended) this.destroy(new Error("the input broke off: nobody feeds it any more"));
    };
    socket.on("end", gone);
    socket.on("error", gone);
    return socket;
  }

  _read() {
    this._wanted = true;
    this._pushAll();
    if (this._wanted && !this._ended) {
      this._socket.ref();
      this._socket.resume();
    }
  }

  _destroy(error, callback) {
    this._wanted = false;
    this._socket.pause();
    this._socket.unref();
    callback(error);
  }

  _take(data) {
    if (this.destroyed) return;
    try {
      this._frames.feed(data);
    } catch (error) {
      this.destroy(error);
    }
  }

  _onFrame(header, payload) {
    if (header.type === wire.types.TYPE) {
      this.contentType = payload.toString();
      this._decoder = decoderFor(this.contentType);
    } else if (header.type === wire.types.END) {
      this._ended = true;
      this._socket.unref();
      this._add(this._decoder && this._decoder.finish());
    } else if (header.type === wire.types.DATA && this._decoder) {
      const offset = header.offset + header.length;
      this._received = { offset, sequence: header.number + header.count };
      this._add(this._decoder.feed(header, payload));
    } else {
      throw new RangeError(`a frame of type ${header.type} is not expected on the input`);
    }
  }

  _add(batch) {
    if (batch) this._batches.push(batch);
  }

  /** Gives the stream what it wants of what is there. */
  _pushAll() {
    while (this._wanted && this._batches.length && !this.destroyed) {
      this._pushBatch(this._batches[0]);
    }
    if (this._wanted && this._ended && !this._batches.length) {
      this._wanted = false;
      this.push(null);
    }
    this._planReport();
  }

  _pushBatch(batch) {
    let last = this._pushed[this._pushed.length - 1];
    if (!last || last.batch !== batch) {
      last = { batch, count: 0 };
      this._pushed.push(last);
    }
    const { items } = batch;
    while (last.count < items.length && this._wanted) {
      const item = items[last.count];
      if (item instanceof BadLine) {
        this._failure = item.error;
        this._wanted = false;
        if (this.readableLength === 0) this.destroy(item.error);
        return;
      }
      last.count += 1;
      // Cleared before: `push` may ask for more itself.
      this._wanted = false;
      if (this.push(item)) this._wanted = true;
    }
    // `push` may have come here again, and have done it.
    if (last.count === items.length && this._batches[0] === batch) this._batches.shift();
  }

  /** The batch in which the program is, and how many of its items are done. */
  _current() {
    let waiting = this.readableLength + this._held;
    for (let n = this._pushed.length - 1; n >= 0; n -= 1) {
      const { batch, count } = this._pushed[n];
      if (waiting < count) {
        // Those before it are done, and need not be kept.
        this._pushed.splice(0, n);
        return { batch, done: count - waiting };
      }
      waiting -= count;
    }
    return null;
  }

  _planReport() {
    const current = this._current();
    if (current && current.batch.start.offset - this._reported.offset >= REPORT_BYTES) {
      this.reportPosition();
    }
    if (!this._timer && this._pushed.length) this._arm(REPORT_MILLISECONDS);
  }

  /** Reports in a while, and then again: more and more rarely while there is no news. */
  _arm(delay) {
    this._timer = setTimeout(() => {
      const before = this._reported;
      this.reportPosition();
      const quiet = this._reported === before;
      if (!this._isAllDone()) {
        this._arm(quiet ? Math.min(delay * 2, SELDOM_MILLISECONDS) : REPORT_MILLISECONDS);
      }
    }, delay);
    this._timer.unref();
  }

  _isAllDone() {
    const last = this._pushed[this._pushed.length - 1];
    return !last || last.batch.end.offset <= this._reported.offset;
  }
}

module.exports = { Input };
