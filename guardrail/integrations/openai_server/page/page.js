// The playground: asks POST /v1/detoxify and shows what became of each sentence.
// Text reaches the page as text nodes only; nothing here parses markup.

const EXAMPLES = {
  review:
    "The room was bright and the breakfast was good. The receptionist is a stupid cow who cannot read a " +
    "booking. We paid 340 euros for three nights. Would I come back? Only with a different idiot at the desk.",
  reply:
    "Thanks for the log file, it shows the cause. You broke the build again, you useless clown. " +
    "Revert commit 4f2a9c1 and run `make test` before you push. Shut your mouth until it is green.",
  quotation:
    "The witness testified that the guard called her \"a filthy animal\". The court found the insult proven. " +
    "As a Jewish lesbian she had heard worse, she said, and she forgave him.",
};
const LADDERS = {
  "rewrite,mask,block": "Rewritten in neutral words. Masked where no rewrite passes the checks.",
  "mask,block": "Its toxic words are covered, all else stays.",
  block: "A refusal takes its place, and nothing after it is shown.",
};

const $ = (id) => document.getElementById(id);
let pending = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function policy() {
  const ladder = document.querySelector("input[name=ladder]:checked").value.split(",");
  return $("own-threshold").checked ? { ladder } : { ladder, threshold: Number($("threshold").value) };
}

async function ask(text, signal) {
  const headers = { "content-type": "application/json" };
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  const body = JSON.stringify({ input: text, policy: policy(), sentences: true });
  const response = await fetch("/v1/detoxify", { method: "POST", headers, body, signal });
  const answer = await response.json();
  if (response.ok) return answer.outcomes[0];
  if (response.status === 401) {
    $("key-field").hidden = false;
    $("key").focus();
    throw new Error("This server is locked: enter one of its proxy keys.");
  }
  throw new Error(answer.error.message);
}

async function check() {
  const text = $("text").value;
  if (!text.trim()) {
    $("problem").textContent = "There is no text yet.";
    $("text").focus();
    return;
  }
  pending?.abort();
  const own = (pending = new AbortController());
  busy(true);
  try {
    show(text, await ask(text, own.signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    $("status").textContent = "";
    $("problem").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    $("result").hidden = true;
  }
  if (pending === own) busy(false);
}

function busy(is) {
  $("submit").setAttribute("aria-disabled", String(is));
  $("submit").textContent = is ? "Checking …" : "Check";
  $("result").setAttribute("aria-busy", String(is));
  if (is) $("problem").textContent = "";
}

function show(text, outcome) {
  // Offsets count characters, strings of this language count 16-bit units.
  const points = Array.from(text);
  const cut = (start, end) => points.slice(start, end).join("");
  $("before").replaceChildren(...original(outcome, cut));
  $("after").replaceChildren(...replacement(outcome, cut));
  const edits = new Map(outcome.edits.map((edit) => [edit.start, edit]));
  $("sentences").replaceChildren(
    ...outcome.sentences.map((sentence) =>
      row(sentence, cut(sentence.start, sentence.end), edits.get(sentence.start), outcome)),
  );
  const degraded = outcome.degraded.length ? ` Not a full pass: ${outcome.degraded.join(", ")}.` : "";
  $("status").textContent = summary(outcome) + degraded;
  const time = outcome.milliseconds.total;
  $("timing").textContent = time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
  $("result").hidden = false;
}

function summary({ edits, sentences }) {
  if (!edits.length) return "Nothing to change: the text is shown as it is.";
  const counts = new Map();
  for (const { action } of edits) counts.set(action, (counts.get(action) ?? 0) + 1);
  const parts = [...counts].map(([action, count]) => `${count} ${action}`);
  const all = sentences.length === 1 ? "the only sentence" : `${edits.length} of ${sentences.length} sentences`;
  const end = counts.has("blocked") ? " Nothing behind the block is shown." : "";
  return `Changed ${all}: ${parts.join(", ")}.${end}`;
}

function original(outcome, cut) {
  const nodes = [];
  let at = 0;
  for (const edit of outcome.edits) {
    nodes.push(cut(at, edit.start));
    if (edit.action === "blocked") return [...nodes, element("del", "", cut(edit.start))];
    nodes.push(...changes(edit.before, edit.after).before.flatMap((pair) => mark("del", "", pair)));
    at = edit.end;
  }
  return [...nodes, cut(at)];
}

function mark(name, className, [differs, piece]) {
  if (!differs) return [piece];
  const words = piece.trimEnd();
  return words ? [element(name, className, words), piece.slice(words.length)] : [piece];
}

function replacement(outcome, cut) {
  const nodes = [];
  let at = 0;
  for (const edit of outcome.edits) {
    nodes.push(cut(at, edit.start));
    if (edit.action === "blocked") {
      nodes.push(element("ins", "blocked", edit.after));
      return ending(nodes, outcome);
    }
    const marked = changes(edit.before, edit.after).after;
    nodes.push(...marked.flatMap((pair) => mark("ins", edit.action, pair)));
    at = edit.end;
  }
  return ending([...nodes, cut(at)], outcome);
}

// Whatever the marks say, the words on the page are the outcome's.
function ending(nodes, outcome) {
  const shown = nodes.map((node) => (typeof node === "string" ? node : node.textContent)).join("");
  return shown === outcome.text ? nodes : [outcome.text];
}

// Both texts as [differs, piece] pairs: words outside their longest common subsequence differ.
function changes(before, after) {
  const a = before.match(/\s+|[^\s]+/gu) ?? [];
  const b = after.match(/\s+|[^\s]+/gu) ?? [];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const result = { before: [], after: [] };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      result.before.push([false, a[i++]]);
      result.after.push([false, b[j++]]);
    } else if (j === b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) {
      result.before.push([true, a[i++]]);
    } else {
      result.after.push([true, b[j++]]);
    }
  }
  return { before: joined(result.before), after: joined(result.after) };
}

