// The audit page: asks /audit/interventions and /audit/days, and records decisions.
// Text reaches the page as text nodes only; nothing here parses markup.

import { element, inline, side } from "/marks.js";
import { trend } from "./trend.js";

const $ = (id) => document.getElementById(id);
const STORED = "guardrail-audit-key"; // in this tab alone, if its owner wants that
const PAGE = 50;
const newer = []; // of every newer page, the newest first: its `before` and how many records came before it
let here = { before: null, shown: 0 };
let next = null;
let asked = 0; // counts the questions: an answer to an earlier one is not shown
let key = "";
let records = [];
let at = -1; // the row that the keyboard is at

// --- asking --------------------------------------------------------------------------------------------

async function ask(path, body) {
  const headers = { authorization: `Bearer ${key}` };
  if (body) headers["content-type"] = "application/json";
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json();
  if (response.ok) return answer;
  if (response.status === 401) throw new KeyProblem(answer.error.code);
  const problem = new Error(answer.error.message);
  problem.checks = answer.error.failed_checks;
  problem.words = answer.error.words;
  throw problem;
}

class KeyProblem extends Error {
  constructor(code) {
    super(code === "no_audit_keys"
      ? "This server has no audit keys yet, so nobody can sign in. See below how to set one."
      : "That key does not open this audit. Look for a missing or extra character, or ask whoever gave it to you.");
  }
}

function query() {
  const chosen = new URLSearchParams();
  for (const [name, value] of new FormData($("filters"))) {
    if (!value) continue;
    if (name === "since") chosen.set(name, new Date(`${value}T00:00`).toISOString());
    else if (name === "until") {
      const day = new Date(`${value}T00:00`);
      day.setDate(day.getDate() + 1);
      chosen.set(name, day.toISOString());
    } else chosen.set(name, value.trim());
  }
  return chosen;
}

// A search travels in the body: addresses are logged on the way.
const search = () => ($("text").value.trim() ? { text: $("text").value.trim() } : undefined);

async function load() {
  $("problem").textContent = "";
  $("records").setAttribute("aria-busy", "true");
  const chosen = query();
  chosen.set("limit", PAGE);
  const mine = ++asked;
  try {
    // A page without a record may have others behind it: the server looks through some thousand at a time.
    for (;;) {
      if (here.before !== null) chosen.set("before", here.before);
      const page = await ask(`/audit/interventions?${chosen}`, search());
      if (mine !== asked) return false;
      if (page.records.length || page.next === null) {
        show(page);
        return true;
      }
      here = { before: page.next, shown: here.shown };
      $("status").textContent = `Looking … nothing fits down to number ${page.next}.`;
    }
  } catch (error) {
    if (mine === asked) told(error);
    return false;
  } finally {
    if (mine === asked) $("records").setAttribute("aria-busy", "false");
  }
}

async function loadDays() {
  try {
    const { days } = await ask(`/audit/days?${query()}`, search());
    trend({ place: $("trend"), heading: $("trend-heading"), legend: $("legend") }, days);
  } catch (error) {
    told(error);
  }
}

function told(error) {
  if (error instanceof KeyProblem) leave(error.message);
  else {
    $("status").textContent = "";
    $("problem").textContent = error.message;
  }
}

// --- signing in ----------------------------------------------------------------------------------------

async function enter() {
  $("entry-problem").textContent = "";
  try {
    const { reviewer } = await ask("/audit/me");
    $("reviewer").textContent = `Signed in as ${reviewer}`;
  } catch (error) {
    leave(error.message);
    return;
  }
  if ($("keep").checked) sessionStorage.setItem(STORED, key);
  $("key").value = "";
  $("entry").hidden = true;
  $("signed-in").hidden = $("work").hidden = false;
  if (await load()) move(0);
  await loadDays();
}

function leave(why = "") {
  key = "";
  sessionStorage.removeItem(STORED);
  records = [];
  $("list").replaceChildren();
  $("trend").replaceChildren();
  $("entry").hidden = false;
  $("signed-in").hidden = $("work").hidden = true;
  $("entry-problem").textContent = why;
  $("key").focus();
}

