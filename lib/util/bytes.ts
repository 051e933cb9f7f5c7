/** Amounts of memory as people read them: "512 B", "3.2 GiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let amount = bytes;
  for (; amount >= 1024 && at < units.length - 1; at++) amount /= 1024;
  return `${at === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[at]}`;
}
