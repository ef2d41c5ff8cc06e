// Turns text into capitals.
"use strict";

async function* shout(input) {
  for await (const text of input) yield text.toUpperCase();
}

module.exports = (input) => Object.assign(shout(input), { contentType: "text/plain" });
