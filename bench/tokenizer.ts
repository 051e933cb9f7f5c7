/** Prompts per second of CPU time of the CLIP tokenizer, over real prompts: from an empty cache, and again. `--python <interpreter with tokenizers>` runs
 *  Hugging Face's on one thread in the same minute and gives the ratio; ids must be equal. `--tokenizer <folder>` and `--prompts <JSON array of strings>`
 *  stand in for the data of ATTUNE_TEST_DATA. Exits 1 if an id differs. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ClipTokenizer } from "../lib/data/tokenizer.js";
import { readTokenizerFolder, type TokenizerData } from "../lib/data/tokenizer-files.js";
import { projectRoot } from "../test/support/goldens.js";

interface Peer {
  readonly version: string;
  readonly secondsPerPass: number;
  readonly checksum: number;
}

const rounds = 9;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { tokenizer: { type: "string" }, prompts: { type: "string" }, python: { type: "string" } } });
  const data = process.env.ATTUNE_TEST_DATA;
  if (!data && !(values.tokenizer && values.prompts)) throw new Error("set ATTUNE_TEST_DATA, or give --tokenizer <folder> and --prompts <file>");
  const folder = values.tokenizer ?? join(data!, "goldens/tokenizer/tokenizer");
  const prompts = values.prompts ? (JSON.parse(readFileSync(values.prompts, "utf8")) as string[]) : realPrompts(data!);
  const files = await readTokenizerFolder(folder);

  measure(files, prompts); // compiles
  const { cold, warm, checksum, ids } = measure(files, prompts);
  const rate = (seconds: number): string => `${Math.round(prompts.length / seconds).toLocaleString("en")} prompts/s`;
  console.log(
    `${prompts.length} distinct prompts, ${(ids / prompts.length).toFixed(1)} ids each: ${rate(cold)} from an empty cache, ${rate(warm)} once words are known`,
  );
  if (!values.python) return;
  const peer = runPeer(values.python, folder, prompts);
  console.log(`tokenizers ${peer.version}, one thread: ${rate(peer.secondsPerPass)}`);
  console.log(`ratio: ${(peer.secondsPerPass / cold).toFixed(1)} from an empty cache, ${(peer.secondsPerPass / warm).toFixed(1)} once words are known`);
  if (peer.checksum === checksum) return;
  console.error(`ids differ: checksum ${checksum} here, ${peer.checksum} there`);
  process.exitCode = 1;
}

/** CPU seconds of a first pass and the median of later ones, each with padding and mask. */
function measure(files: TokenizerData, prompts: readonly string[]) {
  const tokenizer = new ClipTokenizer(files);
  const pass = (): number => {
    const start = process.cpuUsage().user;
    for (let i = 0; i < prompts.length; i += 64) tokenizer.encode(prompts.slice(i, i + 64));
    return (process.cpuUsage().user - start) * 1e-6;
  };
  const cold = pass();
  const warm = Array.from({ length: rounds }, pass).sort((a, b) => a - b)[rounds >> 1]!;
  let checksum = 0;
  let ids = 0;
  for (const prompt of prompts)
    for (const id of tokenizer.tokenize(prompt)) {
      checksum = (checksum * 31 + id + 1) % 2 ** 40;
      ids++;
    }
  return { cold, warm, checksum, ids };
}

/** Prompts of the ImageReward test and of TIA2, contrastive ones too. */
function realPrompts(data: string): string[] {
  const read = (file: string): unknown => JSON.parse(readFileSync(join(data, "data", file), "utf8"));
  const tia = read("tia2/tia2_prompts.json") as { prompt: string; contrastive: string[] }[];
  const users = [...(read("imagereward/test.json") as { prompt: string }[]), ...(read("imagereward/benchmark-prompts.json") as { prompt: string }[])];
  return [...new Set([...users.map(row => row.prompt), ...tia.flatMap(row => [row.prompt, ...row.contrastive])])];
}

function runPeer(python: string, folder: string, prompts: readonly string[]): Peer {
  const script = join(projectRoot, "bench/peers/tokenizers_clip.py");
  const { status, stdout, stderr, error } = spawnSync(python, [script, folder], {
    input: JSON.stringify(prompts),
    encoding: "utf8",
    env: { ...process.env, TOKENIZERS_PARALLELISM: "false" },
  });
  if (status !== 0) throw new Error(`${python} ${script}: ${error?.message ?? stderr}`);
  return JSON.parse(stdout) as Peer;
}

void main();