// --- the table -----------------------------------------------------------------------------------------

function show(page) {
  records = page.records;
  next = page.next;
  at = -1;
  $("list").replaceChildren(...records.map(row));
  $("newer").disabled = newer.length === 0;
  $("older").disabled = next === null;
  const first = here.shown;
  const last = first + records.length;
  const isAll = page.exact || next === null;
  const total = page.exact ? page.total : isAll ? last : Math.max(page.total, last);
  const many = isAll ? `${total}` : `${total} or more`;
  $("range").textContent = records.length ? `${first + 1}–${last} of ${many}` : "";
  $("status").textContent = last === 0 && isAll ? "No intervention fits." : `${many} intervention${many === "1" ? "" : "s"}.`;
  $("all").checked = false;
  selected();
}

const acceptable = (one) =>
  (one.monitored || one.action === "rewritten") && one.before !== null && one.decision !== "accepted";
const rejectable = (one) => one.before !== null && one.decision !== "rejected";
const WOULD = { rewritten: "rewrite", lossy: "rewrite", masked: "mask", removed: "remove", blocked: "block" };
// What was done, or in monitor mode would be.
const inWords = (one) => (one.monitored && WOULD[one.action] ? `would ${WOULD[one.action]}` : one.action);

function row(one) {
  const made = element("tr", one.decision ? "decided" : "");
  made.dataset.id = one.id;
  made.tabIndex = -1;
  made.setAttribute("aria-expanded", "false");
  made.setAttribute("aria-label", `Number ${one.id}, ${inWords(one)}${one.decision ? `, ${one.decision}` : ""}`);
  const cells = [picked(one), `${one.id}`, moment(one.at), badge(one), score(one), preview(one), verdict(one)];
  const names = ["pick", "number id", "when muted", "what", "number score-cell", "preview", "review"];
  for (const [index, content] of cells.entries()) {
    const cell = element("td", names[index]);
    cell.append(content);
    made.append(cell);
  }
  return made;
}

function picked(one) {
  if (!acceptable(one)) return "";
  const box = element("input");
  box.type = "checkbox";
  box.tabIndex = -1; // the key x does the same, and the table has 50 of them
  box.setAttribute("aria-label", `Select number ${one.id}`);
  box.addEventListener("change", selected);
  return box;
}

function moment(value) {
  const when = new Date(value);
  const day = when.toLocaleDateString(undefined, { day: "2-digit", month: "2-digit", year: "2-digit" });
  const time = element("time", "", `${day} ${when.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" })}`);
  time.dateTime = value;
  time.title = when.toLocaleString();
  return time;
}

function badge(one) {
  const done = inWords(one);
  const kind = one.monitored ? "badge monitored" : `badge ${one.action}`;
  return element("span", kind, one.kind === "degraded" ? `${done}, degraded` : done);
}

function score(one) {
  const [highest] = Object.entries(one.scores).sort((a, b) => b[1] - a[1]);
  if (!highest) return "";
  const made = element("span");
  made.append(`${highest[0].replaceAll("_", " ")} `, element("b", "", highest[1].toFixed(2)));
  return made;
}

// What was shown: what was taken out and put in on one line, to be read at a glance.
function preview(one) {
  const made = element("div", "line");
  if (one.after === null) made.append(element("span", "muted", `no text kept · HMAC ${one.hmac.slice(0, 12)}`));
  else if (one.before === null) made.append(one.after);
  else if (one.monitored && one.correction === null) made.append(one.before);
  else made.append(...inline(one.before, one.correction ?? one.after, one.correction === null ? one.action : "corrected"));
  return made;
}

function verdict(one) {
  return one.decision ? element("span", `verdict ${one.decision}`, one.decision) : element("span", "muted", one.before === null ? "" : "open");
}

const rows = () => [...$("list").querySelectorAll("tr[data-id]")];

