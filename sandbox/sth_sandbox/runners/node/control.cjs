// The control socket: orders from the agent, news to it.
"use strict";

const net = require("net");
const { wire, packMessage, FrameReader } = require("./frames.cjs");

class Control {
  /**
   * @param {Object<string, function(object): void>} handlers by the type of a message
   * @param {function(Buffer): void} resynchronise
   * @param {function(): void} gone called when nobody is there to run for
   */
  constructor({ handlers, resynchronise, gone }) {
    this.socket = new net.Socket({ fd: wire.descriptors.control, readable: true, writable: true });
    const reader = new FrameReader((header, payload) => {
      if (header.type === wire.types.RESYNC) {
        resynchronise(payload);
      } else if (header.type === wire.types.MESSAGE) {
        const message = JSON.parse(payload.toString());
        const handler = handlers[message.type];
        // A newer agent may know more.
        if (handler) handler(message);
      }
    });
    this.socket.on("data", (data) => reader.feed(data));
    this.socket.on("end", gone);
    this.socket.on("error", gone);
  }

  /** From now on the socket alone does not keep the process alive. */
  release() {
    this.socket.unref();
  }

  send(type, fields) {
    this.socket.write(packMessage({ type, ...fields }));
  }

  /** Resolves when everything has reached the socket. */
  drained() {
    return new Promise((resolve) => {
      this.socket.write("", () => resolve());
    });
  }
}

module.exports = { Control };
