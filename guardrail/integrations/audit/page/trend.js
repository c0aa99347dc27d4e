// Interventions per day as stacked bars, drawn without a library.

import { element } from "/marks.js";

const ACTIONS = ["rewritten", "lossy", "masked", "removed", "blocked", "passed"];
const [WIDTH, HEIGHT, GAP] = [20, 72, 4];
const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

const sum = (counts) => Object.values(counts).reduce((one, other) => one + other, 0);
const inWords = ({ day, counts }) =>
  `${day}: ${Object.entries(counts).map(([action, count]) => `${count} ${action}`).join(", ") || "none"}`;

export function trend({ place, heading, legend }, days) {
  const most = Math.max(1, ...days.map(({ counts }) => sum(counts)));
  const all = days.reduce((total, { counts }) => total + sum(counts), 0);
  const picture = drawn("svg", { viewBox: `0 0 ${days.length * WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const busiest = days.find(({ counts }) => sum(counts) === most);
  picture.setAttribute("aria-label",
    `${all} interventions in ${days.length} days${busiest ? `; the most on ${inWords(busiest)}` : ""}`);
  for (const [index, one] of days.entries()) {
    const group = drawn("g", {});
    const title = drawn("title", {});
    title.textContent = inWords(one);
    group.append(title, drawn("rect", { x: index * WIDTH, y: 0, width: WIDTH, height: HEIGHT, class: "ground" }));
    let top = HEIGHT;
    for (const action of ACTIONS) {
      const height = ((one.counts[action] ?? 0) / most) * HEIGHT;
      top -= height;
      if (height) group.append(drawn("rect", { x: index * WIDTH + GAP / 2, y: top, width: WIDTH - GAP, height, class: action }));
    }
    picture.append(group);
  }
  const ends = element("div", "row muted number");
  ends.append(
    element("span", "", days[0]?.day ?? ""),
    element("span", "", days.at(-1)?.day ?? ""),
  );
  heading.textContent = `Per day (UTC): ${all ? `${all} in ${days.length} days, at most ${most} on one` : `none in ${days.length} days`}`;
  place.replaceChildren(picture, ends);
  const seen = ACTIONS.filter((action) => days.some(({ counts }) => counts[action]));
  legend.replaceChildren(...seen.map((action) => element("li", action, action)));
}
