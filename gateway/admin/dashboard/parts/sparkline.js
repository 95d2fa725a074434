// The last hour of a service in a few pixels: requests a second, failed ones below in another colour.

import { h } from "../lib/dom.js";
import { rate } from "../lib/format.js";

const WIDTH = 120;
const HEIGHT = 28;

/** buckets: [{rate, failed}] oldest first; null: not known yet. */
export function sparkline(name, buckets) {
  if (!buckets?.length)
    return h("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
  const top = Math.max(...buckets.map((bucket) => bucket.rate), 0.1);
  const step = WIDTH / buckets.length;
  const up = (value) => (HEIGHT - 2 - (HEIGHT - 6) * (value / top)).toFixed(1);
  const points = buckets.map((bucket, index) => `${((index + 0.5) * step).toFixed(1)},${up(bucket.rate)}`);
  const failed = buckets.map((bucket, index) =>
    bucket.failed
      ? h("rect", {
          class: "failed",
          x: (index * step).toFixed(1),
          y: HEIGHT - 3,
          width: step.toFixed(1),
          height: 3,
        })
      : null,
  );
  return h(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${name}, last hour: at most ${rate(top)} requests a second${failed.some(Boolean) ? ", with errors" : ""}`,
    },
    h("polygon", {
      class: "area",
      points: `${(step / 2).toFixed(1)},${HEIGHT} ${points.join(" ")} ${(WIDTH - step / 2).toFixed(1)},${HEIGHT}`,
    }),
    h("polyline", { points: points.join(" ") }),
    failed,
  );
}
