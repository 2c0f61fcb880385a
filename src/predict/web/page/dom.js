// Makes elements. Text only ever becomes text: nothing that a file, a class or a card says is taken for HTML.

/** Returns an element: make("a", {href: "/", class: "x", onclick: f}, "text", child…). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (selector) => document.querySelector(selector);

/** Returns a number as people read it. */
export function show(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const large = Math.abs(value) >= 1000;
  return large ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(4)));
}

/** Returns a table; cells that are numbers stand to the right. */
export function table(head, rows) {
  const cell = (tag) => (value, column) => {
    const number = rows.length > 0 && typeof rows[0][column] === "number";
    const attributes = { class: number ? "number" : null, scope: tag === "th" ? "col" : null };
    return make(tag, attributes, typeof value === "number" ? show(value) : value ?? "–");
  };
  const body = rows.map((row) => make("tr", {}, ...row.map(cell("td"))));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head.map(cell("th")))), make("tbody", {}, ...body));
}
