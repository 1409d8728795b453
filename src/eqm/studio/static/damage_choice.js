// Choosing how a picture is damaged.

import { blurred, grey, holed, noisy, smaller } from "./damage.js";
import { button, el, field, section } from "./elements.js";
import { painting } from "./painting.js";
import { encode } from "./pictures.js";

const KINDS = { noise: "Noise", hole: "Hole", small: "Too small", blur: "Blur", grey: "No colour" };
const FACTORS = [2, 3, 4, 5, 7, 8, 14, 16];

/**
 * The choice of a damage: `{element, show(model), apply(picture, seed), measurement(picture, damaged), ...}`.
 *
 * `apply` returns {seen}, and for noise also {sent, range}; `measurement` the part of a request to
 * `/v1/restore` that describes it. `onChange` is called after each change.
 */
export function damageChoice(onChange) {
  let kind = "noise";
  let model = null;
  const kinds = el("div", { class: "row", role: "group", "aria-label": "Kind of damage" },
    Object.entries(KINDS).map(([name, text]) => button(text, () => choose(name), { "data-kind": name })));
  const sigma = field({
    label: "Noise", type: "range", value: 0.5, min: 0.05, max: 2, step: 0.05, onInput: onChange,
    format: (value) => `standard deviation ${value}`, help: "Black is −1 and white is 1.",
  });
  const unknown = field({ label: "The model is not told how much noise there is", type: "checkbox", onInput: onChange });
  const hole = painting({
    label: "Hole: paint what is missing", painted: "the hole", width: 1, height: 1, onInput: onChange,
  });
  const factor = field({ label: "Smaller by", type: "select", onInput: onChange });
  const width = field({
    label: "Blur", type: "range", value: 1.5, min: 0.5, max: 4, step: 0.1, onInput: onChange,
    format: (value) => `standard deviation ${value} pixels`,
  });
  const already = field({
    label: "The picture is damaged already", type: "checkbox",
    help: "Nothing is added, and there is no original to compare with.",
    onInput(on) {
      unknown.value = on;
      onChange();
    },
  });
  const parts = { noise: [sigma, unknown], hole: [hole], small: [factor], blur: [width], grey: [] };
  const fields = [...Object.values(parts).flat(), already].map((part) => part.element);
  const element = section("2. Damage", null, kinds, fields);
  element.classList.add("spaced");

  function choose(name) {
    kind = name;
    for (const each of kinds.children) each.setAttribute("aria-pressed", String(each.dataset.kind === kind));
    for (const [other, own] of Object.entries(parts)) {
      for (const part of own) part.element.hidden = other !== kind;
    }
    onChange();
  }
  return {
    element,
    get already() { return already.value; },
    get isNoise() { return kind === "noise"; },
    /** The standard deviation of the noise, in values of -1..1. */
    get sigma() { return sigma.value; },
    /** Whether the model has to estimate it. */
    get unknown() { return unknown.value; },
    show(next) {
      model = next;
      const [channels, height, wide] = model.eqm.shape;
      hole.resize(wide, height);
      hole.fillMiddle();
      const factors = FACTORS.filter((each) => wide % each === 0 && height % each === 0 && each < Math.min(wide, height));
      factor.input.replaceChildren(...factors.map((each) =>
        el("option", { value: each }, `${each} times: ${wide / each} × ${height / each} pixels`)));
      kinds.querySelector("[data-kind=grey]").hidden = channels !== 3;
      kinds.querySelector("[data-kind=small]").hidden = factors.length === 0;
      choose("noise");
    },
    /** The width and height of the picture that is wanted. */
    size() {
      const [, height, wide] = model.eqm.shape;
      const share = already.value && kind === "small" ? Number(factor.value) : 1;
      return [wide / share, height / share];
    },
    /** Shows a picture below the hole. */
    setBackground: (picture) => hole.setBackground(picture),
    /** What is wrong with the choice, a sentence, or null. */
    problem() {
      if (kind !== "hole" || (hole.share() > 0 && hole.share() < 1)) return null;
      if (hole.share()) return "The hole covers the whole picture: erase some of it.";
      return "There is no hole yet: paint what is missing.";
    },
    apply(picture, seed) {
      if (kind === "hole") return { seen: holed(picture, hole.mask) };
      if (already.value) return { seen: picture, sent: picture, range: 1 };
      if (kind === "noise") return noisy(picture, sigma.value, seed, model.eqm.shape[0] === 1);
      if (kind === "small") return { seen: smaller(picture, Number(factor.value)) };
      return { seen: kind === "blur" ? blurred(picture, width.value) : grey(picture) };
    },
    measurement(picture, { seen, sent, range }) {
      if (kind === "noise") {
        const nothing = new ImageData(picture.width, picture.height);
        for (let i = 3; i < nothing.data.length; i += 4) nothing.data[i] = 255;
        return { images: [encode(sent)], range: [-range, range], operator: { name: "inpaint" }, mask: encode(nothing) };
      }
      if (kind === "hole") return { images: [encode(seen)], operator: { name: "inpaint" }, mask: hole.png() };
      const operator = {
        small: { name: "downsample", factor: Number(factor.value) },
        blur: { name: "blur", sigma: width.value },
        grey: { name: "grey" },
      }[kind];
      // the server measures an original itself: `seen` is rounded
      return { images: [encode(picture)], operator, measure: !already.value };
    },
  };
}
