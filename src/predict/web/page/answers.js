// Shows what was predicted, and says it to who cannot see it.
import { find, make, show } from "./dom.js";

const FEW = 5; // classes that are shown at first
const SMALL = 100; // pixels of an image below which it is shown larger than it is
let links = [];

/** Returns a probability in words; only what is certain is 0 or 100 %. */
function percent(value) {
  if (value > 0 && value < 0.0005) return "< 0.1 %";
  if (value < 1 && value >= 0.9995) return "> 99.9 %";
  return `${(100 * value).toFixed(1)} %`;
}

/** Shows the answers of a request, or why there are none. */
export function showAnswers(answers, inputs) {
  const articles = answers.map((answer, index) => article(answer, inputs[index], answers.length));
  replace(articles);
  say(answers.length === 1 ? sentence(answers[0]) : `${answers.length} predictions. ${answers.slice(0, 3).map(sentence).join(" ")}`);
}

export function showError(reason) {
  replace([make("p", { class: "bad", role: "alert" }, reason)]);
  say("");
}

export function showWaiting(count) {
  find("#answers").setAttribute("aria-busy", "true");
  say(count > 1 ? `Predicting for ${count} inputs` : "Predicting");
}

function replace(elements) {
  find("#answers").replaceChildren(...elements);
  find("#answers").setAttribute("aria-busy", "false");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  find("#answers").parentElement.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}

function say(text) {
  find("#said").textContent = text;
}

/** Returns an answer in words. */
function sentence(answer) {
  if (answer.error) return `${answer.input}: ${answer.error}.`;
  return `${best(answer)}${answer.probability === undefined ? "" : `, ${percent(answer.probability)}`}.`;
}

function best(answer) {
  const { prediction } = answer;
  if (typeof prediction === "number") return show(prediction);
  if (!Array.isArray(prediction)) return prediction;
  const parts = prediction.map((each) => (typeof each === "number" ? show(each) : each));
  return parts.length ? parts.join(", ") : "None of the classes";
}

function article(answer, input, count) {
  const parts = [make("h3", {}, count > 1 || input.file ? answer.input : "Your input"), preview(input)];
  if (answer.error) parts.push(make("p", { class: "bad" }, answer.error));
  else parts.push(make("p", { class: "best" }, best(answer)), ...(answer.probabilities ? bars(answer, count) : []));
  return make("article", { class: "answer" }, ...parts);
}

function preview(input) {
  if (input.text) return make("blockquote", {}, input.text);
  if (!input.file) return null;
  const kind = input.media;
  if (kind !== "image" && kind !== "audio") return null;
  if (links.length > 200) links.splice(0, 100).forEach((link) => URL.revokeObjectURL(link));
  const link = URL.createObjectURL(input.file);
  links.push(link);
  if (kind === "audio") return make("audio", { controls: true, src: link, "aria-label": input.file.name, onerror: remove });
  const image = make("img", { src: link, alt: "", onerror: remove });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < SMALL));
  return image;
}

function remove(event) {
  event.target.remove(); // a format that this browser does not show
}

/** Returns bars with numbers, the first few and a button for the others. */
function bars(answer, count) {
  const found = [answer.prediction].flat();
  const rows = Object.entries(answer.probabilities).map(([name, value]) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * value}%`;
    const track = make("span", { class: "track", "aria-hidden": "true" }, bar);
    const parts = [make("span", { class: "name" }, name), track, make("span", { class: "value" }, percent(value))];
    return make("li", { class: found.includes(name) ? "found" : null }, ...parts);
  });
  const few = Math.max(count > 3 ? 3 : FEW, found.length);
  const more = rows.slice(few);
  const list = make("ul", { class: "bars", "aria-label": "Probabilities" }, ...rows);
  if (more.length < 2) return [list];
  more.forEach((row) => (row.hidden = true));
  const button = make("button", { type: "button", "aria-expanded": "false" }, `${more.length} more`);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    more.forEach((row) => (row.hidden = open));
    button.setAttribute("aria-expanded", String(!open));
    button.textContent = open ? `${more.length} more` : "Fewer";
  });
  return [list, button];
}
