// Shows the part of Markdown that model cards are written in: headings, lists, tables, quotes, code, links.
import { make } from "./dom.js";

const INLINE = /(`[^`]+`)|\*\*(.+?)\*\*|\[([^\]]+)\]\((https?:\/\/[^)\s]+)\)|(https?:\/\/[^\s<>)]+)/g;

/** Returns the elements of a Markdown text. */
export function render(text) {
  const lines = text.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const found = [];
  while (lines.length) found.push(block(lines));
  return found.filter((element) => element !== null);
}

function block(lines) {
  const take = (matches) => {
    const taken = [];
    while (lines.length && matches(lines[0])) taken.push(lines.shift());
    return taken;
  };
  const first = lines[0];
  if (!first.trim()) return void lines.shift() ?? null;
  const heading = /^(#{1,6})\s+(.*)/.exec(first);
  if (heading) {
    lines.shift();
    return make(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2]));
  }
  if (first.startsWith("```")) {
    lines.shift();
    const code = take((line) => !line.startsWith("```"));
    lines.shift();
    return make("pre", { tabindex: 0 }, make("code", {}, code.join("\n")));
  }
  if (first.startsWith(">")) {
    return make("blockquote", {}, ...render(take((line) => line.startsWith(">")).map((line) => line.replace(/^> ?/, "")).join("\n")));
  }
  if (first.startsWith("|")) return tabulate(take((line) => line.startsWith("|")));
  if (/^[-*] /.test(first)) {
    const items = [];
    for (const line of take((line) => /^([-*] |\s+\S)/.test(line))) {
      if (/^[-*] /.test(line)) items.push(line.slice(2));
      else items[items.length - 1] += ` ${line.trim()}`;
    }
    return make("ul", {}, ...items.map((item) => make("li", {}, ...inline(item))));
  }
  const special = /^(#{1,6}\s|```|>|\||[-*] )/;
  const text = [lines.shift(), ...take((line) => line.trim() && !special.test(line))];
  return make("p", {}, ...inline(text.join(" ")));
}

function tabulate(lines) {
  const rows = lines.map((line) => line.replace(/^\||\|\s*$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|")));
  const body = rows.slice(2).map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, ...inline(cell)))));
  const head = make("tr", {}, ...rows[0].map((cell) => make("th", { scope: "col" }, ...inline(cell))));
  return make("div", { class: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, bold, label, link, bare] = match;
    parts.push(text.slice(end, match.index));
    if (code) parts.push(make("code", {}, code.slice(1, -1)));
    else if (bold) parts.push(make("b", {}, ...inline(bold)));
    else parts.push(make("a", { href: link ?? bare, rel: "noreferrer" }, label ?? bare));
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)];
}
