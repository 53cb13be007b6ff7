// Numbers and sizes for a person.

const group = new Intl.NumberFormat("en-US");
export const count = (n: number) => group.format(n);

/** "1 series" and "2 series", "1 block" and "2 blocks". */
export const plural = (n: number, one: string, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

export function bytes(n: number): string {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} TiB`;
}

const si: [number, string][] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];

/** A short number with an SI prefix, for axes and legends. */
export function short(v: number, digits = 4): string {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf";
  const abs = Math.abs(v);
  if (abs === 0) return "0";
  if (abs >= 1e15 || abs < 1e-9) return v.toExponential(2);
  const [size, unit] = si.find(([s]) => abs >= s * 0.99995)!;
  return String(Number((v / size).toPrecision(digits))) + unit;
}

/** The value as the API says it, with its thousands told apart where it is a plain number. */
export function exact(text: string): string {
  const found = /^(-?)(\d{4,15})(\.\d+)?$/.exec(text);
  return found ? found[1] + group.format(Number(found[2])) + (found[3] ?? "") : text;
}
