// Asks for inputs: files, a sound, a text, or the columns of a row, as the model wants them.
import { find, make } from "./dom.js";
import { recorder } from "./sound.js";

const OTHER = "\u0000"; // no category

/** Fills the form; `send` takes inputs, each {file, media}, {text} or {row}. */
export function ask(description, send) {
  const { kind } = description;
  const form = find("#input");
  if (kind === "file") askFiles(form, description, send);
  else if (kind === "text") askText(form, send);
  else askRow(form, description, send);
  if (kind !== "text") takeDrops(description, send);
}

/** Offers the model's own test examples. */
export function offer(examples, description, send) {
  const media = mediaOf(description);
  const buttons = examples.map((example, index) => {
    const name = `Test example ${index + 1}`;
    const button = make("button", { type: "button" }, ...faceOf(example, index, media));
    button.addEventListener("click", () => send([inputOf(example, name, description)]));
    if (example.base64) button.setAttribute("aria-label", name);
    return make("li", {}, button);
  });
  find("#examples .examples").replaceChildren(...buttons);
  find("#examples").hidden = examples.length === 0;
  if (description.kind === "row" && examples.length) fill(examples[0].row);
}

function faceOf(example, index, media) {
  if (example.text !== undefined) return [example.text.length > 80 ? `${example.text.slice(0, 79)}…` : example.text];
  if (example.row) return [`Row ${index + 1}`];
  if (media !== "image") return [`${media === "audio" ? "Sound" : "File"} ${index + 1}`];
  const link = URL.createObjectURL(new Blob([bytesOf(example.base64)]));
  return [make("img", { src: link, alt: "", loading: "lazy" })];
}

function inputOf(example, name, description) {
  if (example.text !== undefined) {
    find("#text").value = example.text;
    return { text: example.text };
  }
  if (example.row) {
    fill(example.row);
    return { row: example.row };
  }
  return { file: new File([bytesOf(example.base64)], name), media: mediaOf(description) };
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Returns image, audio, or the like, if that is what the model's files are. */
function mediaOf(description) {
  return (description.media_types ?? []).map((type) => type.split("/")[0]).find((kind) => ["image", "audio"].includes(kind)) ?? null;
}

// ── Files ──────────────────────────────────────────────────────────────────────────────────────────────

function askFiles(form, description, send) {
  const media = mediaOf(description);
  const noun = { image: "images", audio: "sounds" }[media] ?? "files";
  const accept = [...description.files, ...(media ? [`${media}/*`] : [])].join(",");
  form.append(drop(`Choose ${noun}`, description.files.join(" "), accept, (files) => send(files.map((file) => ({ file, media })))));
  const buttons = make("div", { class: "row" });
  if (media === "image" && (navigator.maxTouchPoints || matchMedia("(any-pointer: coarse)").matches)) buttons.append(camera((files) => send(files.map((file) => ({ file, media })))));
  if (media === "audio") buttons.append(...microphone((file) => send([{ file, media }])));
  form.append(buttons);
}

function drop(text, hint, accept, take) {
  const input = make("input", { type: "file", id: "file", multiple: true, accept });
  input.addEventListener("change", () => {
    if (input.files.length) take([...input.files]);
    input.value = ""; // the same file again is a change too
  });
  return make("label", { class: "drop" }, make("b", {}, text), " or drop them here", make("span", {}, hint), input);
}

function camera(take) {
  const input = make("input", { type: "file", accept: "image/*", capture: "environment" });
  input.addEventListener("change", () => input.files.length && take([...input.files]));
  return make("label", { class: "button" }, "Take a photo", input);
}

function microphone(take) {
  const machine = recorder();
  if (!machine) return [make("p", { class: "soft" }, "To record, open this page at https or on localhost.")];
  const button = make("button", { type: "button", "aria-pressed": "false" }, "Record");
  const time = make("span", { class: "soft", role: "timer" });
  let timer = null;
  button.addEventListener("click", async () => {
    button.disabled = true; // while the browser asks for permission
    try {
      if (timer === null) {
        await machine.start();
        const began = Date.now();
        timer = setInterval(() => (time.textContent = `${((Date.now() - began) / 1000).toFixed(1)} s`), 100);
      } else {
        clearInterval(timer);
        timer = null;
        take(await machine.stop());
        time.textContent = "";
      }
    } catch (error) {
      time.textContent = `The microphone cannot be used: ${error.message}`;
    }
    button.disabled = false;
    button.setAttribute("aria-pressed", String(timer !== null));
    button.textContent = timer === null ? "Record" : "Stop and predict";
  });
  return [button, time];
}

/** Takes files that are dropped anywhere, or pasted. */
function takeDrops(description, send) {
  const media = mediaOf(description);
  const take = (files) => files.length && send([...files].map((file) => ({ file, media })));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
}

// ── Text and rows ──────────────────────────────────────────────────────────────────────────────────────

function askText(form, send) {
  const text = make("textarea", { id: "text", rows: 4, spellcheck: "false" });
  form.append(make("label", { for: "text" }, "Text"), text, submit());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send([{ text: text.value }]);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

const submit = () => make("div", { class: "row" }, make("button", { class: "first" }, "Predict"));

function askRow(form, description, send) {
  const fields = description.columns.map((column, index) => field(column, `column-${index}`));
  form.append(make("div", { class: "fields" }, ...fields), submit());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pairs = [...form.querySelectorAll("[data-column]")].map((input) => [input.dataset.column, input.value === "" ? null : input.value]);
    send([{ row: Object.fromEntries(pairs) }]);
  });
  const several = make("details", {}, make("summary", {}, "Many rows: a table"));
  several.append(drop("Choose a table", ".csv .jsonl", ".csv,.jsonl", (files) => send(files.map((file) => ({ file })))));
  form.append(several);
}

function field(column, id) {
  const hint = { numbers: "", dates: "date", names: "" }[column.kind];
  const label = make("label", { for: id }, column.name, hint ? make("span", { class: "soft" }, ` ${hint}`) : null);
  const attributes = { id, "data-column": column.name, autocomplete: "off" };
  if (column.kind === "names") {
    const options = [make("option", { value: "" }, "–"), ...column.categories.map((name) => make("option", { value: name }, name))];
    return make("div", {}, label, make("select", attributes, ...options, make("option", { value: OTHER }, "another")));
  }
  const kind = column.kind === "numbers" ? { type: "number", step: "any", inputmode: "decimal" } : { type: "text", placeholder: "2024-12-31" };
  return make("div", {}, label, make("input", { ...attributes, ...kind }));
}

/** Puts a row into the fields. */
function fill(row) {
  for (const input of document.querySelectorAll("[data-column]")) {
    const given = row[input.dataset.column] ?? "";
    const value = typeof given === "boolean" ? (given ? "True" : "False") : String(given); // as Python writes them
    const known = input.tagName !== "SELECT" || [...input.options].some((option) => option.value === value);
    input.value = known ? value : OTHER;
  }
}
