// Choosing a picture: dropped, chosen, pasted, or a sample of the model; of any size.

import { classSelect } from "./classes.js";
import { button, dropZone, el, field, section } from "./elements.js";
import { bitmapOf, canvasOf, decode, fitted } from "./pictures.js";

const FIRST_SEED = 1000; // of samples that are taken as pictures

/**
 * The choice of a picture: `{element, show(model), at(width, height), take(), stop()}`.
 *
 * `at` returns the middle of the picture at a size as ImageData, or null; the page says what was done to
 * it. `onChange` is called when there is another picture. `panel` is where pictures may be dropped.
 */
export function pictureChoice(context, panel, onChange) {
  let model = null;
  let chosen = null; // {picture, name}
  let seed = FIRST_SEED;
  let abort = null;
  const drop = dropZone({
    label: "Drop, choose or paste a picture", multiple: false, panel, onFiles: ([file]) => open(file),
    help: "Any size: this page crops its middle and resizes it. The picture goes to no other server.",
  });
  const label = classSelect({ label: "Class of the sample", none: "any class" });
  const sample = button("Take a sample of the model", take);
  const source = el("p", { class: "muted", "aria-live": "polite" }, "No picture yet.");
  const inverted = field({ label: "Swap light and dark", type: "checkbox", onInput: onChange });
  const element = section("1. Picture", null, drop,
    el("div", {}, label.element, el("div", { class: "row actions" }, sample)), source, inverted.element);
  element.classList.add("spaced");

  async function open(file) {
    context.clear();
    abort?.abort();
    try {
      chosen = { picture: await bitmapOf(file), name: file.name || "The picture" };
    } catch (error) {
      return context.alert(error);
    }
    onChange();
  }
  async function take() {
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    sample.disabled = true;
    const count = model.eqm.num_classes;
    const any = count ? [(7 * seed) % count] : null; // classes in a mixed order
    const labels = count && label.value !== "none" ? [label.value] : any;
    try {
      const body = { model: model.id, labels, count: 1, seed };
      const { samples: [found] } = await context.api.post("/v1/sample", body, { signal: mine.signal });
      const picture = canvasOf(await decode(found.b64_json));
      if (mine !== abort) return;
      seed += 1;
      chosen = { picture, name: `A sample of ${model.id}${found.label ? `, ${found.label}` : ""}, seed ${found.seed}` };
      onChange();
    } catch (error) {
      if (mine === abort) context.alert(error);
    }
    if (mine === abort) sample.disabled = false;
  }
  return {
    element,
    take,
    get missing() { return chosen === null; },
    stop: () => abort?.abort(),
    show(next) {
      model = next;
      chosen = null;
      label.show(model);
      source.textContent = "No picture yet.";
    },
    at(width, height) {
      if (!chosen) return null;
      const { picture, name } = chosen;
      const grey = model.eqm.shape[0] === 1;
      const cropped = Math.abs(picture.width / picture.height - width / height) > 0.01;
      const resized = picture.width !== width || picture.height !== height;
      const how = `: ${picture.width} × ${picture.height} pixels, ${cropped ? "its middle " : ""}`
        + `resized to ${width} × ${height}`;
      source.textContent = `${name}${resized ? how + (grey ? ", in grey" : "") : ""}.`;
      return fitted(picture, width, height, { grey, inverted: inverted.value });
    },
  };
}
