// The audit page: asks /audit/interventions and records decisions.
// Text reaches the page as text nodes only; nothing here parses markup.

const $ = (id) => document.getElementById(id);
const lost = (what) => `${what} was lost, or is new`;
const CHECKS = {
  empty: "it says nothing",
  toxic: "the detector finds it toxic",
  lexicon: "it has a word of the word list",
  meaning: "it does not mean what the original means",
  length: "it is much shorter or longer than the original",
  negation: "it negates more or less than the original",
  number: lost("a number"),
  url: lost("a link"),
  address: lost("an address"),
  code: lost("a piece of code"),
  placeholder: lost("a placeholder"),
  mention: lost("a mention"),
  quotation: lost("a quotation"),
  layout: "its lines begin with other markers",
  copy: "it is the original but for marks and capitals",
  name: "it has a new name",
};
const pages = []; // the `before` of every newer page, the newest first
let here = null;
let key = "";

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, label, act, className = "quiet") {
  const made = element("button", className, text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

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
  if (response.status === 401) leave();
  const problem = new Error(answer.error.message);
  problem.checks = answer.error.failed_checks;
  throw problem;
}

function leave() {
  key = "";
  $("entry").hidden = false;
  $("filters").hidden = $("records").hidden = true;
  $("list").replaceChildren();
  $("key").focus();
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
  if (here !== null) chosen.set("before", here);
  return chosen;
}

async function load() {
  $("problem").textContent = "";
  $("records").setAttribute("aria-busy", "true");
  try {
    const page = await ask(`/audit/interventions?${query()}`);
    $("entry").hidden = true;
    $("filters").hidden = $("records").hidden = false;
    $("list").replaceChildren(...page.records.map(record));
    $("newer").disabled = pages.length === 0;
    $("older").disabled = page.next === null;
    $("older").dataset.next = page.next ?? "";
    const count = page.records.length;
    $("status").textContent = count
      ? `${count} intervention${count === 1 ? "" : "s"} shown${page.next === null ? "" : ", there are older ones"}.`
      : "No intervention fits.";
    return true;
  } catch (error) {
    $("status").textContent = "";
    $("problem").textContent = error.message;
    return false;
  } finally {
    $("records").setAttribute("aria-busy", "false");
  }
}

function record(one) {
  const item = element("li", "panel record");
  const title = element("h2", "", `No. ${one.id}`);
  title.id = `record-${one.id}`;
  title.tabIndex = -1;
  item.setAttribute("aria-labelledby", title.id);
  const head = element("div", "head");
  const time = element("time", "muted", new Date(one.at).toLocaleString());
  time.dateTime = one.at;
  const badge = one.kind === "degraded" ? `${one.action}, degraded` : one.action;
  head.append(title, element("span", `badge ${one.action}`, badge), time);
  const [highest] = Object.entries(one.scores).sort((a, b) => b[1] - a[1]);
  if (highest) head.append(element("span", "score number", `${highest[0]} ${highest[1].toFixed(2)}`));
  item.append(head, ...texts(one), facts(one), ...decisions(one, item));
  return item;
}

function texts(one) {
  if (one.before === null && one.after === null) {
    return [element("p", "muted absent", "This audit keeps no text; the HMAC below is the same for the same segment.")];
  }
  const panes = element("div", "panes");
  if (one.before !== null) panes.append(pane("Original", one.before, one.id));
  panes.append(pane(one.kind === "degraded" ? "Returned without a full pass" : "Shown instead", one.after, one.id));
  if (one.correction !== null) panes.append(pane("Correction", one.correction, one.id));
  return [panes];
}

function pane(heading, text, id) {
  const made = element("div");
  const title = element("h3", "", heading);
  title.id = `${heading.split(" ")[0].toLowerCase()}-${id}`;
  const content = element("div", "text", text === "" ? "(nothing)" : text);
  content.tabIndex = 0;
  content.setAttribute("role", "group");
  content.setAttribute("aria-labelledby", title.id);
  made.append(title, content);
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
    "refused by": one.failed_checks.join(", "),
    degraded: one.degraded.join(", "),
    characters: `${one.start} to ${one.end}`,
    text: one.text_key,
    HMAC: one.hmac,
    policy: one.policy,
    detector: one.detector,
    "word list": one.lexicon,
    rewriter: one.rewriter,
  };
  for (const [name, value] of Object.entries(rows)) {
    if (value) list.append(element("dt", "", name), element("dd", "", value));
  }
  details.append(element("summary", "", "Scores, checks, models"), list);
  return details;
}

