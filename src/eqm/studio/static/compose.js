// Compose: sums, differences and masks of classes, beside each label alone.

import { button, el, field, section, short } from "./elements.js";
import { format } from "./expressions.js";
import { feed, film, legend } from "./film.js";
import { savePng, sheet } from "./pictures.js";
import { player } from "./player.js";
import { settings } from "./settings.js";
import { termsEditor } from "./terms.js";

export const title = "Compose";

const LEAD =
  "Each class has a field. Fields can be added and subtracted: the sum is a field too, and pictures descend it. " +
  "A mask says where a class counts.";
const INTRO =
  "Press Compose: the first row shows the expression, the rows below each of its labels alone, from the same noise.";
const WIDEST = 8; // pictures in a row

export function mount(element, context) {
  const { api } = context;
  let model = null;
  let lines = []; // films, a line for each expression
  let abort = null;
  const editor = termsEditor();
  const balance = field({
    label: "Balance the labels", type: "checkbox",
    help: "Gives the contributions of all labels the same size at each step.",
  });
  const options = settings({ count: 4, most: 16, fitted: false });
  const go = button("Compose", run, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const summary = el("p", { class: "muted" }, INTRO);
  const table = el("div", { class: "comparison" });
  const controls = player();
  const save = button("Save sheet (PNG)", () => {
    savePng(`${model.id}-composition.png`, sheet(lines.flat().map(({ data }) => data), lines[0].length, 4));
  }, { hidden: true });
  const results = section("Pictures", null, summary, controls.element, table, legend(),
    el("div", { class: "row actions" }, save));
  const form = el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
    options.element, balance.element, el("div", { class: "row actions" }, go, cancel));
  element.append(el("p", { class: "lead" }, LEAD), editor.element, el("div", { class: "split form-first" }, form, results));
  element.addEventListener("hide", () => abort?.abort());
  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    abort?.abort();
    abort = null; // what was asked of the other model has no say any more
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
    model = chosen;
    options.show(model);
    editor.show(model);
    lines = [];
    controls.start([]);
    table.replaceChildren();
    controls.element.hidden = save.hidden = true;
    summary.textContent = INTRO;
  });

  async function run() {
    if (!model) return context.alert("No model is loaded yet.");
    if (editor.wrong) return editor.focus();
    let wanted;
    try {
      wanted = options.read();
    } catch (problem) {
      return context.alert(problem);
    }
    const expressions = allExpressions(editor);
    begin(expressions, wanted);
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const body = { model: model.id, ...wanted, balance: balance.value, preview_every: options.previewEvery() };
    try {
      const answers = await Promise.all(expressions.map((expression, k) =>
        feed(api, "/v1/compose", { ...body, expression, masks: k ? {} : editor.masks() }, lines[k],
          { signal: mine.signal, changed: controls.update })));
      const seconds = Math.max(...answers.map((answer) => answer.seconds));
      const evaluations = lines.flat().reduce((sum, one) => sum + (one.sample?.nfe ?? 0), 0);
      summary.textContent = `${lines.flat().length} pictures in ${short(seconds)} s, ${short(evaluations)} evaluations `
        + "of the composed field. Pictures with the same seed start from the same noise.";
      context.say("The compositions are ready.");
    } catch (problem) {
      mine.abort(); // the other rows
      if (mine !== abort) return;
      context.alert(problem);
      const stopped = api.wasStopped(problem);
      summary.textContent = stopped ? "Cancelled. Pictures stay where they were." : "No more pictures came.";
    }
    if (mine === abort) await end();
  }

  function begin(expressions, { count, seed }) {
    context.clear();
    summary.textContent = "Composing…";
    lines = expressions.map((about, k) => Array.from({ length: count }, (_, i) =>
      film({ title: `seed ${seed + i}`, shape: model.eqm.shape, about, curves: k === 0 })));
    table.style.setProperty("--columns", Math.ceil(count / Math.ceil(count / WIDEST)));
    table.replaceChildren(...lines.map((films, k) =>
      el("section", { "aria-label": expressions[k] }, el("h3", {}, k ? `${expressions[k]} alone` : expressions[k]),
        el("div", { class: "films" }, films.map((one) => one.element)))));
    controls.start(lines.flat());
    controls.element.hidden = cancel.disabled = false;
    save.hidden = true;
    results.setAttribute("aria-busy", "true");
  }
  async function end() {
    await Promise.all(lines.flat().map((one) => one.ready()));
    controls.end();
    save.hidden = !lines.flat().every(({ data }) => data);
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
  }
}

/** The expression of an editor, and each of its labels alone if there are several or it is weighted. */
function allExpressions({ text, terms }) {
  const alone = terms.map((term) => format([{ ...term, sign: "+", weight: 1, masks: [] }]));
  const labels = [...new Set(alone)];
  return labels.length === 1 && labels[0] === text ? [text] : [text, ...labels];
}
