// Dialogs: what is about to be done is said before it is.

import { button, el } from "./dom.js";

// Resolve to true, or to the text where one is asked for; to null when it is not to be done. Of
// `text`, each is a paragraph or an element.
export function confirmed({ title, text, act, danger = true, field = null }) {
  const before = document.activeElement;
  const input =
    field &&
    el("input", {
      id: "asked",
      maxlength: 200,
      placeholder: field.placeholder,
      autocomplete: "off",
    });
  const yes = el("button", { type: "submit", class: danger ? "danger" : "primary" }, act);
  const dialog = el(
    "dialog",
    { "aria-labelledby": "asked-title", class: "ask" },
    el(
      "form",
      { method: "dialog" },
      el("h2", { id: "asked-title" }, title),
      ...text.map((one) => (typeof one === "string" ? el("p", {}, one) : one)),
      input && el("label", { for: "asked" }, field.label),
      input,
      el(
        "div",
        { class: "acts" },
        button("Cancel", () => dialog.close("")),
        yes,
      ),
    ),
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    let agreed = false;
    // No form is ever sent: the policy of the page forbids it, the dialog's own kind included.
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      agreed = true;
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(agreed ? (input ? input.value.trim() : true) : null);
    });
    dialog.showModal();
    (input || yes).focus();
  });
}

export function told(title, ...content) {
  const dialog = el(
    "dialog",
    { class: "ask wide", "aria-label": title },
    el("h2", {}, title),
    ...content,
    el(
      "div",
      { class: "acts" },
      button("Close", () => dialog.close(), { class: "primary", autofocus: true }),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}
