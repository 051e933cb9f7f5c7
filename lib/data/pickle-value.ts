/** What a pickle builds: Python's plain types in JavaScript's, and objects that the reader of a format adds. */

/** What a listed function may build besides Python's own types. */
export abstract class PickleObject {}

/** A tuple, which nothing can be appended to. */
export class PickleTuple extends PickleObject {
  constructor(readonly items: readonly PickleValue[]) {
    super();
  }
}

/** A name of the allow-list. Without `call` it is an inert value: fit for a dict's key, but REDUCE refuses it. */
export class PickleGlobal extends PickleObject {
  constructor(
    readonly name: string,
    readonly call?: (args: readonly PickleValue[]) => PickleValue,
  ) {
    super();
  }
}

/** Lists are arrays, dicts and OrderedDicts are Maps, whole numbers beyond 2^53 are bigints. A value may contain itself. */
export type PickleValue = null | boolean | number | bigint | string | PickleValue[] | Map<PickleValue, PickleValue> | PickleObject;

/** Thrown by listed functions for arguments that they do not take; leaves `unpickle` as a DataError with the place. */
export class PickleMismatch extends Error {}

/** What a value is, in a few words, whatever its size. */
export function kindOf(value: PickleValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "None";
  if (typeof value === "string") return value.length <= 60 ? JSON.stringify(value) : `a string of ${value.length} characters`;
  if (typeof value !== "object") return String(value).slice(0, 60);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (value instanceof Map) return `a dict of ${value.size}`;
  if (value instanceof PickleTuple) return `a tuple of ${value.items.length}`;
  if (value instanceof PickleGlobal) return value.name;
  return value.constructor.name;
}
