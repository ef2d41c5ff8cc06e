// The author's program: found, loaded, and asked what it declares.
"use strict";

const fs = require("fs");
const path = require("path");

/** The package has no program where it says, or not one that can be called. */
class BadEntryPoint extends Error {}

/**
 * @param {string} directory of the package
 * @param {string} main path in it
 * @returns {Promise<{functions: function[], requires: object}>}
 */
async function load(directory, main) {
  const file = mainFile(directory, main);
  process.argv = [process.argv[0], file];
  process.chdir(path.dirname(file));
  const exported = await execute(file);
  const value = exported && Object.hasOwn(exported, "default") ? exported.default : exported;
  const parts = Array.isArray(value) ? [...value] : [value];
  const described = parts.length && isDescription(parts[0]) ? parts.shift() : {};
  if (!parts.length) throw new BadEntryPoint(`${main} exports no function`);
  parts.forEach((part, n) => {
    if (typeof part !== "function") {
      throw new BadEntryPoint(`${main} must export a function or an array of them; item ${n} is ${typeof part}`);
    }
  });
  return { functions: parts, requires: requiresOf(described) };
}

function mainFile(directory, main) {
  if (typeof main !== "string" || !main) throw new BadEntryPoint("package.json has no main");
  const root = fs.realpathSync(directory);
  for (const suffix of ["", ".js", ".json", ".cjs", ".mjs", "/index.js"]) {
    const file = path.resolve(root, `${main}${suffix}`);
    if (!file.startsWith(`${root}${path.sep}`)) {
      throw new BadEntryPoint(`main is "${main}", which is outside of the package`);
    }
    if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
  }
  throw new BadEntryPoint(`main is "${main}", and the package has no such file`);
}

async function execute(file) {
  try {
    return require(file);
  } catch (error) {
    if (error.code !== "ERR_REQUIRE_ESM" && error.code !== "ERR_REQUIRE_ASYNC_MODULE") throw error;
    return import(`file://${encodeURI(file)}`);
  }
}

function isDescription(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function requiresOf(described) {
  const requires = {};
  if (described.requires) requires.requires = described.requires;
  if (described.contentType) requires.contentType = described.contentType;
  return requires;
}

module.exports = { load, BadEntryPoint };
