// Asks the server what its model is, shows that, and sends it what people want to know.
import { showAnswers, showError, showWaiting } from "./answers.js";
import { render } from "./card.js";
import { find, make, show, table } from "./dom.js";
import { ask, offer } from "./inputs.js";

let last = null; // of the requests that are under way, the one whose answer is shown

async function json(path) {
  const response = await fetch(path);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

/** Sends inputs and shows the answers; an older request that is still under way is dropped. */
async function send(inputs, description) {
  const size = inputs.reduce((sum, input) => sum + (input.file?.size ?? 0), 0);
  if (size > description.most_bytes) {
    return showError(`${show(size)} bytes, expected at most ${show(description.most_bytes)} at once`);
  }
  last?.abort();
  const own = (last = new AbortController());
  showWaiting(inputs.length);
  try {
    const response = await fetch("predict", { method: "POST", signal: own.signal, ...request(inputs) });
    const content = await response.json();
    if (content.predictions) showAnswers(content.predictions, aligned(content.predictions, inputs));
    else showError(content.error);
  } catch (error) {
    if (error.name !== "AbortError") showError(`The server does not answer (${error.message})`);
  }
}

function request(inputs) {
  if (!inputs[0].file) {
    const values = inputs.map((input) => input.text ?? input.row);
    return { body: JSON.stringify({ inputs: values }), headers: { "Content-Type": "application/json" } };
  }
  const body = new FormData();
  for (const input of inputs) body.append("file", input.file, input.file.name);
  return { body };
}

/** Returns the input of each answer; a table has many answers, which show nothing of it. */
const aligned = (answers, inputs) => (answers.length === inputs.length ? inputs : answers.map(() => ({})));

// ── What the model is ──────────────────────────────────────────────────────────────────────────────────

function introduce(info) {
  document.title = `${info.name}: try the model`;
  find("#name").textContent = info.name;
  find("#what").textContent = `Predicts ${info.essentials.predicts}. ${info.essentials.model}.`;
  const verdict = info.verdict;
  const mark = { pass: "✓ ", fail: "✗ " }[verdict] ?? "";
  const kind = { pass: "pass", fail: "fail" }[verdict] ?? "unsure";
  const text = verdict ? `${mark}Gate: ${verdict}` : "Not judged by the gate";
  find("#verdict").append(make("span", { class: `verdict ${kind}` }, text));
}

function measure(info) {
  const entries = Object.entries(info.metrics).filter(([, value]) => typeof value === "number");
  const shown = entries.filter(([name]) => !/_(low|high)$/.test(name));
  const tiles = shown.map(([name, value]) => {
    const low = info.metrics[`${name}_low`];
    const range = low === undefined ? null : `95 %: ${show(low)} to ${show(info.metrics[`${name}_high`])}`;
    return make("li", {}, make("b", {}, show(value)), make("span", {}, name.replaceAll("_", " "), ...(range ? [make("br"), range] : [])));
  });
  find("#metrics .figures").replaceChildren(...tiles);
  find("#metrics").hidden = tiles.length === 0;
  const classes = Object.entries(info.metrics.classes ?? {});
  if (!classes.length) return;
  const columns = Object.keys(classes[0][1]).filter((name) => typeof classes[0][1][name] === "number");
  const rows = classes.map(([name, row]) => [name, ...columns.map((column) => row[column])]);
  const details = make("details", {}, make("summary", {}, "Each class"), table(["class", ...columns], rows));
  find("#classes").replaceChildren(details);
  find("#classes").hidden = false;
}

function judge(info) {
  if (!info.gates.length) return;
  const rows = info.gates.map((row) => [row.gate.replaceAll("_", " "), row.verdict, row.reason]);
  find("#gates .wide").append(table(["gate", "verdict", "why"], rows));
  find("#gates").hidden = false;
}

function tell(info) {
  const hidden = ["metrics", "verdict"];
  for (const [name, value] of Object.entries(info.essentials)) {
    if (!hidden.includes(name)) find("#essentials").append(make("dt", {}, name), make("dd", {}, value));
  }
  find("#essentials").append(make("dt", {}, "SHA-256"), make("dd", {}, make("code", {}, info.sha256)));
  find("#report").hidden = !info.report;
  if (!info.card) return;
  find("#card .card").append(...render(info.card));
  find("#card").hidden = false;
}

try {
  const info = await json("info");
  const sendThese = (inputs) => send(inputs, info.input);
  introduce(info);
  ask(info.input, sendThese);
  measure(info);
  judge(info);
  tell(info);
  if (info.examples) offer(await json("examples"), info.input, sendThese);
  document.body.dataset.ready = "true";
} catch (error) {
  showError(`The model cannot be shown: ${error.message}`);
}
