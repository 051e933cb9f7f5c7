"""Conformal p-values and Benjamini-Hochberg with numpy, on data written by bench/conformal.ts: two ways, the usual searchsorted and the fastest we know (sort both
sides, search in order). Prints rows as that file does. One thread."""
import json
import os
import sys
import time

import numpy as np

folder, alpha = sys.argv[1], float(sys.argv[2])
scores = np.fromfile(os.path.join(folder, "scores"), np.float64)
aligned = np.fromfile(os.path.join(folder, "aligned"), np.uint8)
test = np.fromfile(os.path.join(folder, "test"), np.float64)
n, m = len(scores), len(test)


def p_values():
    nulls = np.sort(scores[aligned == 0])
    return (1 + len(nulls) - np.searchsorted(nulls, test, "left")) / (n + 1)


def bh(p):
    ordered = np.sort(p)
    hits = np.nonzero(ordered * m <= alpha * np.arange(1, m + 1) * (1 + 1e-12))[0]
    k = int(hits[-1]) + 1 if len(hits) else 0
    return k, np.nonzero(p <= (ordered[k - 1] if k else -1))[0]


def fused():
    nulls, ordered = np.sort(scores[aligned == 0]), np.sort(test)
    above = len(nulls) - np.searchsorted(nulls, ordered, "left")
    hits = np.nonzero((1 + above) * m <= alpha * np.arange(m, 0, -1) * (n + 1) * (1 + 1e-12))[0]
    threshold = ordered[hits[0]] if len(hits) else np.inf
    chosen = np.nonzero(test >= threshold)[0]
    return len(chosen), chosen


def row(name, work, selects=True):
    best, cpu = np.inf, np.inf
    for _ in range(7):
        start, busy = time.perf_counter(), time.process_time()
        result = work()
        best, cpu = min(best, time.perf_counter() - start), min(cpu, time.process_time() - busy)
    out = {"name": f"numpy: {name}", "milliseconds": 1e3 * best, "cpuMilliseconds": 1e3 * cpu}
    return {**out, "k": int(result[0])} if selects else out


p = p_values()
print(json.dumps([
    row("p-values and Benjamini-Hochberg", lambda: bh(p_values())),
    row("  p-values, deterministic", p_values, False),
    row("  Benjamini-Hochberg", lambda: bh(p)),
    row("threshold by two sorts and a merge", fused),
]))
