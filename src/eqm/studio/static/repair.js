// Repair: a damaged picture, several answers, their mean and their spread.

import { classSelect } from "./classes.js";
import * as damage from "./damage.js";
import { button, dropZone, el, field, section, short } from "./elements.js";
import { feed, film, player } from "./film.js";
import { painting } from "./painting.js";
import { canvasOf, decode, encode, fitted, psnr, savePng, sheet, spread } from "./pictures.js";

export const title = "Repair";

const MOST_BYTES = 50e6;
const MOST_PIXELS = 40e6;
const KINDS = { noise: "Noise", hole: "Hole", small: "Too small", blur: "Blur", grey: "No colour" };

export function mount(element, context) {
  const { api } = context;
  let [model, file, picture, kind, abort, sampling, drawn, lastSeed] = [null, null, null, "noise", null, null, [], 999];

  // 1. the picture
  const drop = dropZone({
    label: "Drop, choose or paste a picture", multiple: false, help: "Any size: this page crops its middle and resizes it. The picture goes to no other server.",
    onFiles: ([chosen]) => open(chosen),
  });
  const inverted = field({ label: "Swap light and dark", type: "checkbox", onInput: fit });
  const label = classSelect({ label: "Class that the model is told", none: "none: it has to find out" });
  const drawnClass = classSelect({ label: "Class of the sample", none: "any class" });
  const sample = button("Take a sample of the model", () => take());
  const source = el("p", { class: "muted", "aria-live": "polite" }, "No picture yet.");
  // 2. the damage
  const kinds = el("div", { class: "row", role: "group", "aria-label": "Kind of damage" }, Object.entries(KINDS).map(([name, text]) =>
    button(text, () => choose(name), { "data-kind": name, "aria-pressed": String(name === kind) })));
  const sigma = field({
    label: "Noise", type: "range", value: 0.5, min: 0.05, max: 2, step: 0.05, onInput: show, format: (value) => `standard deviation ${value}`,
    help: "Black is −1 and white is 1.",
  });
  const unknown = field({ label: "The model is not told how much noise there is", type: "checkbox" });
  const hole = painting({ label: "Hole: paint what is missing", painted: "the hole", width: 28, height: 28, onInput: show });
  const factor = field({ label: "Smaller by", type: "select", options: ["2"], onInput: fit });
  const width = field({ label: "Blur", type: "range", value: 1.5, min: 0.5, max: 4, step: 0.1, onInput: show, format: (value) => `standard deviation ${value} pixels` });
  const already = field({ label: "The picture is damaged already", type: "checkbox", help: "Nothing is added, and there is no original to compare with.", onInput: (on) => { unknown.value = on; fit(); } });
  const parts = { noise: [sigma, unknown], hole: [hole], small: [factor], blur: [width], grey: [] };
  // 3. the answers
  const count = field({ label: "Number of answers", type: "number", value: 5, min: 2, max: 16, step: 1 });
  const seed = field({ label: "Seed", type: "number", value: 0, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 });
  const go = button("Repair", run, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const before = el("div", { class: "films" });
  const summary = el("p", { class: "muted" }, "Press Repair: several answers show what the damage leaves open.");
  const answers = el("div", { class: "films" });
  const together = el("div", { class: "films" });
  const controls = player();
  const save = button("Save sheet (PNG)", () => savePng(`${model.id}-repaired.png`, sheet(drawn, drawn.length, 4)), { hidden: true });
  const results = section("Answers", null, summary, controls.element, answers, together, el("div", { class: "row actions" }, save));
  controls.element.hidden = true;

  const taking = el("div", {}, drawnClass.element, el("div", { class: "row actions" }, sample));
  const steps = [section("1. Picture", null, drop, taking, source, inverted.element),
    section("2. Damage", null, kinds, ...Object.values(parts).flat().map((part) => part.element), already.element)];
  for (const each of steps) each.classList.add("spaced");
  element.append(
    el("p", { class: "lead" }, "What was the picture before it was damaged? Often many pictures fit. The model draws several of them; where they differ, nobody can know."),
    el("div", { class: "split form-first" },
      el("div", {}, steps),
      el("div", {},
        section("Before", null, before),
        el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
          el("h2", {}, "3. Repair"), el("div", { class: "fields narrow" }, count.element, seed.element), label.element, el("div", { class: "row actions" }, go, cancel)),
        results)));
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (pasted && !element.hidden) open(pasted);
  });
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    if (!event.defaultPrevented && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
    event.preventDefault(); // otherwise the browser leaves the page for the file
  });
  element.addEventListener("hide", stop);
  element.addEventListener("show", () => { if (model && !picture) take(); });
  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    stop();
    [model, picture, file] = [chosen, null, null];
    for (const part of [label, drawnClass]) part.show(model);
    const [channels, height, wide] = model.eqm.shape;
    hole.resize(wide, height);
    hole.fillMiddle();
    const factors = [2, 3, 4, 5, 7, 8, 14, 16].filter((one) => wide % one === 0 && height % one === 0 && one < wide / 1.9);
    factor.input.replaceChildren(...factors.map((one) => el("option", { value: one }, `${one} times: ${wide / one} × ${height / one} pixels`)));
    kinds.querySelector("[data-kind=grey]").hidden = channels !== 3;
    kinds.querySelector("[data-kind=small]").hidden = factors.length === 0;
    choose("noise");
    if (!element.hidden) take();
  });

  function stop() {
    abort?.abort();
    sampling?.abort();
  }
  function choose(name) {
    kind = name;
    for (const each of kinds.children) each.setAttribute("aria-pressed", String(each.dataset.kind === kind));
    for (const [other, fields] of Object.entries(parts)) for (const part of fields) part.element.hidden = other !== kind;
    fit();
  }

  async function open(chosen) {
    context.clear();
    sampling?.abort();
    if (chosen.size > MOST_BYTES) return context.alert(`The file has ${short(chosen.size / 1e6)} MB; please choose one of at most ${MOST_BYTES / 1e6} MB.`);
    let bitmap;
    try {
      bitmap = await createImageBitmap(chosen);
    } catch {
      return context.alert(`${chosen.name || "The file"} is not a picture that this browser can read: choose a PNG, JPEG, WebP or GIF.`);
    }
    if (bitmap.width * bitmap.height > MOST_PIXELS) return context.alert(`The picture has ${bitmap.width} × ${bitmap.height} pixels; please choose one of at most ${MOST_PIXELS / 1e6} million.`);
    file = { bitmap, name: chosen.name || "The pasted picture" };
    fit();
  }
  async function take() {
    sampling?.abort();
    sampling = new AbortController();
    const mine = sampling;
    sample.disabled = true;
    try {
      const next = lastSeed + 1;
      const labels = drawnClass.element.hidden || drawnClass.value === "none" ? null : [drawnClass.value];
      const body = { model: model.id, labels, count: 1, seed: next };
      if (!labels && model.eqm.num_classes) body.labels = [(next * 7) % model.eqm.num_classes];
      const { samples: [found] } = await api.post("/v1/sample", body, { signal: mine.signal });
      const data = await decode(found.b64_json);
      if (mine !== sampling) return;
      lastSeed = next;
      file = { data, name: `A sample of ${model.id}${found.label ? `, ${found.label}` : ""}, seed ${found.seed}` };
      fit();
    } catch (error) {
      if (mine === sampling) context.alert(error);
    } finally {
      if (mine === sampling) sample.disabled = false;
    }
  }

  /** Brings the chosen picture to the size that the damage wants. */
  function fit() {
    if (!model || !file) return show();
    const [channels, height, wide] = model.eqm.shape;
    const share = already.value && kind === "small" ? Number(factor.value) : 1;
    const [w, h] = [wide / share, height / share];
    const from = file.bitmap ?? canvasOf(file.data);
    picture = fitted(from, w, h, { grey: channels === 1, inverted: inverted.value });
    const resized = from.width !== w || from.height !== h;
    const cropped = Math.abs(from.width / from.height - w / h) > 0.01;
    source.textContent = `${file.name}${resized ? `: ${from.width} × ${from.height} pixels, ${cropped ? "its middle " : ""}resized to ${w} × ${h}${channels === 1 ? ", in grey" : ""}` : ""}.`;
    show();
  }

  /** The damaged picture: {seen} and, for noise, {sent, range}. */
  function damaged() {
    if (already.value && kind !== "hole") return { seen: picture, sent: picture, range: 1 };
    if (kind === "noise") return damage.noisy(picture, sigma.value, seed.value || 0, model.eqm.shape[0] === 1);
    const seen = { hole: () => damage.holed(picture, hole.mask), small: () => damage.smaller(picture, Number(factor.value)), blur: () => damage.blurred(picture, width.value), grey: () => damage.grey(picture) }[kind]();
    return { seen };
  }
  function show() {
    abort?.abort();
    if (together.children.length) summary.textContent = "The picture or its damage has changed: press Repair for new answers.";
    hole.setBackground(picture);
    if (!picture) return before.replaceChildren(el("p", { class: "muted" }, "No picture yet."));
    const { seen } = damaged();
    before.replaceChildren(...(already.value ? [] : [still("Original", picture)]), still("Damaged", seen, already.value || kind === "small" ? null : psnr(seen, picture)));
  }

  function request() {
    const told = label.value === "none" || label.element.hidden ? null : [label.value];
    const base = { model: model.id, labels: told };
    const body = { ...base, count: count.value, seed: seed.value, preview_every: 1 };
    const { seen, sent, range } = damaged();
    if (kind === "noise") {
      const noise = { ...base, images: [encode(sent)], range: [-range, range], preview_every: 1 };
      const empty = encode(new ImageData(new Uint8ClampedArray(picture.data.length).map((_, i) => (i % 4 === 3 ? 255 : 0)), picture.width));
      return { noise, restore: (deviation) => ({ ...noise, ...body, operator: { name: "inpaint" }, mask: empty, noise: deviation }) };
    }
    const operator = { hole: { name: "inpaint" }, small: { name: "downsample", factor: Number(factor.value) }, blur: { name: "blur", sigma: width.value }, grey: { name: "grey" } }[kind];
    const measure = !already.value && kind !== "hole"; // the server measures the original, without rounding
    const images = [encode(measure ? picture : seen)];
    return { restore: () => ({ ...body, images, operator, measure, ...(kind === "hole" && { mask: hole.png() }) }) };
  }

  async function run() {
    if (!picture) return context.alert("Choose a picture first, or take a sample of the model.");
    if (kind === "hole" && hole.share() === 1) return context.alert("The hole covers the whole picture: erase some of it.");
    if (kind === "hole" && hole.share() === 0) return context.alert("There is no hole yet: paint what is missing.");
    for (const [part, low, high] of [[count, 2, 16], [seed, 0, Number.MAX_SAFE_INTEGER]]) {
      if (!Number.isInteger(part.value) || part.value < low || part.value > high) {
        part.input.focus();
        return context.alert(`${part === count ? "The number of answers" : "The seed"} must be a whole number from ${low} to ${high}.`);
      }
    }
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const truth = already.value ? null : picture;
    const { seen } = damaged();
    const { shape } = model.eqm;
    const films = Array.from({ length: count.value }, (_, k) => film({ title: `answer ${k + 1}`, note: `seed ${seed.value + k}`, shape, curves: false }));
    answers.replaceChildren(...films.map((one) => one.element));
    together.replaceChildren();
    controls.start(films);
    controls.element.hidden = false;
    save.hidden = true;
    cancel.disabled = false;
    results.setAttribute("aria-busy", "true");
    summary.textContent = "Repairing…";
    try {
      const { noise, restore } = request();
      let deviation = unknown.value ? "estimate" : sigma.value;
      const extra = [];
      let said = "";
      if (noise) {
        const [likely, mean] = await Promise.all(["sample", "mmse"].map((aim) => api.post("/v1/denoise", { ...noise, sigma: deviation, aim }, { signal: mine.signal })));
        extra.push(["One descent (looks real)", await decode(likely.samples[0].b64_json)], ["Least squared error (smooth)", await decode(mean.samples[0].b64_json)]);
        if (deviation === "estimate") {
          [deviation] = mean.sigma;
          said = ` The noise was estimated: standard deviation ${short(deviation)}${truth ? `; it is ${sigma.value}` : ""}.`;
        }
      }
      const done = await feed(api, "/v1/restore", restore(deviation), films, { signal: mine.signal, changed: controls.update });
      if (mine !== abort) return;
      await Promise.all(films.map((one) => one.ready()));
      const found = spread(films.map((one) => one.data));
      for (const one of films) if (truth) one.remark(decibels(psnr(one.data, truth)));
      const difference = still("Spread of the answers", found.deviation);
      difference.lastChild.append(el("span", { class: "film-numbers" }, `on average ${(100 * found.size).toFixed(1)} % of the range; black: all agree, white: 50 % or more`));
      together.replaceChildren(still("Mean of the answers", found.mean, truth && psnr(found.mean, truth)), difference,
        ...extra.map(([name, data]) => still(name, data, truth && psnr(data, truth))));
      drawn = [...(truth ? [truth] : []), ...(seen.width === found.mean.width ? [seen] : []), ...films.map((one) => one.data), found.mean, found.deviation];
      summary.textContent = `${films.length} answers in ${short(done.seconds)} s.${said} ${truth ? "PSNR compares with the original: higher is nearer." : "There is no original to compare with."}`;
      context.say("The answers are ready.");
      save.hidden = false;
    } catch (error) {
      mine.abort();
      summary.textContent = api.wasStopped(error) ? "Cancelled." : "No answers came.";
      if (mine === abort) context.alert(error);
    }
    if (mine !== abort) return;
    controls.end();
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
  }
}

const decibels = (value) => (value === Infinity ? "the same as the original" : `PSNR ${value.toFixed(1)} dB`);

/** A picture with its name, and its PSNR where the original is known. */
function still(name, data, quality = null) {
  const canvas = canvasOf(data);
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  return el("figure", { class: "film" }, el("div", { class: "film-face" }, canvas),
    el("figcaption", {}, el("strong", {}, name), quality === null ? null : el("span", { class: "film-numbers" }, decibels(quality))));
}
