// Differences between two texts, and the elements that mark them; for the playground and the audit.
// Text reaches a page as text nodes only; nothing here parses markup.

const LONGEST = 4000; // words of both texts together; longer ones count as different throughout

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// One side of a comparison, "out" for the text before and "in" for the one after, what differs marked.
export function side(before, after, kind, className = "") {
  const found = steps(before, after).filter(([other]) => other === "same" || other === kind);
  const name = kind === "out" ? "del" : "ins";
  return joined(found.map(([other, word]) => [other !== "same", word]))
    .flatMap(([differs, piece]) => (differs ? mark(name, className, piece) : [piece]));
}

// Both texts in one line: what was taken out stands before what was put in its place.
export function inline(before, after, className = "") {
  const nodes = [];
  let [out, put] = ["", ""];
  const flush = () => {
    if (out) nodes.push(...mark("del", "", out));
    if (out.trim() && put.trim()) nodes.push(" ");
    if (put) nodes.push(...mark("ins", className, put));
    [out, put] = ["", ""];
  };
  const found = steps(before, after);
  for (const [index, [kind, word]] of found.entries()) {
    const between = !word.trim() && (out || put) && found[index + 1] && found[index + 1][0] !== "same";
    if (kind === "out" || (kind === "same" && between)) out += word;
    if (kind === "in" || (kind === "same" && between)) put += word;
    if (kind !== "same" || between) continue;
    flush();
    nodes.push(word);
  }
  flush();
  return nodes;
}

function mark(name, className, piece) {
  const words = piece.trimEnd();
  return words ? [element(name, className, words), piece.slice(words.length)] : [piece];
}

// Words and spaces of both texts as [same | out | in, word]; those outside the longest common subsequence differ.
function steps(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\s+|[^\s]+/gu) ?? []);
  if (a.length + b.length > LONGEST) return [["out", before], ["in", after]];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push(["same", a[i++]]);
      j++;
    } else if (j === b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) {
      found.push(["out", a[i++]]);
    } else {
      found.push(["in", b[j++]]);
    }
  }
  return found;
}

// Neighbours with the same mark as one piece; a space between two changed words belongs to them.
function joined(pairs) {
  const pieces = [];
  for (const [index, [differs, word]] of pairs.entries()) {
    const between = !word.trim() && pieces.at(-1)?.[0] && pairs[index + 1]?.[0];
    const marked = differs || Boolean(between);
    if (pieces.length && pieces.at(-1)[0] === marked) pieces.at(-1)[1] += word;
    else pieces.push([marked, word]);
  }
  return pieces;
}
