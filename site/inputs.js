/**
 * What people put in: a file, a sentence, or a row.
 *
 * @typedef {(raw: any, shown: {text?: string, picture?: Blob}) => void} Give Called with each raw input.
 * @typedef {{input: {text?: string, base64?: string, row?: Record<string, any>}}} Example Of golden.json.
 */

/**
 * @param {string} tag
 * @param {Record<string, any>} properties Of the element; `class`, `role` and `aria-…` are attributes.
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name === "role" || name.startsWith("aria-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** @param {import("./model.js").Model} model @param {Example[]} examples @param {Give} give @returns {Node[]} */
export function build(model, examples, give) {
  const make = { file: fromFile, text: fromText, row: fromRow }[model.task.RAW];
  return make(model, examples, give);
}

/** @param {Example[]} examples @param {(example: Example, number: number) => Node} show @returns {Node[]} */
function offer(examples, show) {
  if (!examples.length) return [];
  const label = element("span", { class: "soft" }, "Test examples:");
  return [element("div", { class: "examples", role: "group", "aria-label": "Test examples" }, label, ...examples.map(show))];
}

/** @param {string} base64 @returns {Uint8Array} */
const unpack = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** @param {any} model @param {Example[]} examples @param {Give} give */
function fromFile({ task, inference }, examples, give) {
  const picture = inference.task_type === "image";
  const take = async (file) => {
    if (file) give(new Uint8Array(await file.arrayBuffer()), picture ? { picture: file } : { text: file.name });
  };
  const chooser = element("input", { type: "file", accept: task.ACCEPT });
  chooser.addEventListener("change", () => {
    take(chooser.files[0]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  const label = element("label", {}, picture ? "Drop an image here, or choose or paste one" : "Drop a CSV file here, or choose one", chooser);
  const area = element("div", { class: "drop" }, label);
  const dragged = (over) => (event) => {
    event.preventDefault();
    area.classList.toggle("over", over);
  };
  area.addEventListener("dragover", dragged(true));
  area.addEventListener("dragleave", dragged(false));
  // Beside the field too: a file that is dropped there would otherwise replace the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    dragged(false)(event);
    take(event.dataTransfer?.files[0]);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
  return [area, ...offer(examples.filter(({ input }) => input.base64), ({ input }, number) => {
    const raw = unpack(input.base64);
    const name = `Test example ${number + 1}`;
    const button = element("button", { type: "button" }, picture ? "" : name);
    const shown = picture ? { picture: new Blob([raw]) } : { text: name };
    if (picture) {
      button.classList.add("picture");
      button.append(element("img", { src: URL.createObjectURL(shown.picture), alt: name }));
    }
    button.addEventListener("click", () => give(raw, shown));
    return button;
  })];
}

/** @param {any} _ @param {Example[]} examples @param {Give} give */
function fromText(_, examples, give) {
  const field = element("textarea", { id: "sentence", rows: 4, spellcheck: true });
  const send = () => give(field.value, { text: field.value });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  });
  const form = submitting(send, element("label", { htmlFor: "sentence" }, "A sentence"), field);
  const short = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
  return [form, ...offer(examples.filter(({ input }) => input.text).slice(0, 4), ({ input }) => {
    const button = element("button", { type: "button" }, short(input.text));
    button.addEventListener("click", () => {
      field.value = input.text;
      send();
    });
    return button;
  })];
}

/** @param {() => void} send @param {...Node} fields @returns {HTMLFormElement} */
function submitting(send, ...fields) {
  const form = element("form", {}, ...fields, element("button", { class: "main" }, "Predict"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  return form;
}

/** @param {any} model @param {Example[]} examples @param {Give} give */
function fromRow({ encoder }, examples, give) {
  const fields = new Map(encoder.columns.map((column) => [column.name, entry(column)]));
  const send = () => {
    const row = Object.fromEntries([...fields].map(([name, { value }]) => [name, value === "" ? null : value]));
    give(row, {});
  };
  const fill = (row) => {
    for (const [name, field] of fields) {
      const value = row[name] ?? "";
      field.value = field.type === "datetime-local" ? String(value).slice(0, 16) : field.type === "date" ? String(value).slice(0, 10) : value === true ? "True" : value === false ? "False" : value;
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = value === "" ? "" : OTHER;
    }
  };
  const rows = examples.filter(({ input }) => input.row);
  if (rows.length) fill(rows[0].input.row);
  const labels = [...fields].map(([name, field]) => element("label", {}, name, field));
  const form = submitting(send, element("div", { class: "fields" }, ...labels));
  return [...offer(rows, ({ input }, number) => {
    const button = element("button", { type: "button", "aria-label": `Test example ${number + 1}` }, String(number + 1));
    button.addEventListener("click", () => {
      fill(input.row);
      give(input.row, {});
    });
    return button;
  }), form];
}

const OTHER = "\u0000"; // no category

/** @param {import("./encoders/tabular.js").Column} column @returns {HTMLInputElement | HTMLSelectElement} */
function entry({ kind, categories, hours, median }) {
  if (kind === "names") {
    const options = categories.map((name) => element("option", { value: name }, name || "(blank)"));
    return element("select", {}, element("option", { value: "" }, "— missing"), ...options, element("option", { value: OTHER }, "another"));
  }
  if (kind === "dates") return element("input", { type: hours ? "datetime-local" : "date" });
  return element("input", { type: "text", inputMode: "decimal", autocomplete: "off", placeholder: `missing: ${Number(median.toPrecision(5))}` });
}
