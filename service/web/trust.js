// How far LIME's regions can be trusted: the numbers that the service measured, in plain words.

import { h, numbers } from "./dom.js";
import { fold } from "./folds.js";
import { number, percent, significant, t } from "./i18n.js";

const LEVELS = ["weak", "fair", "strong"];
const level = (value, fair, strong) => (value >= strong ? 2 : value >= fair ? 1 : 0);

// Of a LIME answer: how strong each measure is, and what it says.
export function judged({ r2, stability, deletion }) {
  const [whole, last] = [deletion.most_first[0], deletion.most_first.at(-1)];
  // With all of them painted over, it says the same: then no region can have mattered.
  const indifferent = whole > 0 && Math.abs(last - whole) < 0.1 * whole;
  const score = deletion.score ?? 0;
  const shares = { whole: percent(whole), most: percent(deletion.most_first[1] ?? whole) };
  const way = shares.most === shares.whole ? "stays" : deletion.most_first[1] < whole ? "falls" : "rises";
  return {
    r2: { level: level(r2, 0.4, 0.75), words: t("trust_r2", { share: percent(r2) }) },
    stability: {
      level: stability === null ? 0 : level(stability, 0.8, 0.95),
      words: stability === null ? t("trust_nothing") : t("trust_stability", { value: number(stability, 2) }),
    },
    deletion: {
      level: indifferent ? 0 : level(score, 0.2, 0.5),
      words: t(indifferent ? "trust_indifferent" : score < 0.05 ? "trust_order_wrong" : "trust_deletion", {
        ...shares,
        way: t(`trust_${way}`, shares),
        last: percent(last),
        gone: number(deletion.removed[1] ?? 0),
        least: percent(deletion.least_first[1] ?? whole),
        score: number(score, 2),
      }),
    },
  };
}

export function trust(found) {
  const measures = judged(found);
  const least = Math.min(...Object.values(measures).map((measure) => measure.level));
  return [
    h("h2", { id: "trust-title" }, t("trust_title")),
    h("p", { class: "lead" }, t(`trust_${LEVELS[least]}`)),
    h(
      "ul",
      { class: "measures" },
      Object.entries(measures).map(([name, measure]) =>
        h(
          "li",
          { "data-measure": name },
          h("span", { class: `level ${LEVELS[measure.level]}` }, t(`level_${LEVELS[measure.level]}`)),
          h("span", {}, measure.words),
        ),
      ),
    ),
    curves(found.deletion),
    fold(
      "numbers",
      t("numbers"),
      numbers([
        ["R²", number(found.r2, 3)],
        [t("n_stability"), found.stability === null ? "–" : number(found.stability, 3)],
        [t("n_deletion"), found.deletion.score === null ? "–" : number(found.deletion.score, 3)],
        [t("n_samples"), number(found.samples) + (found.settled ? "" : ` (${t("n_unsettled")})`)],
        [t("n_regions"), number(found.superpixels.length)],
        [t("n_error"), significant(found.error, 2)],
      ]),
    ),
  ];
}

const [WIDTH, HEIGHT, EDGE, LEFT] = [360, 130, 8, 44];

// How the probability falls as regions go: the two should part early.
function curves({ removed, most_first, least_first }) {
  const all = removed.at(-1) || 1;
  const points = (values) =>
    values
      .map((value, index) => {
        const x = LEFT + (removed[index] / all) * (WIDTH - EDGE - LEFT);
        const y = EDGE + (1 - value) * (HEIGHT - 2 * EDGE);
        return `${x.toFixed(1)},${y.toFixed(1)}`;
      })
      .join(" ");
  return h(
    "figure",
    { class: "curves" },
    h(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("curves_alt") },
      [0, 0.5, 1].map((share) => {
        const y = EDGE + (1 - share) * (HEIGHT - 2 * EDGE);
        return [
          h("line", { class: "rule", x1: LEFT, x2: WIDTH - EDGE, y1: y, y2: y }),
          h("text", { x: LEFT - 6, y: y + 4 }, percent(share)),
        ];
      }),
      h("polyline", { class: "least", points: points(least_first) }),
      h("polyline", { class: "most", points: points(most_first) }),
    ),
    h(
      "figcaption",
      { class: "note" },
      h("span", { class: "key most" }, t("curves_most")),
      h("span", { class: "key least" }, t("curves_least")),
    ),
  );
}
