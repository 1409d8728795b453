// The editor of an expression: as text and as rows, with a canvas for each mask that is painted.

import { classNames } from "./classes.js";
import { button, el, field, freshId, section } from "./elements.js";
import { format, HALVES, parse } from "./expressions.js";
import { painting } from "./painting.js";

const WHOLE = "whole picture";
const NEW = "new painted mask";
const WEIGHT_STEP = 0.05;

/**
 * The editor: `{element, show(model), text, terms, wrong, masks(), focus()}`.
 *
 * `wrong` is the Error of a text that is no expression, otherwise null. `masks` returns the painted masks
 * as base64 PNG by name.
 */
export function termsEditor() {
  let model = null;
  let terms = [];
  let wrong = null;
  const paintings = new Map(); // by name
  const id = freshId("expression");
  const text = el("input", {
    id,
    type: "text",
    class: "expression",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": `${id}-help ${id}-error`,
    oninput: readText,
  });
  const error = el("p", { id: `${id}-error`, class: "bad", role: "status", hidden: true });
  const rows = el("ul", { class: "addends" });
  const canvases = el("div", { class: "paintings" });
  const add = button("Add a class", () => {
    terms.push(plain(names()[terms.length % names().length] ?? "none"));
    writeText();
  });
  const help =
    "Such as boot + 0.5*sneaker, dress - coat, or left*bag + ~left*trouser, where ~ means outside a mask. " +
    "Names with other signs need quotes.";
  const element = section("Expression", null,
    el("div", { class: "field" }, el("label", { for: id, class: "name" }, "As text"), text,
      el("span", { id: `${id}-help`, class: "help" }, help), error),
    rows, el("div", { class: "row actions" }, add), canvases);

  const names = () => (model ? classNames(model) : []);
  const plain = (label) => ({ sign: "+", weight: 1, masks: [], model: "", label });

  function readText() {
    wrong = null;
    try {
      terms = parse(text.value);
      showRows();
    } catch (problem) {
      wrong = problem;
    }
    showError();
  }
  function writeText() {
    wrong = null;
    text.value = format(terms);
    showRows();
    showError();
  }
  function showError() {
    error.textContent = wrong?.message ?? "";
    error.hidden = !wrong;
    text.setAttribute("aria-invalid", String(Boolean(wrong)));
    rows.classList.toggle("stale", Boolean(wrong));
  }

  /** The names of the masks that are painted. */
  function paintedNames() {
    const used = terms.flatMap(({ masks }) => masks.map((mask) => mask.replace(/^~/, "")));
    return [...new Set(used)].filter((name) => !HALVES.includes(name));
  }
  function showRows() {
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    rows.replaceChildren(...terms.map(row));
    if (focused) rows.querySelector(`[data-key="${focused}"]`)?.focus();
    const used = paintedNames();
    const [, height, width] = model.eqm.shape;
    for (const name of used.filter((each) => !paintings.has(each))) {
      const label = `Mask ${name}: paint where it is 1`;
      paintings.set(name, painting({ label, painted: `in ${name}`, width, height }));
    }
    if ([...canvases.children].map(({ dataset }) => dataset.name).join() === used.join()) return;
    canvases.replaceChildren(...used.map((name) =>
      el("div", { "data-name": name }, el("h3", {}, `Mask ${name}`), paintings.get(name).element)));
  }

  function row(term, k) {
    const change = (changes) => {
      Object.assign(term, changes);
      writeText();
    };
    const choice = (label, options, value, onInput) => {
      const part = field({ label, type: "select", options, value, onInput });
      part.input.dataset.key = `${label}-${k}`;
      return part.element;
    };
    const steps = term.weight / WEIGHT_STEP;
    const weight = field({
      label: "Weight", type: "range", min: 0, max: Math.max(3, term.weight), value: term.weight,
      step: Math.abs(steps - Math.round(steps)) < 1e-6 ? WEIGHT_STEP : "any", // "any" does not round it
      format: (value) => String(Number(value.toFixed(3))),
      onInput: (value) => {
        term.weight = value;
        text.value = format(terms); // new rows would take the slider away from the mouse
      },
    });
    const label = term.model ? `${term.model}:${term.label}` : nameOf(term.label);
    const place = term.masks.join(" × ") || WHOLE;
    const painted = paintedNames();
    const places = [WHOLE, ...HALVES, ...painted, ...painted.map((name) => `~${name}`), NEW];
    const including = (list, value) => (list.includes(value) ? list : [...list, value]);
    return el("li", { "aria-label": `Term ${k + 1}: ${label}` },
      choice("Sign", [["+", "+ plus"], ["-", "− minus"]], term.sign, (sign) => change({ sign })),
      weight.element,
      choice("Class", including([...names(), "none"], label), label, (chosen) => change({ label: chosen, model: "" })),
      choice("Where", including(places, place).map((each) => [each, placeText(each)]), place, (chosen) =>
        change({ masks: chosen === WHOLE ? [] : chosen === NEW ? [freshName()] : chosen.split(" × ") })),
      button("Remove", () => { terms.splice(k, 1); writeText(); },
        { kind: "quiet", disabled: terms.length < 2, "aria-label": `Remove ${label}` }));
  }

  /** The name of the class that a label of an expression means. */
  function nameOf(label) {
    const known = names().find((name) => name.toLowerCase() === label.toLowerCase());
    return known ?? (/^\d+$/.test(label) ? (names()[Number(label)] ?? label) : label);
  }
  function placeText(place) {
    return place.startsWith("~") && !place.includes("×") ? `outside ${place.slice(1)}` : place;
  }
  function freshName() {
    const used = paintedNames();
    let name = "painted";
    for (let k = 2; used.includes(name); k++) name = `painted${k}`;
    return name;
  }

  return {
    element,
    get text() { return text.value.trim(); },
    get terms() { return terms; },
    get wrong() { return wrong; },
    focus: () => text.focus(),
    masks: () => Object.fromEntries(paintedNames().map((name) => [name, paintings.get(name).png()])),
    /** Begins anew with two classes of a model, an item of /v1/models. */
    show(next) {
      model = next;
      paintings.clear();
      const known = names();
      const pair = known.length > 3 ? [known.at(-3), known.at(-1)] : known.slice(0, 2);
      terms = (pair.length ? pair : ["none"]).map(plain);
      writeText();
    },
  };
}