function move(to, { focus = true, open = false } = {}) {
  const all = rows();
  if (!all[to]) return;
  all[at]?.setAttribute("tabindex", "-1");
  at = to;
  all[at].tabIndex = 0;
  if (open) unfold();
  if (focus) all[at].focus();
  all[at].scrollIntoView({ block: "nearest" });
}

async function step(by) {
  const open = folded() !== null;
  const to = at + by;
  if (to >= 0 && to < records.length) {
    fold();
    move(to, { open });
  } else if (by > 0 && next !== null) {
    await older();
    if (open) unfold();
  } else if (by < 0 && newer.length) {
    await younger();
    move(records.length - 1, { open });
  }
}

async function turn(change) {
  change();
  if (await load()) move(0);
}

const older = () => (next === null ? undefined : turn(() => {
  newer.push(here);
  here = { before: next, shown: here.shown + records.length };
}));
const younger = () => (newer.length === 0 ? undefined : turn(() => {
  here = newer.pop();
}));

// --- one intervention ----------------------------------------------------------------------------------

const folded = () => $("list").querySelector("tr.detail");

function fold() {
  const open = folded();
  open?.previousElementSibling.setAttribute("aria-expanded", "false");
  open?.remove();
}

function unfold() {
  fold();
  const parent = rows()[at];
  const detail = element("tr", "detail");
  const cell = element("td");
  cell.colSpan = 7;
  const one = records[at];
  cell.append(...texts(one), why(one), ...decisions(one), facts(one));
  detail.append(cell);
  parent.after(detail);
  parent.setAttribute("aria-expanded", "true");
  detail.scrollIntoView({ block: "nearest" });
}

function texts(one) {
  if (one.before === null && one.after === null) {
    return [element("p", "muted", "This audit keeps no text; the HMAC below is the same for the same segment.")];
  }
  const panes = element("div", "panes");
  if (one.before === null) panes.append(pane("Returned without a full pass", [one.after || "(nothing)"], one.id));
  else if (one.monitored) panes.append(pane("Passed in monitor mode", [one.before], one.id));
  else {
    panes.append(pane("Original", side(one.before, one.after, "out"), one.id));
    panes.append(pane("Shown instead", one.after ? side(one.before, one.after, "in", one.action) : ["(nothing)"], one.id));
  }
  if (one.correction !== null) panes.append(pane("Correction", side(one.before, one.correction, "in", "corrected"), one.id));
  return [panes];
}

function pane(heading, nodes, id) {
  const made = element("div");
  const title = element("h3", "", heading);
  title.id = `${heading.split(" ")[0].toLowerCase()}-${id}`;
  const content = element("div", "text");
  content.append(...nodes);
  content.setAttribute("role", "group");
  content.setAttribute("aria-labelledby", title.id);
  made.append(title, content);
  return made;
}

function why(one) {
  const made = element("ul", "reasons");
  const told = (names, begin) => {
    for (const name of names) made.append(element("li", "", `${begin}: ${one.words[name]} (${name})`));
  };
  told(one.failed_checks, "Not accepted on the way");
  told(one.degraded, "No full pass");
  return made;
}

function facts(one) {
  const details = element("details");
  const list = element("dl");
  const scores = (all) => Object.entries(all ?? {}).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(", ");
  const rows = {
    "scores before": scores(one.scores),
    "scores after": scores(one.scores_after),
    similarity: one.similarity?.toFixed(3),
    acceptable: one.acceptable?.toFixed(3),
    characters: `${one.start} to ${one.end}`,
    text: one.text_key,
    HMAC: one.hmac,
    policy: `${one.policy_name} ${one.policy}`.trim(),
    detector: one.detector,
    "word list": one.lexicon,
    rewriter: one.rewriter,
  };
  for (const [name, value] of Object.entries(rows)) {
    if (value) list.append(element("dt", "", name), element("dd", "", value));
  }
  details.append(element("summary", "", "Scores, models, HMAC"), list);
  return details;
}

