// Choosing classes of a model by name.

import { button, el, field } from "./elements.js";

const FEW = 20; // up to so many classes need no search

/** The names of the classes of a model, an item of /v1/models: its own, or numbers. */
export function classNames({ eqm }) {
  return eqm.classes?.length ? eqm.classes : Array.from({ length: eqm.num_classes ?? 0 }, (_, k) => String(k));
}

/** A select with the classes of a model and "no class" first: `{element, value, show(model)}`. */
export function classSelect({ label = "Class", none = "no class", ...options } = {}) {
  const part = field({ label, type: "select", ...options });
  part.show = (model) => {
    const names = classNames(model);
    const kept = part.value;
    const options = [["none", none], ...names.map((name) => [name, name])];
    part.input.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    part.value = names.includes(kept) ? kept : "none";
    part.element.hidden = names.length === 0;
  };
  return part;
}

/** Boxes to tick several classes: `{element, chosen(), show(model)}`. Nothing ticked means all in turn. */
export function classBoxes() {
  const boxes = el("div", { class: "chips" });
  const search = field({ label: "Find a class", type: "text", onInput: find });
  const said = el("p", { class: "help", "aria-live": "polite" });
  const clear = button("Clear", () => {
    for (const box of inputs()) box.checked = false;
    tell();
  }, { kind: "quiet" });
  const element = el("fieldset", { class: "classes" }, el("legend", { class: "name" }, "Classes"), search.element,
    boxes, el("div", { class: "row between" }, said, clear));
  const inputs = () => [...boxes.querySelectorAll("input")];
  const chosen = () => inputs().filter((box) => box.checked).map((box) => box.value);

  function tell() {
    const count = chosen().length;
    clear.hidden = count === 0;
    said.textContent = count > 1 ? `${count} classes in turn.` : count ? "" : "None ticked: all classes in turn.";
  }
  function find(text) {
    const part = text.trim().toLowerCase();
    for (const chip of boxes.children) chip.hidden = !chip.textContent.toLowerCase().includes(part);
  }
  return {
    element,
    chosen,
    show(model) {
      const names = classNames(model);
      const chip = (value, text) =>
        el("label", { class: "chip" }, el("input", { type: "checkbox", value, onchange: tell }), el("span", {}, text));
      boxes.replaceChildren(...names.map((name) => chip(name, name)), chip("none", "no class"));
      search.value = "";
      search.element.hidden = names.length <= FEW;
      element.hidden = names.length === 0;
      tell();
    },
  };
}