function decisions(one, item) {
  const bar = element("div", "buttons");
  if (one.decision) {
    const when = new Date(one.reviewed_at).toLocaleString();
    const checked = one.decision === "corrected" ? checkedAs(one.confirmed) : "";
    bar.append(element("span", `verdict ${one.decision}`, `${one.decision} by ${one.reviewer}, ${when}${checked}`));
  }
  if (one.before === null) return one.decision ? [bar] : [];
  if (one.action === "rewritten" && one.decision !== "accepted") {
    bar.append(button("Accept", `Accept the rewrite of number ${one.id}`, () => decide(one, item, { decision: "accepted" })));
  }
  const form = correction(one, item);
  bar.append(button("Correct …", `Correct number ${one.id}`, () => {
    form.hidden = false;
    form.querySelector("textarea").focus();
  }));
  return [bar, form];
}

function checkedAs(confirmed) {
  if (confirmed === null) return "; never checked, so not exported";
  return confirmed.length ? `; confirmed although refused: ${confirmed.join(", ")}` : "";
}

function refusal(one, checks, confirm) {
  const made = element("div", "refusal");
  const told = element("p", "", "These checks refuse the correction:");
  told.id = `refusal-${one.id}`;
  const list = element("ul");
  for (const check of checks) list.append(element("li", "", `${check}: ${CHECKS[check] ?? "refused"}`));
  const save = button("Save it all the same", `Confirm the correction of number ${one.id}`, confirm);
  made.tabIndex = -1;
  made.setAttribute("role", "alertdialog");
  made.setAttribute("aria-labelledby", told.id);
  made.append(told, list, element("p", "muted", "Change it, or confirm it: that is recorded with your name."), save);
  return made;
}

function correction(one, item) {
  const form = element("form");
  form.hidden = true;
  const label = element("label", "heading", "What should have been shown");
  const area = element("textarea");
  area.id = `correction-${one.id}`;
  label.htmlFor = area.id;
  area.value = one.correction ?? (one.action === "rewritten" ? one.after : one.before);
  const save = element("button", "", "Save the correction");
  save.type = "submit";
  const cancel = button("Cancel", `Cancel the correction of number ${one.id}`, () => {
    form.hidden = true;
    $(`record-${one.id}`).focus();
  });
  const bar = element("div", "buttons");
  bar.append(save, cancel);
  form.append(label, area, bar);
  const place = element("div");
  form.append(place);
  const send = async (confirmed) => {
    place.replaceChildren();
    const checks = await decide(one, item, { decision: "corrected", correction: area.value, confirmed });
    if (!checks) return;
    place.append(refusal(one, checks, () => send(checks)));
    place.firstChild.focus();
  };
  area.addEventListener("input", () => place.replaceChildren()); // what was refused is no longer there
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send([]);
  });
  return form;
}

// The checks that refuse a decision, if that is why it was not taken.
async function decide(one, item, decision) {
  $("problem").textContent = "";
  try {
    const decided = await ask(`/audit/interventions/${one.id}/decision`, decision);
    item.replaceWith(record(decided));
    $("status").textContent = `Number ${one.id} is ${decided.decision}.`;
    $(`record-${one.id}`).focus();
  } catch (error) {
    if (error.checks) return error.checks;
    $("problem").textContent = error.message;
  }
  return null;
}

async function turn(change) {
  change();
  if (await load()) $("records").focus();
}

$("entry").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = $("key").value;
  if (await load()) {
    $("key").value = "";
    $("action").focus();
  }
});
for (const name of ["submit", "reset"]) {
  $("filters").addEventListener(name, (event) => {
    if (name === "submit") event.preventDefault();
    pages.length = 0;
    here = null;
    setTimeout(load); // behind the reset of the fields
  });
}
$("older").addEventListener("click", () => turn(() => {
  pages.push(here);
  here = $("older").dataset.next;
}));
$("newer").addEventListener("click", () => turn(() => {
  here = pages.pop();
}));
