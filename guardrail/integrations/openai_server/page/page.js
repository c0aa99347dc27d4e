// The playground: asks POST /v1/detoxify, which answers sentence by sentence, and shows what became of each.
// Text reaches the page as text nodes only; nothing here parses markup.

import { element, side } from "./marks.js";
import { SNIPPETS } from "./snippets.js";

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
const WHY = {
  rewritten: "A rewrite passed every check.",
  lossy: "No rewrite kept all that was said; this one keeps the stance.",
  masked: "Its toxic words are covered.",
  removed: "Nothing of it may be shown, so a short notice takes its place.",
  blocked: "A refusal takes its place, and nothing after it is shown.",
};
const PACE = 10; // words per second of the streaming demo
const TICK = 200; // milliseconds
const MANY = 3; // reasons that are told in a sentence each

const $ = (id) => document.getElementById(id);
let run = null; // what is being checked
let server = { audit: false, upstream: false };

// --- asking --------------------------------------------------------------------------------------------

function policy() {
  const ladder = document.querySelector("input[name=ladder]:checked").value.split(",");
  return $("own-threshold").checked ? { ladder } : { ladder, threshold: Number($("threshold").value) };
}

async function* events(question, signal) {
  const headers = { "content-type": "application/json" };
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  const body = JSON.stringify({ ...question, stream: true, explain: true });
  const response = await fetch("/v1/detoxify", { method: "POST", headers, body, signal });
  if (!response.ok) throw refusal(response.status, await response.json());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The server broke off in the middle.");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const payload = part.replace(/^data: /, "");
      if (payload === "[DONE]") return;
      const event = JSON.parse(payload);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

function refusal(status, answer) {
  if (status !== 401) return new Error(answer.error.message);
  $("key-field").hidden = false;
  $("key").focus();
  describe();
  return new Error("This server is locked: enter one of its proxy keys.");
}

async function check() {
  const text = $("text").value;
  if (!text.trim()) {
    $("problem").textContent = "There is no text yet.";
    $("text").focus();
    return;
  }
  run?.aborter.abort();
  const own = (run = new Run(text, $("paced").checked));
  busy(true);
  try {
    const question = { input: text, policy: policy(), ...(own.paced ? { pace: PACE } : {}) };
    for await (const event of events(question, own.aborter.signal)) if (run === own) own.take(event);
  } catch (error) {
    if (run !== own) return; // another check took its place
    if (error.name === "AbortError") own.cancelled();
    else failed(error);
  }
  if (run === own) busy(false);
}

function failed(error) {
  $("status").textContent = "";
  $("problem").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
  $("result").hidden = true;
}

function busy(is) {
  $("submit").setAttribute("aria-disabled", String(is));
  $("submit").textContent = is ? "Checking …" : "Check";
  $("result").setAttribute("aria-busy", String(is));
  $("progress").hidden = !is;
  if (is) $("problem").textContent = $("status").textContent = "";
  else clearInterval(run.clock);
}

// --- one check -----------------------------------------------------------------------------------------

class Run {
  constructor(text, paced) {
    this.text = text;
    this.points = Array.from(text); // offsets count characters, strings of this language 16-bit units
    this.paced = paced;
    this.aborter = new AbortController();
    this.started = performance.now();
    this.sentences = []; // where they are
    this.rows = []; // their places in the list
    this.done = []; // what became of them
    this.read = paced ? 0 : this.points.length;
    this.shown = 0; // characters of the original whose fate is known
    this.clock = setInterval(() => this.tick(), TICK);
    this.tick();
  }

  cut(start, end) {
    return this.points.slice(start, end).join("");
  }

  take(event) {
    if (event.object === "detoxify.started") this.begin(event);
    else if (event.object === "detoxify.read") this.advance(event.end);
    else if (event.object === "detoxify.sentence") this.add(event);
    else if (event.object === "detoxify.outcome") this.end(event);
    this.tick();
  }

  begin({ sentences }) {
    this.sentences = sentences;
    this.coming = document.createTextNode(this.cut(0, this.read)); // read, and not judged yet
    $("before-heading").textContent = this.paced ? "As it is written" : "Original";
    $("after-heading").textContent = this.paced ? "What the reader sees" : "Shown instead";
    $("before").replaceChildren(this.coming);
    $("after").replaceChildren();
    this.rows = sentences.map(({ start, end }) => waiting(this.cut(start, end)));
    $("sentences").replaceChildren(...this.rows);
    $("timing").textContent = "";
    $("result").hidden = false;
  }

  advance(end) {
    this.read = end;
    this.coming.data = this.cut(this.shown, end);
  }

  add(sentence) {
    const { start, end, action, after } = sentence;
    const before = this.cut(start, end);
    const gap = this.cut(this.shown, start);
    this.coming.before(gap);
    if (action === "passed") {
      this.coming.before(before);
      $("after").append(gap, before);
    } else if (action === "blocked") {
      this.coming.before(element("del", "", this.cut(start)));
      $("after").append(gap, element("ins", "blocked", after));
      this.read = this.points.length;
    } else {
      this.coming.before(...side(before, after, "out"));
      $("after").append(gap, ...side(before, after, "in", action));
    }
    this.shown = action === "blocked" ? this.points.length : end;
    this.coming.data = this.cut(this.shown, this.read);
    const made = row(sentence, before);
    this.rows[this.done.length].replaceWith(made);
    this.rows[this.done.length] = made;
    this.done.push(sentence);
  }

  end(outcome) {
    const blocked = outcome.action === "blocked";
    if (!blocked) {
      const rest = this.cut(this.shown);
      this.coming.data = rest;
      $("after").append(rest);
    }
    // Whatever the marks say, the words on the page are the outcome's.
    if ($("after").textContent !== outcome.text) $("after").textContent = outcome.text;
    this.close("withheld", "What stands behind a block was not read.");
    const reasons = outcome.degraded_reasons.map(({ words }) => words).join("; ");
    $("status").textContent = this.summary() + (reasons ? ` Not a full pass: ${reasons}.` : "");
    $("timing").textContent = seconds(performance.now() - this.started);
  }

  // What was not reached, and why.
  close(badge, why) {
    for (const made of this.rows.slice(this.done.length)) {
      made.querySelector(".badge").textContent = badge;
      made.querySelector(".why").textContent = why;
    }
  }

  cancelled() {
    this.close("not read", "");
    const all = this.sentences.length;
    $("status").textContent = all
      ? `Cancelled after ${this.done.length} of ${all} sentences.`
      : "Cancelled.";
  }

  tick() {
    const [count, all] = [this.done.length, this.sentences.length];
    $("bar").max = Math.max(all, 1);
    if (all) $("bar").value = count;
    else $("bar").removeAttribute("value");
    const at = all ? `Sentence ${Math.min(count + 1, all)} of ${all}` : "Waiting for the server";
    $("progress-text").textContent = `${at} · ${seconds(performance.now() - this.started)}`;
  }

  summary() {
    const edits = this.done.filter(({ action }) => action !== "passed");
    if (!edits.length) return "Nothing to change: the text is shown as it is.";
    const counts = new Map();
    for (const { action } of edits) counts.set(action, (counts.get(action) ?? 0) + 1);
    const parts = [...counts].map(([action, count]) => `${count} ${action}`);
    const all = this.sentences.length;
    const which = all === 1 ? "the only sentence" : `${edits.length} of ${all} sentences`;
    const end = counts.has("blocked") ? " Nothing behind the block is shown." : "";
    return `Changed ${which}: ${parts.join(", ")}.${end}`;
  }
}

const seconds = (time) => (time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`);

// --- one sentence --------------------------------------------------------------------------------------

function waiting(text) {
  const item = element("li", "waiting");
  item.append(element("p", "sentence", text), element("span"), element("span", "badge", "waiting"), element("p", "why muted"));
  return item;
}

function row(sentence, text) {
  const item = element("li", sentence.flagged ? "flagged" : "");
  const { action } = sentence;
  item.append(element("p", "sentence", text), scores(sentence), element("span", `badge ${action}`, action));
  if (action === "passed") return item;
  const why = element("div", "why");
  why.append(...reasons(sentence).map((line) => element("p", "", line)));
  if (sentence.attempts.length) why.append(attempts(sentence));
  item.append(why);
  return item;
}

// Plain sentences: what was refused on the way, and what was done in the end.
function reasons({ action, attempts, reasons }) {
  const refused = attempts.filter((attempt) => attempt.reasons.length);
  const counts = new Map();
  for (const { reasons } of refused.filter(({ step }) => step === "rewrite"))
    counts.set(listed(reasons), (counts.get(listed(reasons)) ?? 0) + 1);
  const rewrites = [...counts].map(([words, count]) =>
    `${count === 1 ? "A rewrite was" : `${count} rewrites were`} refused because ${words}.`);
  const told = new Set(refused.flatMap((attempt) => attempt.reasons.map(({ name }) => name)));
  const others = reasons.filter(({ name }) => !told.has(name)).map(({ words }) => `${words[0].toUpperCase()}${words.slice(1)}.`);
  const masks = refused.filter(({ step }) => step === "mask").map(({ reasons }) => `A mask is not enough: ${listed(reasons)}.`);
  const most = rewrites.length > MANY ? [...rewrites.slice(0, MANY), "More were refused; all are listed below."] : rewrites;
  return [...most, ...others, ...masks, WHY[action]];
}

function listed(reasons) {
  const all = reasons.map(({ words }) => words);
  return all.length < 2 ? all.join("") : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
}

function attempts({ attempts }) {
  const details = element("details");
  const list = element("ol", "attempts");
  for (const { text, taken, reasons } of attempts) {
    const item = element("li", taken ? "taken" : "");
    const result = reasons.length ? `refused: ${listed(reasons)}` : "passed, another one was better";
    item.append(element("q", "", text), element("span", "muted", ` ${taken ? "taken" : result}`));
    list.append(item);
  }
  const count = attempts.length === 1 ? "1 text was tried" : `${attempts.length} texts were tried`;
  details.append(element("summary", "", count), list);
  return details;
}

function scores(sentence) {
  const sorted = Object.entries(sentence.scores).sort((one, other) => other[1] - one[1]);
  const [label, value] = sorted[0] ?? ["toxicity", 0];
  const details = element("details", "scores");
  const strongest = element("span", "score");
  const meter = element("meter");
  meter.value = value;
  meter.setAttribute("aria-label", `${spaced(label)} score`);
  strongest.append(element("span", "", spaced(label)), element("span", "number", value.toFixed(2)), meter);
  const list = element("dl");
  for (const [name, score] of sorted)
    list.append(element("dt", "", spaced(name)), element("dd", "number", score.toFixed(2)));
  const head = element("summary");
  head.append(strongest);
  details.append(head, list);
  return details;
}

const spaced = (label) => label.replaceAll("_", " ");

// --- the form ------------------------------------------------------------------------------------------

function describe() {
  const own = $("own-threshold").checked;
  $("threshold").disabled = own;
  $("threshold-value").textContent = own ? "auto" : Number($("threshold").value).toFixed(2);
  $("ladder-hint").textContent = LADDERS[document.querySelector("input[name=ladder]:checked").value];
  const length = Array.from($("text").value).length;
  $("count").textContent = length === 1 ? "1 character" : `${length} characters`;
  snippet();
}

function snippet() {
  const kind = document.querySelector("input[name=snippet]:checked").value;
  const text = $("text").value || "You broke the build again, you useless clown.";
  const locked = !$("key-field").hidden;
  $("snippet").textContent = SNIPPETS[kind]({ text, policy: policy(), origin: location.origin, locked, ...server });
  $("copied").textContent = "";
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    $("copied").textContent = "Copied.";
  } catch { // no clipboard, as on plain HTTP from elsewhere: the text is selected for Ctrl+C
    getSelection().selectAllChildren($("snippet"));
    $("copied").textContent = "Selected: press Ctrl+C.";
  }
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
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("progress").hidden) run.aborter.abort();
});
$("cancel").addEventListener("click", () => {
  run.aborter.abort();
  $("text").focus();
});
for (const radio of document.querySelectorAll("input[name=snippet]")) radio.addEventListener("change", snippet);
$("copy").addEventListener("click", copy);
for (const button of document.querySelectorAll("[data-example]"))
  button.addEventListener("click", () => {
    $("text").value = EXAMPLES[button.dataset.example];
    describe();
    check();
  });
describe();
server = await fetch("/page.json").then((answer) => answer.json(), () => server);
$("audit").hidden = !server.audit;
snippet();
