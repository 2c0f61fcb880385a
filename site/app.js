/** The page: what is known of the model, an input, and what the model makes of it. */
import { Problem } from "./errors.js";
import { build, element } from "./inputs.js";
import { describe, json, Model } from "./model.js";

const SHOWN = 10; // classes
const place = (id) => document.getElementById(id);
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = (value) => String(Number(value.toPrecision(4)));

let latest = 0; // the number of the last input: an earlier one that ends later is not shown
let picture = ""; // the URL of the picture that is shown

/** @param {unknown} error */
function complain(error) {
  place("problem").textContent = error instanceof Problem ? error.message : `Something went wrong: ${error}`;
  if (!(error instanceof Problem)) console.error(error);
}

/** @param {Record<string, any>} site site.json */
function introduce(site) {
  place("title").textContent = site.title;
  document.title = `${site.title}: try the model`;
  place("card").hidden = !site.card;
  const verdict = element("span", site.verdict ? { class: site.verdict === "pass" ? "pass" : "fail" } : {}, site.verdict ?? "none, the gate has not judged this model");
  place("about").replaceChildren("The gate’s verdict: ", verdict);
  const all = site.metrics.map(({ name, value, low, high }) => {
    const range = Number.isFinite(low) && Number.isFinite(high) ? [element("small", {}, `${short(low)} to ${short(high)}, 95 %`)] : [];
    return element("div", {}, element("dt", {}, name), element("dd", {}, short(value), ...range));
  });
  place("metrics").replaceChildren(...all);
  const facts = [site.examples && `measured on ${site.examples.toLocaleString("en")} test examples`, site.created && `made ${site.created.slice(0, 10)}`, site.commit && `commit ${site.commit.slice(0, 12)}`];
  place("made").textContent = facts.filter(Boolean).join(" · ");
}

/** @param {Model} model @param {any} raw @param {{text?: string, picture?: Blob}} shown */
async function predict(model, raw, shown) {
  const own = (latest += 1);
  place("problem").textContent = "";
  place("result").setAttribute("aria-busy", "true");
  if (!model.ready) place("result").replaceChildren(element("p", { class: "soft" }, "Loading the model …"));
  try {
    const array = await model.encode(raw);
    const started = performance.now();
    const output = await model.run(array);
    const took = model.ready ? performance.now() - started : null;
    model.ready = true;
    if (own !== latest) return;
    place("result").replaceChildren(...seen(model, array, shown), ...state(model.answer(output)), ...time(took));
    place("result").scrollIntoView({ block: "nearest" }); // on a phone it is below a form
  } catch (error) {
    if (own !== latest) return;
    place("result").replaceChildren(element("p", { class: "soft" }, "No prediction."));
    complain(error);
  } finally {
    if (own === latest) place("result").removeAttribute("aria-busy");
  }
}

/** @param {number | null} took Milliseconds. @returns {Node[]} */
function time(took) {
  return took === null ? [] : [element("p", { class: "soft" }, `in ${took < 1 ? "less than 1" : Math.round(took)} ms`)];
}

/** What was given, and what the network sees of it. @returns {Node[]} */
function seen(model, array, shown) {
  if (shown.text && model.task.RAW === "file") return [element("p", { class: "soft" }, shown.text)];
  if (!shown.picture) return [];
  URL.revokeObjectURL(picture);
  picture = URL.createObjectURL(shown.picture);
  const [height, width, channels] = model.encoder.shape;
  const canvas = element("canvas", { width, height, role: "img", "aria-label": "the image as the network sees it" });
  const pixels = new ImageData(width, height);
  for (let each = 0; each < width * height; each += 1) {
    for (let channel = 0; channel < 3; channel += 1) pixels.data[4 * each + channel] = array[channels * each + (channel % channels)];
    pixels.data[4 * each + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return [
    element("div", { class: "seen" },
      element("figure", {}, element("img", { src: picture, alt: "the image that was given" }), element("figcaption", {}, "given")),
      element("figure", {}, canvas, element("figcaption", {}, `as the network sees it, ${width}\u00a0×\u00a0${height}`))),
  ];
}

/** @param {ReturnType<Model["answer"]>} answer @returns {Node[]} */
function state({ classes, numbers, ranked }) {
  if (!classes) return [element("p", { class: "said" }, numbers.map((value) => String(Number(value.toPrecision(6)))).join(", "))];
  const bars = ranked.slice(0, SHOWN).map(([name, probability]) => {
    const bar = element("i", { "aria-hidden": "true" });
    bar.style.width = `${100 * probability}%`;
    return element("li", {}, bar, element("span", {}, name), element("b", {}, percent.format(probability)));
  });
  const more = ranked.length - bars.length;
  const rest = more > 0 ? [element("p", { class: "soft" }, `and ${more} less probable ${more === 1 ? "class" : "classes"}`)] : [];
  return [element("p", { class: "said" }, classes.join(", ") || "none of the classes"), element("ul", { class: "bars" }, ...bars), ...rest];
}

async function main() {
  let site;
  try {
    site = await json("site.json");
    introduce(site);
    const model = await Model.load(await describe());
    const examples = site.golden ? (await json("golden.json")).examples : [];
    place("input").replaceChildren(...build(model, examples, (raw, shown) => predict(model, raw, shown)));
    model.start().then(() => { model.ready = true; }, complain); // while a person is looking for an input
  } catch (error) {
    if (!site) place("about").textContent = "";
    complain(error);
  }
  document.documentElement.dataset.state = "ready";
}

main();
