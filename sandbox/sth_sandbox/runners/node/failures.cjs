// What went wrong in a program, without the frames of its runner.
"use strict";

const fs = require("fs");
const path = require("path");

const MOST_FRAMES = 50;
const LONGEST_MESSAGE = 8192;
const FRAME = /^\s+at (?:async )?(?:(.*?) \()?(?:file:\/\/)?(\/.*?):(\d+):\d+\)?$/;
const NODE_FRAME = /^\s+at .*\(?node:[a-z_/]+(?::\d+:\d+)?\)?$/;
const SYNTAX = /^(\/.*?):(\d+)\n(.*)\n/;

/** `{type, message, frames: [{file, line, function, source}]}`, outermost frame first. */
function describe(error, directory) {
  if (!(error instanceof Error)) return { type: typeof error, message: text(error), frames: [] };
  const stack = property(error, "stack");
  const found = stack.split("\n").map((line) => FRAME.exec(line)).filter(Boolean);
  const frames = found
    .filter(([, , file]) => isInside(file, directory))
    .map(([, name, file, line]) => ({
      file: path.relative(directory, file),
      line: Number(line),
      function: name || "<anonymous>",
      source: sourceLine(file, Number(line)),
    }))
    .reverse();
  const syntax = error instanceof SyntaxError ? SYNTAX.exec(stack) : null;
  if (syntax && isInside(syntax[1], directory)) {
    frames.push({
      file: path.relative(directory, syntax[1]),
      line: Number(syntax[2]),
      function: "<module>",
      source: syntax[3].trim(),
    });
  }
  return {
    type: className(error),
    message: text(ownMessage(error)),
    frames: frames.slice(-MOST_FRAMES),
  };
}

/** Prints the error on stderr as Node would have: the line of the program in `directory`, and the
 * frames that are neither Node's own nor the runner's. */
function print(error, directory) {
  try {
    process.stderr.write(printed(error, directory));
  } catch {
    // The program may have closed or replaced its standard error.
  }
}

function printed(error, directory) {
  if (!(error instanceof Error)) return `Uncaught ${text(error)}\n`;
  const message = property(error, "message");
  const stack = (property(error, "stack") || text(error)).replace(message, () => ownMessage(error));
  const kept = stack.split("\n").filter((line) => {
    const frame = FRAME.exec(line);
    return !NODE_FRAME.test(line) && (!frame || !isInside(frame[2], __dirname));
  });
  return `${place(error, directory)}${kept.join("\n").trimEnd()}\n`;
}

/** The innermost line of the program, above the stack; a SyntaxError begins with it anyway. */
function place(error, directory) {
  const innermost = describe(error, directory).frames.at(-1);
  if (!innermost || SYNTAX.test(property(error, "stack"))) return "";
  return `${path.join(directory, innermost.file)}:${innermost.line}\n    ${innermost.source}\n\n`;
}

/** The message; a module that is not found is looked for from the program, not from its runner. */
function ownMessage(error) {
  const message = property(error, "message");
  return property(error, "code") === "MODULE_NOT_FOUND" ? message.split("\nRequire stack:")[0] : message;
}

/** Anything as text: a program may throw what has none. */
function text(value) {
  try {
    return String(value).slice(0, LONGEST_MESSAGE);
  } catch {
    return "its text cannot be told";
  }
}

function className(error) {
  try {
    return String(error.constructor.name || error.name);
  } catch {
    return "Error";
  }
}

/** A property as text; "" if there is none, or if asking for it fails. */
function property(value, name) {
  try {
    return String(value[name] || "");
  } catch {
    return "";
  }
}

function isInside(file, directory) {
  return file.startsWith(`${directory}${path.sep}`);
}

function sourceLine(file, line) {
  try {
    return (fs.readFileSync(file, "utf8").split("\n")[line - 1] || "").trim();
  } catch {
    return "";
  }
}

module.exports = { describe, print, text };
