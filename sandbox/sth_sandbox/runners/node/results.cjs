// What the last function of a Sequence returned, and how it becomes output.
//
// As the original does: JSON lines for generators, other iterables and streams of objects, and for
// whatever says that it is ndjson; a Readable's own bytes and text as they are; a plain value as
// text.
"use strict";

const { Readable } = require("stream");
const { wire } = require("./frames.cjs");

const types = wire.content_types;
const TURN_ITEMS = 1024;

/**
 * Sends everything that `result` gives.
 * @returns {Promise<boolean>} false if there is no output, and the program goes on by itself
 */
async function send(result, output) {
  if (result === undefined || result === null) return false;
  const provides = providesOf(result);
  if (isReadable(result)) {
    await sendReadable(result, output, provides);
  } else if (isIterable(result)) {
    const contentType = result.contentType || types.ndjson;
    output.declare(contentType, provides);
    await sendItems(result, output, converter(contentType));
  } else if (typeof result === "object") {
    output.declare(result.contentType || types.ndjson, provides);
    output.add(jsonLine(result));
  } else {
    output.declare(types.text, provides);
    output.add(String(result));
  }
  return true;
}

/** What a result says of the Topic that it feeds, as the agent wants it. */
function providesOf(result) {
  const provides = {};
  if (result && result.topic) provides.provides = result.topic;
  if (result && result.contentType) provides.contentType = result.contentType;
  return provides;
}

function isReadable(value) {
  if (value instanceof Readable) return true;
  // Streams of a library that brings its own copy of the class.
  return typeof value === "object" && typeof value.pipe === "function" && typeof value.on === "function";
}

function isIterable(value) {
  if (typeof value !== "object") return false;
  return Boolean(value[Symbol.asyncIterator] || value[Symbol.iterator]);
}

/** A stream of the original's own library that carries objects. */
function isDataStream(stream) {
  const names = new Set();
  for (let at = Object.getPrototypeOf(stream); at; at = Object.getPrototypeOf(at)) {
    names.add(at.constructor && at.constructor.name);
  }
  return names.has("DataStream") && !names.has("StringStream") && !names.has("BufferStream");
}

function sendReadable(stream, output, provides) {
  let convert = null;
  const declare = (contentType) => {
    output.declare(contentType, provides);
    convert = converter(contentType);
  };
  if (stream.contentType) declare(stream.contentType);
  else if (isDataStream(stream)) declare(types.ndjson);
  return new Promise((resolve, reject) => {
    stream.on("error", reject);
    stream.on("end", resolve);
    stream.on("close", resolve);
    stream.on("data", (item) => {
      try {
        // A stream that does not say is known by its first item.
        if (convert === null) declare(typeOf(item));
        if (!output.add(convert(item))) {
          stream.pause();
          output.drained().then(() => stream.resume());
        }
      } catch (error) {
        reject(error);
        stream.destroy();
      }
    });
  });
}

async function sendItems(items, output, convert) {
  if (items[Symbol.asyncIterator]) {
    for await (const item of items) {
      if (!output.add(convert(item))) await output.drained();
    }
    return;
  }
  // An ordinary iterator never lets anything else run: it is made to, now and then.
  let left = TURN_ITEMS;
  for (const item of items) {
    left -= 1;
    if (!output.add(convert(await item)) || left === 0) {
      left = TURN_ITEMS;
      await output.drained();
    }
  }
}

function typeOf(item) {
  if (typeof item === "string") return types.text;
  return Buffer.isBuffer(item) || item instanceof Uint8Array ? types.octet : types.ndjson;
}

function converter(contentType) {
  return contentType === types.ndjson || contentType === types.text_ndjson ? jsonLine : raw;
}

function jsonLine(item) {
  const line = JSON.stringify(item);
  if (line === undefined) throw new TypeError(`${typeof item} cannot be written as JSON`);
  return `${line}\n`;
}

function raw(item) {
  if (typeof item === "string" || Buffer.isBuffer(item)) return item;
  if (item instanceof Uint8Array) return Buffer.from(item.buffer, item.byteOffset, item.byteLength);
  throw new TypeError(
    `an item of the output is ${item === null ? "null" : typeof item}; without the content type ` +
      `${types.ndjson} it must be a string or a Buffer`,
  );
}

module.exports = { send, providesOf };
