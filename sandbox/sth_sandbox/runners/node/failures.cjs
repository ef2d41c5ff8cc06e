// What went wrong in a program, without the frames of its runner.
"use strict";

const fs = require("fs");
const path = require("path");

const MOST_FRAMES = 50;
const LONGEST_MESSAGE = 8192;
const FRAME = /^\s+at (?:async )?(?:(.*?) \()?(?:file:\/\/)?(\/.*?):(\d+):\d+\)?$/;
const SYNTAX = /^(\/.*?):(\d+)\n(.*)\n/;

/** `{type, message, frames: [{file, line, function, source}]}`, outermost frame first. */
function describe(error, directory) {
  if (!(error instanceof Error)) return { type: typeof error, message: text(error), frames: [] };
  const stack = String(error.stack || "");
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
    type: error.constructor.name || error.name,
    message: text(error.message),
    frames: frames.slice(-MOST_FRAMES),
  };
}

/** Prints the error on stderr as Node would have. */
function print(error) {
  if (!(error instanceof Error)) {
    process.stderr.write(`Uncaught ${text(error)}\n`);
    return;
  }
  const lines = String(error.stack || error).split("\n");
  const kept = lines.filter((line) => {
    const frame = FRAME.exec(line);
    return !frame || !isInside(frame[2], __dirname);
  });
  process.stderr.write(`${kept.join("\n")}\n`);
}

function text(value) {
  return String(value).slice(0, LONGEST_MESSAGE);
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

module.exports = { describe, print };