function button(text, label, act, className = "quiet") {
  const made = element("button", className, text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function decisions(one) {
  const bar = element("div", "buttons");
  if (one.decision) {
    const when = new Date(one.reviewed_at).toLocaleString();
    const checked = one.decision === "corrected" ? checkedAs(one.confirmed) : "";
    bar.append(element("span", `verdict ${one.decision}`, `${one.decision} by ${one.reviewer}, ${when}${checked}`));
  }
  const made = [bar];
  if (acceptable(one)) {
    const what = one.monitored ? "Accept as rightly flagged" : "Accept the rewrite of";
    bar.append(button(one.monitored ? "Rightly flagged" : "Accept", `${what} number ${one.id}`, () => accept(one), "primary"));
  }
  if (rejectable(one)) {
    bar.append(button("False alarm", `Reject number ${one.id} as a false alarm`, () => reject(one)));
  }
  if (one.before !== null) {
    const form = correction(one);
    bar.append(button("Correct …", `Correct number ${one.id}`, () => open(form)));
    made.push(form);
  }
  const turns = element("span", "turns buttons");
  turns.append(
    button("Previous", "Previous intervention", () => step(-1)),
    button("Next", "Next intervention", () => step(1)),
    button("Close", `Close number ${one.id}`, close),
  );
  bar.append(turns);
  return made;
}

function close() {
  fold();
  rows()[at]?.focus();
}

function checkedAs(confirmed) {
  if (confirmed === null) return "; never checked, so not exported";
  return confirmed.length ? `; confirmed although refused: ${confirmed.join(", ")}` : "";
}

function open(form) {
  form.hidden = false;
  form.querySelector("textarea").focus();
}

function refusal(one, error, confirm) {
  const made = element("div", "refusal");
  const told = element("p", "", "These checks refuse the correction:");
  told.id = `refusal-${one.id}`;
  const list = element("ul");
  for (const check of error.checks) list.append(element("li", "", `${check}: ${error.words[check]}`));
  const save = button("Save it all the same", `Confirm the correction of number ${one.id}`, confirm);
  made.tabIndex = -1;
  made.setAttribute("role", "alertdialog");
  made.setAttribute("aria-labelledby", told.id);
  made.append(told, list, element("p", "muted", "Change it, or confirm it: that is recorded with your name."), save);
  return made;
}

function correction(one) {
  const form = element("form");
  form.hidden = true;
  const label = element("label", "heading", "What should have been shown");
  const area = element("textarea");
  area.id = `correction-${one.id}`;
  label.htmlFor = area.id;
  area.value = one.correction ?? (one.action === "rewritten" || one.action === "lossy" ? one.after : one.before);
  const save = element("button", "", "Save the correction");
  save.type = "submit";
  const cancel = button("Cancel", `Cancel the correction of number ${one.id}`, () => {
    form.hidden = true;
    rows()[at].focus();
  });
  const bar = element("div", "buttons");
  bar.append(save, cancel);
  const place = element("div");
  form.append(label, area, bar, place);
  const send = async (confirmed) => {
    place.replaceChildren();
    const error = await decide(one, { decision: "corrected", correction: area.value, confirmed });
    if (!error) return;
    place.append(refusal(one, error, () => send(error.checks)));
    place.firstChild.focus();
  };
  area.addEventListener("input", () => place.replaceChildren()); // what was refused is no longer there
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send([]);
  });
  return form;
}

// --- decisions -----------------------------------------------------------------------------------------

const accept = (one) => decide(one, { decision: "accepted" });
const reject = (one) => decide(one, { decision: "rejected" });

// Records a decision and goes on to the next record; the error, if checks refuse the decision.
async function decide(one, decision) {
  $("problem").textContent = "";
  try {
    const decided = await ask(`/audit/interventions/${one.id}/decision`, decision);
    const isOpen = folded() !== null;
    fold();
    replace(decided);
    $("status").textContent = `Number ${one.id} is ${decided.decision}.`;
    const to = records.findIndex(({ id }) => id === one.id);
    move(Math.min(to + 1, records.length - 1), { open: isOpen && to + 1 < records.length });
  } catch (error) {
    if (error.checks) return error;
    told(error);
  }
  return null;
}

