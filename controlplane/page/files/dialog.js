// Questions before what cannot be undone, and forms in between.
import { el, fill, told } from "./dom.js";

// open shows a dialog and calls back when it is closed. The focus goes back to where it was, or to what has taken that one's place meanwhile.
function open(dialog, closed) {
  const before = document.activeElement, key = before?.dataset?.key;
  dialog.addEventListener("close", () => {
    dialog.remove();
    const place = before?.isConnected ? before : [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key);
    (place ?? document.getElementById("main")).focus({ preventScroll: true });
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
}

// ask opens a dialog: a title, its contents, the name of the button that does it, and do(), whose error is shown in the dialog, which then
// stays. It returns when the dialog is closed: what do() returned, or undefined when the person went back.
export function ask({ title, contents, act, danger, go }) {
  return new Promise((resolve) => {
    const wrong = el("div");
    let result;
    const back = el("button.quiet", { type: "button", onclick: () => dialog.close() }, "Go back");
    const button = el("button", { type: "submit", class: danger ? "danger" : null }, act);
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, el("form", { onsubmit: submit },
      el("h2", { id: "dialog-title" }, title), contents, wrong, el("div.buttons", back, button)));
    async function submit(event) {
      event.preventDefault();
      button.disabled = true;
      fill(wrong);
      try {
        result = (await go()) ?? true;
        dialog.close();
      } catch (error) {
        told(wrong, "bad", error.message);
      }
      button.disabled = false;
    }
    open(dialog, () => resolve(result));
  });
}

// show opens a dialog that only tells something.
export function show({ title, contents, act }) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, el("h2", { id: "dialog-title" }, title), contents,
      el("div.buttons", el("button", { type: "button", onclick: () => dialog.close() }, act ?? "Close")));
    open(dialog, resolve);
  });
}
