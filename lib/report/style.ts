/** The look of reports: one column of readable width, light and dark by the reader's setting, series colours told apart by colour-blind readers too. */

/** Number of series colours, --series-0 and on. */
export const seriesColours = 6;

/** Stands for --series-i where a chart is shown outside of a page. */
export const fallbackColours = ["#0b62c1", "#c2410c", "#0f7b5f", "#9333a8", "#8a6100", "#4b5563"] as const;

export const pageStyle = `
:root { color-scheme: light dark; --text: #1c2024; --muted: #5b6470; --line: #d9dee4; --paper: #ffffff; --raised: #f5f7f9; --warning: #a63d00; --warning-paper: #fff4ea;
  ${fallbackColours.map((colour, i) => `--series-${i}: ${colour};`).join(" ")} }
@media (prefers-color-scheme: dark) { :root { --text: #e7eaee; --muted: #9da7b3; --line: #343b44; --paper: #14171a; --raised: #1d2126; --warning: #ffb27a; --warning-paper: #33220f;
  --series-0: #6cb0ff; --series-1: #ff9a5c; --series-2: #4fd1a5; --series-3: #d79be8; --series-4: #e2b84a; --series-5: #a5b0bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
p { margin: .6rem 0; max-width: 46rem; }
.lead { font-size: 1.08rem; color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .94rem; }
caption { text-align: left; color: var(--muted); font-size: .9rem; padding-bottom: .4rem; }
th, td { padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; }
thead th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
tr.marked td, tr.marked th { font-weight: 650; }
small { color: var(--muted); font-size: .86em; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 6px; background: #fff; display: block; }
figure svg { width: 100%; max-width: 34rem; height: auto; display: block; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .4rem; max-width: 46rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .4rem 2rem; }
.notice { padding: .7rem .95rem; border-radius: 6px; background: var(--raised); border-left: 4px solid var(--muted); }
.notice.warning { background: var(--warning-paper); border-color: var(--warning); }
@media (max-width: 44rem) { td small { display: block; } th, td { padding-right: .7rem; vertical-align: top; } th:first-child { white-space: normal; } }
code { background: var(--raised); padding: .1em .3em; border-radius: 4px; font-size: .9em; }
`;