function replace(record) {
  const index = records.findIndex(({ id }) => id === record.id);
  if (index < 0) return;
  records[index] = record;
  const made = row(record);
  made.tabIndex = index === at ? 0 : -1;
  rows()[index].replaceWith(made);
  selected();
}

const boxes = () => [...$("list").querySelectorAll("td.pick input")];

function selected() {
  const count = boxes().filter((box) => box.checked).length;
  $("accept").disabled = count === 0;
  $("accept").textContent = count ? `Accept ${count} selected` : "Accept selected";
  $("all").disabled = boxes().length === 0;
  for (const box of boxes()) box.closest("tr").classList.toggle("selected", box.checked);
}

async function acceptSelected() {
  const numbers = boxes().filter((box) => box.checked).map((box) => Number(box.closest("tr").dataset.id));
  if (!numbers.length) return;
  $("problem").textContent = "";
  try {
    const done = await ask("/audit/decisions", { numbers });
    fold();
    done.records.forEach(replace);
    $("all").checked = false;
    $("status").textContent = `${done.records.length} accepted.`;
    if (done.refused.length) {
      $("problem").textContent = `Not accepted: ${done.refused.map(({ id, message }) => `number ${id}: ${message}`).join("; ")}.`;
    }
    move(Math.max(at, 0));
  } catch (error) {
    told(error);
  }
}

// --- keys ----------------------------------------------------------------------------------------------

const KEYS = {
  j: () => step(1),
  ArrowDown: () => step(1),
  k: () => step(-1),
  ArrowUp: () => step(-1),
  Enter: () => (folded()?.previousElementSibling === rows()[at] ? close() : unfold()),
  Escape: close,
  a: () => acceptable(records[at]) && accept(records[at]),
  A: acceptSelected,
  r: () => rejectable(records[at]) && reject(records[at]),
  c: () => {
    if (records[at].before === null) return;
    if (folded()?.previousElementSibling !== rows()[at]) unfold();
    open(folded().querySelector("form"));
  },
  x: () => {
    const box = rows()[at].querySelector("td.pick input");
    if (box) box.checked = !box.checked;
    selected();
  },
  "[": younger,
  "]": older,
  "/": () => $("text").focus(),
  "?": help,
};

function help() {
  $("help").hidden = !$("help").hidden;
  $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
}

$("records").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  const writes = event.target.closest("textarea, input, select");
  const presses = event.key === "Enter" && event.target.closest("button, summary, a");
  if (presses || (writes && event.key !== "Escape") || at < 0) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("list").addEventListener("click", (event) => {
  const made = event.target.closest("tr[data-id]");
  if (!made || event.target.closest("input")) return;
  const to = rows().indexOf(made);
  const same = folded()?.previousElementSibling === made;
  fold();
  move(to, { open: !same });
});

// --- forms ---------------------------------------------------------------------------------------------

$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  enter();
});
$("reveal").addEventListener("click", () => {
  const shown = $("key").type === "text";
  $("key").type = shown ? "password" : "text";
  $("reveal").textContent = shown ? "Show" : "Hide";
  $("reveal").setAttribute("aria-pressed", String(!shown));
});
$("leave").addEventListener("click", () => leave());
for (const name of ["submit", "reset"]) {
  $("filters").addEventListener(name, (event) => {
    if (name === "submit") event.preventDefault();
    newer.length = 0;
    here = { before: null, shown: 0 };
    setTimeout(async () => { // behind the reset of the fields
      if (await load()) move(0);
      await loadDays();
    });
  });
}
for (const name of ["review", "action", "mode"]) $(name).addEventListener("change", () => $("filters").requestSubmit());
$("older").addEventListener("click", older);
$("newer").addEventListener("click", younger);
$("help-button").addEventListener("click", help);
$("accept").addEventListener("click", acceptSelected);
$("all").addEventListener("change", () => {
  for (const box of boxes()) box.checked = $("all").checked;
  selected();
});

key = sessionStorage.getItem(STORED) ?? "";
if (key) {
  $("keep").checked = true;
  enter();
} else $("key").focus();
