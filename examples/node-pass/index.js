// Gives back every byte that it is sent.
"use strict";

module.exports = function (input) {
  input.contentType = "application/octet-stream";
  return input;
};
