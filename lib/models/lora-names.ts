/** Names of adapter tensors. One adapter is written under five kinds of names in the field; all are brought to a module and what of its adapter the tensor is:
 *    diffusers      unet.<module>.lora.down.weight, text_encoder.<module>.lora_linear_layer.down.weight
 *    peft           unet.<module>.lora_A.weight                        (A is down, B is up)
 *    processors     unet.<attention>.processor.to_q_lora.down.weight   (diffusers before peft; text encoders without `processor`)
 *    kohya          lora_unet_<module with underscores>.lora_down.weight, .alpha, .dora_scale
 *    kohya, SDXL    the same of the module's name in CompVis' layout: lora_unet_input_blocks_4_1_... */

export type ComponentName = "unet" | "text_encoder" | "text_encoder_2";

/** A model whose adapter a file may hold: its names, and nothing else of it. */
export interface LoraComponent {
  readonly name: ComponentName;
  /** Names of its modules with weights. */
  readonly modules: readonly string[];
  /** kohya's prefix, where it is not the usual one: "lora_te1_" for the first text encoder of SDXL. */
  readonly kohyaPrefix?: string;
  /** Modules' names in CompVis' layout, which kohya's files use where `kohyaWritesThem` (SDXL); files are read under either. */
  readonly originalNames?: ReadonlyMap<string, string>;
  readonly kohyaWritesThem?: boolean;
  /** kohya's name for the base model ("sd_v1", "sd_v2", "sdxl_base_v1-0"), for the file's notes. */
  readonly baseModel?: string;
}

export type LoraPart = "down" | "up" | "alpha" | "magnitude";

export interface LoraPlace {
  readonly component: ComponentName;
  readonly module: string;
  readonly part: LoraPart;
}

const kohyaPrefixes: Readonly<Record<string, ComponentName>> = {
  lora_unet_: "unet",
  lora_te_: "text_encoder",
  lora_te1_: "text_encoder",
  lora_te2_: "text_encoder_2",
};

const parts: Readonly<Record<string, LoraPart>> = {
  "lora.down": "down",
  "lora.up": "up",
  lora_A: "down",
  lora_B: "up",
  "lora_linear_layer.down": "down",
  "lora_linear_layer.up": "up",
  "lora_down.weight": "down",
  "lora_up.weight": "up",
  alpha: "alpha",
  dora_scale: "magnitude",
};

/** Finds the module of each stored name. Made once per file, since it indexes the modules. */
export class LoraNames {
  /** By component: module by its name, and by every name with underscores that kohya may have for it. */
  readonly #known = new Map<ComponentName, { readonly modules: ReadonlySet<string>; readonly flat: ReadonlyMap<string, string> }>();
  readonly #only: ComponentName | undefined;

  constructor(components: readonly LoraComponent[]) {
    for (const { name, modules, originalNames } of components) {
      const flat = new Map(modules.map(module => [flatName(module), module]));
      for (const [module, original] of originalNames ?? []) flat.set(flatName(original), module);
      this.#known.set(name, { modules: new Set(modules), flat });
    }
    this.#only = components.length === 1 ? components[0]!.name : undefined;
  }

  /** Which component a name is for, whether or not it is one of ours; undefined where the name does not say. */
  static componentOf(stored: string): ComponentName | undefined {
    const kohya = /^lora_(unet|te|te1|te2)_/.exec(stored);
    return kohya ? kohyaPrefixes[kohya[0]] : (/^(unet|text_encoder_2|text_encoder)\./.exec(stored)?.[1] as ComponentName | undefined);
  }

  /** Undefined for a name of no style, or of a module that no component has. A name without a component is for the only one there is. */
  place(stored: string): LoraPlace | undefined {
    const component = LoraNames.componentOf(stored) ?? this.#only;
    const known = component && this.#known.get(component);
    if (!known) return undefined;
    const kohya = /^lora_(?:unet|te|te1|te2)_(.+)\.(lora_down\.weight|lora_up\.weight|alpha|dora_scale)$/.exec(stored);
    const found = kohya ? { module: known.flat.get(kohya[1]!) ?? "", part: parts[kohya[2]!]! } : dottedPlace(stored, component);
    return found && known.modules.has(found.module) ? { component, ...found } : undefined;
  }
}

function flatName(module: string): string {
  return module.replaceAll(".", "_");
}

function dottedPlace(stored: string, component: ComponentName): { readonly module: string; readonly part: LoraPart } | undefined {
  const name = stored.replace(/^base_model\.model\./, "").replace(new RegExp(`^${component}\\.`), "");
  const processor = /^(.+?)(?:\.processor)?\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$/.exec(name);
  if (processor) return { module: `${processor[1]}.${projection(processor[2]!, component)}`, part: processor[3] as LoraPart };
  const plain = /^(.+)\.(lora\.down|lora\.up|lora_A|lora_B|lora_linear_layer\.down|lora_linear_layer\.up)(?:\.default)?\.weight$/.exec(name);
  if (plain) return { module: plain[1]!, part: parts[plain[2]!]! };
  const magnitude = /^(.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$/.exec(name);
  if (magnitude) return { module: magnitude[1]!, part: "magnitude" };
  const alpha = /^(.+)\.alpha$/.exec(name);
  return alpha ? { module: alpha[1]!, part: "alpha" } : undefined;
}

/** Processors call the projections of text encoders as those of the UNet. */
function projection(name: string, component: ComponentName): string {
  if (component === "unet") return name === "to_out" ? "to_out.0" : name;
  return name === "to_out" ? "out_proj" : `${name.slice("to_".length)}_proj`;
}

/** diffusers' name for what it saves of a module: adapters of text encoders have another infix. */
export function diffusersName(component: ComponentName, module: string, part: Exclude<LoraPart, "alpha">): string {
  if (part === "magnitude") return `${component}.${module}.lora_magnitude_vector`;
  const infix = component === "unet" || module === "text_projection" ? "lora" : "lora_linear_layer";
  return `${component}.${module}.${infix}.${part}.weight`;
}

/** kohya's name, without the leaf. */
export function kohyaName({ name, kohyaPrefix, originalNames, kohyaWritesThem = false }: LoraComponent, module: string): string {
  const usual = Object.entries(kohyaPrefixes).find(([, component]) => component === name)![0];
  return (kohyaPrefix ?? usual) + flatName(kohyaWritesThem ? (originalNames?.get(module) ?? module) : module);
}
