/** Which rows of a table can be trusted: certificates as JSON (and a page), and the check of one. */

import { writeFile } from "node:fs/promises";
import type { CommandConfig } from "../../config/schemas.js";
import { type Certificate, writeCertificate } from "../../conformal/certificate.js";
import { certifyGroups, certifyTable, type TableInput } from "../../conformal/certify-table.js";
import { gradientBoosting } from "../../conformal/predictors/boosting.js";
import { randomForest } from "../../conformal/predictors/forest.js";
import { logisticRegression } from "../../conformal/predictors/logistic.js";
import type { Predictor } from "../../conformal/predictors/predictor.js";
import { standardised } from "../../conformal/predictors/standardised.js";
import { verifyCertificate } from "../../conformal/verify.js";
import { ConfigError, DataError } from "../../errors.js";
import { certificatePage } from "../../report/certificate.js";
import { defineCommand, type Io } from "../command.js";
import { defined } from "../defined.js";

type Config = CommandConfig<"certify">;

const predictors: Readonly<Record<NonNullable<Config["predictor"]>, () => Predictor>> = {
  logistic: () => standardised(logisticRegression()),
  forest: () => randomForest(),
  boosting: () => gradientBoosting(),
};

export const certify = defineCommand({
  name: "certify",
  summary: "which rows of a table can be trusted, with a bound on the share of wrong ones; --verify checks a certificate",
  positional: "table",
  async run(config, io) {
    if (config.verify !== undefined) return verify(config, config.verify, io);
    const { table, label, group, output, html, predictor, ...rest } = config;
    if (table === undefined) throw new ConfigError("certify", "table", "given, or --verify", table);
    if (label === undefined) throw new ConfigError("certify", "label", "given", label);
    const input: TableInput = {
      ...defined({ ...rest, verify: undefined, inputHash: undefined }),
      ...{ file: table, label, signal: io.signal },
      ...(predictor && { predictor: predictors[predictor]() }),
    };
    const certificates: [group: string | undefined, Certificate][] =
      group === undefined ? [[undefined, await certifyTable(input)]] : [...(await certifyGroups({ ...input, group }))];
    for (const [name, certificate] of certificates) {
      const files = [named(output, name), named(html, name)] as const;
      if (files[0] !== undefined) await writeCertificate(files[0], certificate);
      if (files[1] !== undefined) await writeFile(files[1], certificatePage(certificate));
      report(io, certificate, name, files);
    }
  },
});

function report(io: Io, certificate: Certificate, group: string | undefined, [output, html]: readonly (string | undefined)[]): void {
  const { units, result, inputs, guarantee, warnings, inputHash } = certificate;
  const data = {
    ...(group !== undefined && { group }),
    k: result.k,
    units,
    alpha: inputs.alpha,
    selected: result.selected,
    warnings,
    inputHash,
    ...defined({ output, html }),
  };
  io.result(
    data,
    [
      `${group === undefined ? "" : `${group}: `}${result.k} of ${units.test} rows can be trusted at a false discovery rate of ${inputs.alpha} (${units.calibration} labelled rows calibrate)`,
      `  ${guarantee.statement}`,
      ...warnings.map(w => `  warning: ${w.message}`),
      ...[output, html].filter(path => path !== undefined).map(path => `  ${path}`),
      ...(output === undefined ? result.selected.map(({ id }) => id) : []),
    ].join("\n"),
  );
}

/** The file of a group: launch.json becomes launch-chest.json. */
function named(path: string | undefined, group: string | undefined): string | undefined {
  if (path === undefined || group === undefined) return path;
  const safe = group.replace(/[^\p{L}\p{N}._-]+/gu, "_");
  return /\.[^./\\]+$/.test(path) ? path.replace(/(\.[^./\\]+)$/, `-${safe}$1`) : `${path}-${safe}`;
}

async function verify({ inputHash }: Config, path: string, io: Io): Promise<void> {
  const { valid, mismatches } = await verifyCertificate(path, { signal: io.signal, ...(inputHash !== undefined && { inputHash }) });
  const lines = mismatches.map(({ field, expected, found }) => `  ${field}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
  io.result(
    { path, valid, mismatches },
    [`${path}: ${valid ? "everything in it follows from its inputs" : `${mismatches.length} things do not follow from its inputs`}`, ...lines].join("\n"),
  );
  if (!valid) throw new DataError(path, "the certificate is not valid");
}
