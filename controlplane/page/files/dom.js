// Elements by hand. Whatever is put into them as text stays text: nothing here reads HTML.

// el makes an element: el("button.quiet", {type: "button", onclick: f}, "Text", child, …). Attributes that are false, null or undefined
// are left out; those that begin with "on" are listeners. Children that are null or false are left out, lists are taken apart.
export function el(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  return furnish(element, classes, rest);
}

// svg makes an element of a drawing.
export function svg(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, rest);
}

function furnish(element, classes, rest) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const given = rest[0];
  if (given && typeof given === "object" && !(given instanceof Node) && !Array.isArray(given)) {
    rest = rest.slice(1);
    for (const [name, value] of Object.entries(given)) {
      if (value === false || value === null || value === undefined) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "value") element.value = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...kept(rest));
  return element;
}

const kept = (children) => children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false);

// fill replaces what is in an element. What is equal stays, so that a selection or a pointer on it does; and the focus stays where it was:
// on the element with the same data-key or id.
export function fill(element, ...children) {
  const active = document.activeElement;
  const key = element.contains(active) && active !== element ? (active.dataset?.key ?? active.id) : null;
  patch(element, kept(children).map((c) => (c instanceof Node ? c : document.createTextNode(c))));
  if (key && !element.contains(document.activeElement)) {
    [...element.querySelectorAll("[data-key], [id]")].find((e) => (e.dataset.key ?? e.id) === key)?.focus({ preventScroll: true });
  }
}

// patch goes into tables, whose rows are often equal.
function patch(element, next) {
  next.forEach((child, i) => {
    const old = element.childNodes[i];
    if (!old) element.append(child);
    else if (old === child || old.isEqualNode(child)) return;
    else if (["TABLE", "TBODY"].includes(old.tagName) && old.tagName === child.tagName) patch(old, [...child.childNodes]);
    else old.replaceWith(child);
  });
  while (element.childNodes.length > next.length) element.lastChild.remove();
}

// field is a labelled control.
export function field(label, control, hint) {
  return el("label.field", el("span.label", label), control, hint && el("span.hint", hint));
}

// select is a list to choose from; options are [value, text] or only texts.
export function select(attributes, options, value) {
  return el("select", attributes, options.map((o) => {
    const [key, text] = Array.isArray(o) ? o : [o, o];
    return el("option", { value: key, selected: key === value }, text); // as an attribute, by which fill sees the difference
  }));
}

// table makes a table; columns are names, rows lists of cells (text or elements), each with an optional key for {key, cells, kind}.
// On a narrow screen the cells stand below each other, each with the name of its column.
export function table(caption, columns, rows, nothing) {
  if (!rows.length) return el("p.nothing", nothing ?? "None.");
  return el("table",
    el("caption.spoken", caption),
    el("thead", el("tr", columns.map((c) => el("th", { scope: "col", class: isNumber(c) ? "number" : null }, label(c) || el("span.spoken", "Do"))))),
    el("tbody", rows.map((row) => {
      const cells = row.cells ?? row;
      return el("tr", { class: row.kind ?? null }, cells.map((cell, i) => {
        const attributes = { "data-label": label(columns[i]), class: isNumber(columns[i]) ? "number" : label(columns[i]) ? null : "do" };
        return i === 0 ? el("th", { scope: "row", ...attributes }, cell) : el("td", attributes, cell);
      }));
    })));
}

// A column's name that begins with # is of numbers.
const isNumber = (name) => name.startsWith("#");
const label = (name) => name.replace(/^#/, "");

// told shows what went wrong, or a good message.
export function told(element, kind, ...text) {
  fill(element, text.length ? el("p.told." + kind, { role: kind === "bad" ? "alert" : "status" }, text) : null);
}
