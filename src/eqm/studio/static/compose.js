// Compose: sums, differences and masks of classes, beside each label alone.

import { classNames } from "./classes.js";
import { button, el, field, freshId, section, short } from "./elements.js";
import { format, HALVES, parse } from "./expressions.js";
import { feed, film, legend, player } from "./film.js";
import { painting } from "./painting.js";
import { savePng, sheet } from "./pictures.js";
import { settings } from "./settings.js";

export const title = "Compose";

const WHOLE = "whole picture";
const NEW = "new painted mask";

export function mount(element, context) {
  const { api } = context;
  let [model, terms, abort, films, wrong] = [null, [], null, [], null];
  const masks = new Map(); // paintings by name
  const names = () => (model ? classNames(model) : []);
  const term = (label) => ({ sign: "+", weight: 1, masks: [], model: "", label });
  const id = freshId("expression");
  const text = el("input", { id, type: "text", class: "expression", autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help ${id}-error`, oninput: fromText });
  const error = el("p", { id: `${id}-error`, class: "bad", role: "status", hidden: true });
  const rows = el("ul", { class: "addends" });
  const canvases = el("div", { class: "paintings" });
  const balance = field({ label: "Balance the labels", type: "checkbox", help: "Gives the contributions of all labels the same size at each step." });
  const options = settings({ count: 4, most: 16, fitted: false });
  const go = button("Compose", run, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const summary = el("p", { class: "muted" }, "Press Compose: the first row shows the expression, the rows below each of its labels alone, from the same noise.");
  const table = el("div", { class: "comparison" });
  const controls = player();
  controls.element.hidden = true;
  const save = button("Save sheet (PNG)", () => savePng(`${model.id}-composition.png`, sheet(films.flat().map((one) => one.data), films[0].length, 4)), { hidden: true });
  const results = section("Pictures", null, summary, controls.element, table, legend(), el("div", { class: "row actions" }, save));

  element.append(
    el("p", { class: "lead" }, "A field for each class, added and subtracted: the sum is a field too, and pictures descend it. A mask says where a class counts."),
    section("Expression", null,
      el("div", { class: "field" }, el("label", { for: id, class: "name" }, "As text"), text,
        el("span", { id: `${id}-help`, class: "help" }, "Such as boot + 0.5*sneaker, dress - coat, or left*bag + ~left*trouser, where ~ means outside a mask. Names with other signs need quotes."), error),
      rows, el("div", { class: "row actions" }, button("Add a class", () => { terms.push(term(names()[terms.length % names().length] ?? "none")); fromRows(); })), canvases),
    el("div", { class: "split form-first" },
      el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } }, options.element, balance.element, el("div", { class: "row actions" }, go, cancel)),
      results));
  element.addEventListener("hide", () => abort?.abort());

  const paintedNames = () => [...new Set(terms.flatMap((one) => one.masks.map((mask) => mask.replace(/^~/, ""))))].filter((name) => !HALVES.includes(name));

  function fromText() {
    try {
      terms = parse(text.value);
      wrong = null;
      showRows();
    } catch (problem) {
      wrong = problem;
    }
    tell();
  }
  function fromRows() {
    wrong = null;
    text.value = format(terms);
    showRows();
    tell();
  }
  function tell() {
    error.textContent = wrong?.message ?? "";
    error.hidden = !wrong;
    text.setAttribute("aria-invalid", String(Boolean(wrong)));
    rows.classList.toggle("stale", Boolean(wrong));
  }

  function showRows() {
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    rows.replaceChildren(...terms.map(row));
    if (focused) rows.querySelector(`[data-key="${focused}"]`)?.focus();
    const used = paintedNames();
    for (const name of used) {
      if (!masks.has(name)) {
        const [, height, width] = model.eqm.shape;
        masks.set(name, painting({ label: `Mask ${name}: paint where it is 1`, painted: `in ${name}`, width, height }));
      }
    }
    const shown = [...canvases.children].map((each) => each.dataset.name);
    if (shown.join() !== used.join()) {
      canvases.replaceChildren(...used.map((name) => el("div", { "data-name": name }, el("h3", {}, `Mask ${name}`), masks.get(name).element)));
    }
  }

  function row(one, k) {
    const known = (list, now) => (list.includes(now) ? list : [...list, now]);
    const select = (label, key, values, now, onInput) => {
      const part = field({ label, type: "select", options: values, value: now, onInput });
      part.input.dataset.key = `${key}-${k}`;
      return part.element;
    };
    const sign = select("Sign", "sign", [["+", "+ plus"], ["-", "− minus"]], one.sign, (value) => { one.sign = value; fromRows(); });
    const weight = field({
      label: "Weight", type: "range", min: 0, max: Math.max(3, one.weight), step: 0.05, value: one.weight, format: (value) => String(Number(value.toFixed(3))),
      onInput: (value) => { one.weight = value; text.value = format(terms); },
    });
    weight.input.dataset.key = `weight-${k}`;
    const now = one.model ? `${one.model}:${one.label}` : labelName(one.label);
    const label = select("Class", "class", known([...names(), "none"], now), now, (value) => { one.label = value; one.model = ""; fromRows(); });
    const mask = one.masks.join(" × ") || WHOLE;
    const painted = paintedNames();
    const places = [WHOLE, ...HALVES, ...painted, ...painted.map((name) => `~${name}`), NEW];
    const where = select("Where", "mask", known(places, mask).map((place) => [place, placeText(place)]), mask, (value) => {
      if (value === NEW) value = freshName();
      one.masks = value === WHOLE ? [] : value.split(" × ");
      fromRows();
    });
    const remove = button("Remove", () => { terms.splice(k, 1); fromRows(); }, { kind: "quiet", disabled: terms.length < 2, "aria-label": `Remove ${now}` });
    return el("li", { "aria-label": `Term ${k + 1}: ${now}` }, sign, weight.element, label, where, remove);
  }
  const labelName = (label) => (/^\d+$/.test(label) && !names().includes(label) ? names()[Number(label)] ?? label : names().find((name) => name.toLowerCase() === label.toLowerCase()) ?? label);
  const placeText = (place) => (place.startsWith("~") && !place.includes("×") ? `outside ${place.slice(1)}` : place);
  function freshName() {
    const used = paintedNames();
    for (let k = 1; ; k++) {
      const name = k === 1 ? "painted" : `painted${k}`;
      if (!used.includes(name)) return name;
    }
  }

  async function run() {
    if (!model) return context.alert("No model is loaded yet.");
    if (wrong) return text.focus();
    let wanted;
    try {
      wanted = options.read();
    } catch (problem) {
      return context.alert(problem);
    }
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const alone = [...new Set(terms.map((one) => format([{ ...one, sign: "+", weight: 1, masks: [] }])))];
    const expressions = [text.value.trim(), ...(alone.length === 1 && alone[0] === text.value.trim() ? [] : alone)];
    films = expressions.map((expression, row) => Array.from({ length: wanted.count }, (_, k) =>
      film({ title: `seed ${wanted.seed + k}`, shape: model.eqm.shape, about: expression, curves: row === 0 })));
    const columns = wanted.count <= 8 ? wanted.count : Math.ceil(wanted.count / Math.ceil(wanted.count / 8));
    table.style.setProperty("--columns", columns);
    table.replaceChildren(...films.map((line, k) => el("section", { "aria-label": expressions[k] },
      el("h3", {}, k ? `${expressions[k]} alone` : expressions[k]), el("div", { class: "films" }, line.map((one) => one.element)))));
    controls.start(films.flat());
    controls.element.hidden = false;
    save.hidden = true;
    cancel.disabled = false;
    results.setAttribute("aria-busy", "true");
    summary.textContent = "Composing…";
    const body = { model: model.id, count: wanted.count, seed: wanted.seed, sampling: wanted.sampling, balance: balance.value, preview_every: options.previewEvery() };
    const sent = Object.fromEntries(paintedNames().map((name) => [name, masks.get(name).png()]));
    try {
      const done = await Promise.all(expressions.map((expression, k) =>
        feed(api, "/v1/compose", { ...body, expression, masks: k ? {} : sent }, films[k], { signal: mine.signal, changed: controls.update })));
      const nfe = films.flat().reduce((sum, one) => sum + (one.sample?.nfe ?? 0), 0);
      summary.textContent = `${films.flat().length} pictures in ${short(Math.max(...done.map(({ seconds }) => seconds)))} s, ${short(nfe)} evaluations of the composed field. Pictures with the same seed start from the same noise.`;
      context.say("The compositions are ready.");
    } catch (problem) {
      mine.abort(); // the other rows
      summary.textContent = api.wasStopped(problem) ? "Cancelled. Pictures stay where they were." : "No more pictures came.";
      if (mine === abort) context.alert(problem);
    }
    if (mine !== abort) return;
    await Promise.all(films.flat().map((one) => one.ready()));
    controls.end();
    save.hidden = !films.flat().every((one) => one.data);
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
  }

  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    abort?.abort();
    model = chosen;
    options.show(model);
    masks.clear();
    const [a, b] = names().length > 3 ? [names().at(-3), names().at(-1)] : [names()[0] ?? "none", names().at(-1) ?? "none"];
    terms = names().length ? [term(a), term(b)] : [term("none")];
    films = [];
    table.replaceChildren();
    controls.element.hidden = save.hidden = true;
    fromRows();
  });
}
