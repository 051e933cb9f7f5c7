"use strict";
// Removes build folders named on the command line, so that a deleted source never leaves a stale .js behind.
const fs = require("node:fs");
const path = require("node:path");
for (const name of process.argv.slice(2)) fs.rmSync(path.join(__dirname, "..", name), { recursive: true, force: true });
