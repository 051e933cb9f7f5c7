/** Serves the annotation page on this machine alone. The address holds a random key and the Host header is checked, so that no other page
 *  that the browser has open can read or post labels. */

import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { encodePng, type Image } from "../../lib/data/image.js";
import { annotationPage } from "./annotation-page.js";

export interface Candidates {
  readonly prompt: string;
  readonly left: Image;
  readonly right: Image;
}

export const choices = ["left", "right", "tie", "skip"] as const;
export type Choice = (typeof choices)[number];

export interface Annotation extends AsyncDisposable {
  /** What to open in a browser. */
  readonly url: string;
  /** The choice for every pair, undefined where none was made; settles when the annotator finishes. Rejects with the signal's reason. */
  readonly result: Promise<readonly (Choice | undefined)[]>;
  close(): Promise<void>;
}

const maxBody = 1024;

/** Starts the server on a free port of 127.0.0.1. `onChoice` is told of every choice (again after a correction) before the page goes on. */
export async function startAnnotation(
  candidates: readonly Candidates[],
  { onChoice, signal }: { onChoice?: (labels: readonly (Choice | undefined)[]) => void; signal?: AbortSignal } = {},
): Promise<Annotation> {
  const key = randomBytes(12).toString("hex");
  const nonce = randomBytes(12).toString("base64");
  const labels: (Choice | undefined)[] = candidates.map(() => undefined);
  const { promise: result, resolve, reject } = deferred<readonly (Choice | undefined)[]>();
  result.catch(() => undefined); // a caller that gave up before reading it is no unhandled rejection

  const routes: Record<string, (request: IncomingMessage, response: ServerResponse) => void | Promise<void>> = {
    "GET /": (_, response) =>
      send(
        response,
        200,
        "text/html; charset=utf-8",
        annotationPage(nonce),
        `default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; script-src 'nonce-${nonce}'`,
      ),
    "GET /pairs": (_, response) =>
      send(response, 200, "application/json", JSON.stringify(candidates.map(c => ({ prompt: c.prompt, left: dataUrl(c.left), right: dataUrl(c.right) })))),
    "POST /labels": async (request, response) => {
      const label = parseLabel(await readBody(request), candidates.length);
      if (typeof label === "string") return send(response, 400, "text/plain", label);
      labels[label.index] = label.choice;
      onChoice?.(labels);
      send(response, 204, "text/plain", "");
    },
    "POST /finish": (_, response) => {
      response.on("finish", () => resolve([...labels]));
      send(response, 204, "text/plain", "");
    },
  };
  const server = createServer((request, response) => {
    const { port } = server.address() as AddressInfo;
    const inside = request.headers.host === `127.0.0.1:${port}` && request.url?.startsWith(`/${key}/`);
    const route = inside ? routes[`${request.method} ${request.url!.slice(key.length + 1)}`] : undefined;
    if (!route) return send(response, 404, "text/plain", "not found");
    Promise.resolve(route(request, response)).catch(() => send(response, 400, "text/plain", "the request could not be read"));
  });
  await new Promise<void>((listening, failed) => server.once("error", failed).listen(0, "127.0.0.1", listening));
  signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  if (signal?.aborted) reject(signal.reason);
  const close = () =>
    new Promise<void>(closed => {
      server.close(() => closed());
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/${key}/`, result, close, [Symbol.asyncDispose]: close };
}

function parseLabel(body: string, count: number): { index: number; choice: Choice } | string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return "expected a JSON object";
  }
  const { index, choice } = (value ?? {}) as { index?: unknown; choice?: unknown };
  if (typeof index !== "number" || !Number.isInteger(index) || index < 0 || index >= count) return `expected an index below ${count}`;
  const known = choices.find(c => c === choice);
  return known ? { index, choice: known } : `expected a choice among ${choices.join(", ")}`;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request) {
    size += (part as Buffer).length;
    if (size > maxBody) throw new RangeError("body too large");
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts).toString("utf8");
}

function send(response: ServerResponse, status: number, type: string, body: string, policy = "default-src 'none'"): void {
  if (response.headersSent) return;
  response.writeHead(status, { "content-type": type, "cache-control": "no-store", "x-content-type-options": "nosniff", "content-security-policy": policy });
  response.end(body);
}

function dataUrl(image: Image): string {
  return `data:image/png;base64,${Buffer.from(encodePng(image)).toString("base64")}`;
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
