/** The page on which a person compares pictures: two at a time, mouse, touch or keyboard. It fetches nothing but its own server's answers. */

import { Html, markup } from "../../lib/report/html.js";

const style = `
:root { color-scheme: light dark; --text: #1c2024; --muted: #5b6470; --paper: #fff; --line: #cfd6dd; --accent: #0b62c1; }
@media (prefers-color-scheme: dark) { :root { --text: #e7eaee; --muted: #9da7b3; --paper: #14171a; --line: #3a424c; --accent: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); font: 17px/1.5 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 1.4rem 1rem; text-align: center; }
h1 { font-size: 1.5rem; margin: .2rem 0 .8rem; }
p { color: var(--muted); margin: .5rem 0; }
progress { width: 100%; height: .5rem; accent-color: var(--accent); }
.pair { display: flex; gap: 1rem; justify-content: center; }
button { font: inherit; color: inherit; background: none; border: 2px solid var(--line); border-radius: 10px; padding: .55rem 1.1rem; cursor: pointer; }
button:hover, button:focus-visible { border-color: var(--accent); outline: none; }
.pair button { padding: .6rem; flex: 1; max-width: 19rem; }
.pair img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; display: block; background: #fff; border-radius: 4px; }
.more { margin: 1rem 0; display: flex; gap: .6rem; justify-content: center; flex-wrap: wrap; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .35em; font-size: .85em; color: var(--muted); }
[hidden] { display: none !important; }
`;

/** Paths are relative to the page's own address, which holds the key of this annotation. */
const script = `
const $ = id => document.getElementById(id);
let pairs = [], at = 0, busy = false;
const show = () => {
  const done = at >= pairs.length;
  $("task").hidden = done; $("end").hidden = !done;
  $("progress").max = pairs.length; $("progress").value = at;
  $("count").textContent = Math.min(at + 1, pairs.length) + " of " + pairs.length;
  if (done) return;
  $("prompt").textContent = pairs[at].prompt;
  $("left").firstElementChild.src = pairs[at].left; $("right").firstElementChild.src = pairs[at].right;
};
const post = (path, body) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const fail = text => { $("problem").textContent = text; $("problem").hidden = false; };
const answer = async choice => {
  if (busy || at >= pairs.length) return;
  busy = true;
  try {
    const reply = await post("labels", { index: at, choice });
    if (reply.ok) { at++; $("problem").hidden = true; show(); } else fail(await reply.text());
  } catch { fail("The program that showed this page is no longer running."); } finally { busy = false; }
};
const back = () => { if (!busy && at > 0) { at--; show(); } };
const finish = async () => {
  const reply = await post("finish", {});
  if (!reply.ok) return fail(await reply.text());
  $("task").hidden = true; $("end").hidden = true; $("over").hidden = false;
};
for (const choice of ["left", "right", "tie", "skip"]) $(choice).onclick = () => answer(choice);
$("back").onclick = back; $("undo").onclick = back; $("stop").onclick = finish; $("align").onclick = finish;
const keys = { ArrowLeft: () => answer("left"), ArrowRight: () => answer("right"), ArrowDown: () => answer("tie"), ArrowUp: () => answer("skip"), Backspace: back };
addEventListener("keydown", event => { const act = keys[event.key]; if (act && !event.repeat) { event.preventDefault(); act(); } });
fetch("pairs").then(reply => reply.json()).then(list => { pairs = list; show(); }).catch(() => fail("The pairs could not be loaded."));
`;

/** The page's HTML; `nonce` marks the one script that the browser may run. */
export function annotationPage(nonce: string): string {
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Which picture is better?</title>
<style>${new Html(style)}</style>
</head>
<body>
<main>
<progress id="progress" value="0" max="1" aria-label="progress"></progress>
<p id="count"></p>
<section id="task">
<h1 id="prompt"></h1>
<div class="pair">
<button id="left" aria-label="the left picture is better"><img alt="left picture"></button>
<button id="right" aria-label="the right picture is better"><img alt="right picture"></button>
</div>
<p><kbd>&larr;</kbd> left &ensp; <kbd>&rarr;</kbd> right &ensp; <kbd>&darr;</kbd> tie &ensp; <kbd>&uarr;</kbd> skip &ensp; <kbd>Backspace</kbd> back</p>
<div class="more"><button id="tie">Equally good</button><button id="skip">Skip</button><button id="back">Back</button><button id="stop">Stop here and align</button></div>
</section>
<section id="end" hidden><h1>That was all.</h1><div class="more"><button id="align">Align the model to my choices</button><button id="undo">Back</button></div></section>
<section id="over" hidden><h1>Thank you.</h1><p>The model is being aligned to your choices: see the terminal. You can close this page.</p></section>
<p id="problem" role="alert" hidden></p>
</main>
<script nonce="${nonce}">${new Html(script)}</script>
</body>
</html>
`.text;
}
