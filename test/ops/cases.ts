/** The one list of op cases: what ops compute, on shapes that catch kernels out. Used by the reference, gradient and backend tests. */

import type { OpCase } from "./case.js";
import { attentionCases } from "./cases/attention.js";
import { convCases } from "./cases/conv.js";
import { elementwiseCases } from "./cases/elementwise.js";
import { embedCases } from "./cases/embed.js";
import { fusedCases } from "./cases/fused.js";
import { productCases } from "./cases/matmul.js";
import { noiseCases } from "./cases/noise.js";
import { normCases } from "./cases/norm.js";
import { optimizerCases } from "./cases/optimizer.js";
import { preferenceCases } from "./cases/preference.js";
import { randomCases } from "./cases/random.js";
import { reduceCases } from "./cases/reduce.js";
import { shapeCases } from "./cases/shape.js";

export const opCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...shapeCases,
  ...reduceCases,
  ...productCases,
  ...convCases,
  ...normCases,
  ...attentionCases,
  ...embedCases,
  ...randomCases,
  ...noiseCases,
  ...preferenceCases,
  ...optimizerCases,
  ...fusedCases,
];