// Neighbours with the same mark as one piece; a space between two changed words belongs to them.
function joined(pairs) {
  const pieces = [];
  for (const [index, [differs, word]] of pairs.entries()) {
    const between = !word.trim() && pieces.at(-1)?.[0] && pairs[index + 1]?.[0];
    const mark = differs || Boolean(between);
    if (pieces.length && pieces.at(-1)[0] === mark) pieces.at(-1)[1] += word;
    else pieces.push([mark, word]);
  }
  return pieces;
}

function row(sentence, text, edit, outcome) {
  const item = element("li", sentence.flagged ? "flagged" : "");
  const behind = outcome.edits.find((other) => other.action === "blocked" && other.start < sentence.start);
  const action = behind ? "withheld" : (edit?.action ?? "passed");
  item.append(element("p", "sentence", text), scores(sentence), element("span", `badge ${action}`, action));
  if (edit?.failed_checks.length)
    item.append(element("p", "why muted", `Refused on the way: ${edit.failed_checks.join(", ")}`));
  return item;
}

function scores(sentence) {
  const sorted = Object.entries(sentence.scores).sort((one, other) => other[1] - one[1]);
  const [label, value] = sorted[0] ?? ["toxicity", 0];
  const details = element("details");
  const strongest = element("span", "score");
  const meter = element("meter");
  meter.value = value;
  meter.setAttribute("aria-label", `${words(label)} score`);
  strongest.append(element("span", "", words(label)), element("span", "number", value.toFixed(2)), meter);
  const list = element("dl");
  for (const [name, score] of sorted)
    list.append(element("dt", "", words(name)), element("dd", "number", score.toFixed(2)));
  const head = element("summary");
  head.append(strongest);
  details.append(head, list);
  return details;
}

const words = (label) => label.replaceAll("_", " ");

function describe() {
  const own = $("own-threshold").checked;
  $("threshold").disabled = own;
  $("threshold-value").textContent = own ? "auto" : Number($("threshold").value).toFixed(2);
  $("ladder-hint").textContent = LADDERS[document.querySelector("input[name=ladder]:checked").value];
  const length = Array.from($("text").value).length;
  $("count").textContent = length === 1 ? "1 character" : `${length} characters`;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  check();
});
$("form").addEventListener("input", describe);
$("form").addEventListener("change", (event) => {
  describe();
  if (!$("result").hidden && event.target !== $("text") && event.target !== $("key")) check();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) check();
});
for (const button of document.querySelectorAll("[data-example]"))
  button.addEventListener("click", () => {
    $("text").value = EXAMPLES[button.dataset.example];
    describe();
    check();
  });
describe();
