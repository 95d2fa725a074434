// What people type into forms, as the API wants it.

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "90s", "5m", "1h30m" as milliseconds. Throws what is wrong, naming the field. */
export function durationOf(text, field) {
  const parts = [...text.replaceAll(" ", "").matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  if (!parts.length || parts.map(([whole]) => whole).join("") !== text.replaceAll(" ", ""))
    throw new Error(`${field}: write it like 30s, 5m or 1h30m`);
  return Math.round(parts.reduce((sum, [, number, unit]) => sum + Number(number) * UNITS[unit], 0));
}

/** "10, 50, 100" as numbers. Throws what is wrong, naming the field. */
export function numbersOf(text, field) {
  const numbers = text.split(",").map((part) => Number(part.replace("%", "").trim()));
  if (numbers.some((number) => !Number.isInteger(number)))
    throw new Error(`${field}: write percentages with commas, like 10, 50, 100`);
  return numbers;
}

/** Milliseconds as they are typed: 5m, 90s. */
export function durationText(ms) {
  if (!ms) return "0";
  const [unit, size] = Object.entries(UNITS)
    .reverse()
    .find(([, each]) => ms >= each && ms % each === 0) ?? ["ms", 1];
  return `${ms / size}${unit}`;
}
