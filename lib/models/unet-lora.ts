/** What adapter files call a UNet's modules. */

import type { LoraComponent } from "./lora-names.js";
import { unetRules } from "./single-file/unet.js";
import type { UNetConfig } from "./unet-config.js";

/** kohya's scripts train SD 1.x and 2.x under diffusers' names and SDXL under CompVis'. */
export function unetComponent(config: UNetConfig, parameters: Iterable<string>): LoraComponent {
  const ending = ".weight";
  const module = (name: string): string => name.slice(0, -ending.length);
  const modules = [...parameters].filter(name => name.endsWith(ending)).map(module);
  const weights = unetRules(config).filter(rule => rule.file.endsWith(ending));
  const originalNames = new Map(weights.map(({ folder, file }) => [module(folder[0]!), module(file)]));
  const xl = config.addedText !== undefined;
  const baseModel = xl ? "sdxl_base_v1-0" : config.linearProjection ? "sd_v2" : "sd_v1";
  return { name: "unet", modules, originalNames, kohyaWritesThem: xl, baseModel };
}
