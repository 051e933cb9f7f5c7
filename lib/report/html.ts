/** Self-contained HTML pages: styles inside, pictures as data URLs, no script and nothing to fetch. Text is escaped by construction:
 *  only the `markup` template makes Html, and it escapes every string put into it. */

import { encodePng, type Image } from "../data/image.js";
import { pageStyle } from "./style.js";

/** Text that is HTML already. */
export class Html {
  constructor(readonly text: string) {}
}

export type Content = Html | string | number | readonly Content[];

/** `<p>${text}</p>` as Html: strings and numbers in it are escaped, Html and lists of content are inserted. */
export function markup(parts: TemplateStringsArray, ...values: readonly Content[]): Html {
  return new Html(parts.map((part, i) => part + (i < values.length ? render(values[i]!) : "")).join(""));
}

/** Pages whose only styles, pictures and fonts are their own: what the browser is told, too. */
const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/** A complete page. `title` is its heading, `lead` the paragraph under it. */
export function page({ title, lead, body, language = "en" }: { title: string; lead: Content; body: Content; language?: string }): string {
  return markup`<!doctype html>
<html lang="${language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${title}</title>
<style>${new Html(pageStyle)}</style>
</head>
<body>
<main>
<header><h1>${title}</h1><p class="lead">${lead}</p></header>
${body}
</main>
</body>
</html>
`.text;
}

/** A titled part of a page. */
export function section(title: string, ...body: readonly Content[]): Html {
  return markup`<section><h2>${title}</h2>
${body}
</section>
`;
}

export function paragraph(...text: readonly Content[]): Html {
  return markup`<p>${text}</p>\n`;
}

/** A box that must not be overlooked: "warning" for a finding, "note" for a limit of what is shown. */
export function notice(kind: "note" | "warning", ...text: readonly Content[]): Html {
  return markup`<p class="notice ${kind}" role="note">${text}</p>\n`;
}

/** A table; every column but the first is numbers, right-aligned. A row may be marked. */
export function table({
  columns,
  rows,
  caption,
}: {
  columns: readonly Content[];
  rows: readonly { cells: readonly Content[]; marked?: boolean }[];
  caption?: Content;
}): Html {
  const heading = columns.map(column => markup`<th scope="col">${column}</th>`);
  const lines = rows.map(({ cells: [first = "", ...cells], marked }) => {
    const name = markup`<th scope="row">${first}</th>`;
    const values = cells.map(cell => markup`<td>${cell}</td>`);
    return markup`<tr${new Html(marked ? ' class="marked"' : "")}>${name}${values}</tr>\n`;
  });
  return markup`<div class="scroll"><table>${caption === undefined ? "" : markup`<caption>${caption}</caption>`}
<thead><tr>${heading}</tr></thead>
<tbody>
${lines}</tbody></table></div>
`;
}

/** A picture or chart with its caption. Pictures are shown with sharp pixels. */
export function figure({ content, caption, description }: { content: Image | Html; caption?: Content; description?: string }): Html {
  const inner = content instanceof Html ? content : picture(content, description ?? "");
  return markup`<figure>${inner}${caption === undefined ? "" : markup`<figcaption>${caption}</figcaption>`}</figure>\n`;
}

/** An <img> of a PNG as a data URL. */
export function picture(image: Image, description: string): Html {
  const url = `data:image/png;base64,${Buffer.from(encodePng(image)).toString("base64")}`;
  return markup`<img src="${url}" width="${image.width}" height="${image.height}" alt="${description}">`;
}

/** Figures side by side where the screen is wide enough. */
export function columns(...content: readonly Content[]): Html {
  return markup`<div class="columns">${content}</div>\n`;
}

function render(content: Content): string {
  if (content instanceof Html) return content.text;
  if (typeof content === "string" || typeof content === "number") return escapeHtml(String(content));
  return content.map(render).join("");
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
}
