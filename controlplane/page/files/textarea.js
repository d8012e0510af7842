// A text area with the numbers of its lines, some of them marked.
import { el, fill } from "./dom.js";

export function numbered(attributes) {
  const gutter = el("div.gutter", { "aria-hidden": "true" });
  const area = el("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", rows: 22, ...attributes });
  let marked = new Map();
  const draw = () => {
    const lines = area.value.split("\n").length;
    fill(gutter, Array.from({ length: lines }, (_, i) => el(marked.has(i + 1) ? "span.bad" : "span", { title: marked.get(i + 1) }, String(i + 1))));
    gutter.scrollTop = area.scrollTop;
  };
  area.addEventListener("input", draw);
  area.addEventListener("scroll", () => { gutter.scrollTop = area.scrollTop; });
  area.addEventListener("keydown", (event) => { // Tab leaves the field, as everywhere; Enter keeps the indentation
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey) return;
    const before = area.value.slice(0, area.selectionStart), indent = /(?:^|\n)([ ]*)(?:[^\n]*)$/.exec(before)[1];
    event.preventDefault();
    area.setRangeText("\n" + indent, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  });
  draw();
  return {
    element: el("div.numbered", gutter, area), area,
    show(text) { area.value = text; marked = new Map(); draw(); },
    // mark shows messages at lines: a map from line to message.
    mark(faults) { marked = faults; draw(); },
    // go puts the cursor into a line.
    go(line) {
      const lines = area.value.split("\n"), start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
      area.focus();
      area.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
      const high = area.scrollHeight / Math.max(1, lines.length);
      area.scrollTop = Math.max(0, (line - 4) * high);
    },
  };
}
