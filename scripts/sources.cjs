// Prints the paths of native/sources.txt under the given headings ("addon", "core", "cpu"), one a line; binding.gyp reads them from here.
// CMakeLists.txt reads the same file in the same way.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

/** @returns {{ addon: string[], core: string[], cpu: string[] }} */
function sources() {
  const lists = { addon: [], core: [], cpu: [] };
  let list;
  for (const line of fs.readFileSync(path.join(__dirname, "..", "native", "sources.txt"), "utf8").split("\n")) {
    const heading = /^# (\w+)/.exec(line);
    if (heading)
      list = lists[heading[1]]; // lists of other names are CMake's alone
    else if (line.startsWith("native/")) list?.push(line.trim());
  }
  return lists;
}

module.exports = { sources };
if (require.main === module) for (const name of process.argv.slice(2)) console.log(sources()[name].join("\n"));
