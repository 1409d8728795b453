// The parts that all panels are made of.

/**
 * An element. `attributes` may hold event listeners (`onclick`), properties such as `value`, and
 * attributes; null, undefined and false leave one out. Children are nodes or text.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "class") element.className = value;
    else if (["value", "checked", "disabled", "hidden", "multiple"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

let number = 0;

/** An id that no other element has. */
export const freshId = (prefix = "id") => `${prefix}-${++number}`;

/**
 * An input with a label and a sentence of help: `{element, input, value, show()}`.
 *
 * `type` is "number", "range", "text", "select", "checkbox" or "textarea". A range shows its value beside
 * the label, through `format`. `options` of a select are `[value, text]` pairs or texts. `value` can be
 * read and set; numbers are numbers, and NaN where the input holds none. `onInput(value)` is called
 * on each change.
 */
export function field({
  label, help, type = "number", value, min, max, step = "any", options = [], unit = "",
  format = (number) => String(number), placeholder, onInput,
}) {
  const id = freshId("field");
  const about = help ? `${id}-help` : null;
  const common = { id, "aria-describedby": about };
  let input;
  if (type === "select") {
    input = el("select", common, options.map((option) => {
      const [key, text] = Array.isArray(option) ? option : [option, option];
      return el("option", { value: key }, text);
    }));
  } else if (type === "textarea") {
    input = el("textarea", { ...common, rows: 2, placeholder, spellcheck: "false" });
  } else if (type === "checkbox") {
    input = el("input", { ...common, type });
  } else {
    const numeric = type === "number" || type === "range";
    input = el("input", {
      ...common, type, placeholder, autocomplete: "off", ...(numeric && { min, max, step }),
    });
  }
  const shown = type === "range" ? el("output", { for: id, class: "shown" }) : null;
  const show = () => {
    if (!shown) return;
    shown.textContent = `${format(input.valueAsNumber)}${unit && ` ${unit}`}`;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  const part = {
    input,
    show,
    get value() {
      if (type === "checkbox") return input.checked;
      return type === "number" || type === "range" ? input.valueAsNumber : input.value;
    },
    set value(next) {
      if (type === "checkbox") input.checked = Boolean(next);
      else input.value = next;
      show();
    },
  };
  if (value !== undefined) part.value = value;
  show();
  input.addEventListener(type === "select" || type === "checkbox" ? "change" : "input", () => {
    show();
    onInput?.(part.value);
  });
  const suffix = unit && type !== "range" ? ` (${unit})` : "";
  const name = el("label", { for: id, class: "name" }, label + suffix);
  const helped = help ? el("span", { id: about, class: "help" }, help) : null;
  part.element = type === "checkbox"
    ? el("div", { class: "field check" }, el("span", { class: "row" }, input, name), helped)
    : el("div", { class: "field" }, el("span", { class: "line" }, name, shown), input, helped);
  return part;
}

/** A button; `kind` is "" (plain), "main" (the one of a panel) or "quiet". */
export function button(text, onclick, { kind = "", ...attributes } = {}) {
  return el("button", { type: "button", class: kind, onclick, ...attributes }, text);
}

/** A part of a panel with a heading; `intro` is a sentence below it. */
export function section(title, intro, ...children) {
  const id = freshId("title");
  return el("section", { class: "card", "aria-labelledby": id },
    el("h2", { id }, title), intro ? el("p", { class: "muted" }, intro) : null, ...children);
}

/** A text that can be opened: for who wants to know more. */
export const more = (title, ...children) =>
  el("details", {}, el("summary", {}, title), el("div", { class: "more" }, ...children));

/** The address of a base64 PNG, for `src`. */
export const pngUrl = (b64) => `data:image/png;base64,${b64}`;

/**
 * A picture with sharp pixels: `{element, image, set(b64, alt), caption}`. `b64` is a PNG, may be left
 * out at first; `alt` says what is on it; `width` is its width on the page in pixels.
 */
export function picture({ b64 = null, alt = "", width = 112, caption = "" } = {}) {
  const image = el("img", { class: "pixels", alt, width, height: width });
  const text = el("figcaption", {}, caption);
  image.hidden = true;
  const set = (next, nextAlt = image.alt) => {
    image.src = pngUrl(next);
    image.alt = nextAlt;
    image.hidden = false;
  };
  if (b64) set(b64);
  return { element: el("figure", { class: "picture" }, image, text), image, set, caption: text };
}

/** Saves `content` (a Blob, text or bytes) as a file. */
export function download(name, content, type = "application/octet-stream") {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The bytes of plain base64. */
export const bytes = (b64) => Uint8Array.from(atob(b64), (letter) => letter.charCodeAt(0));

/** Plain base64 of a file or blob. */
export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

/**
 * A place to choose pictures: calls `onFiles(files)`. They can also be pasted, or dropped anywhere on `panel`,
 * while the place is shown.
 */
export function dropZone({ label, help, panel, multiple = true, accept = "image/*", onFiles }) {
  const id = freshId("drop");
  const take = (files) => files.length && onFiles(multiple ? [...files] : [files[0]]);
  const input = el("input", {
    id, type: "file", accept, multiple, "aria-describedby": help ? `${id}-help` : null,
    onchange: () => { take(input.files); input.value = ""; },
  });
  const zone = el("div", { class: "drop" },
    el("label", { for: id, class: "name" }, label), input,
    help ? el("span", { id: `${id}-help`, class: "help" }, help) : null);
  const isShown = () => zone.offsetParent !== null;
  panel.addEventListener("dragover", () => zone.classList.add("over"));
  panel.addEventListener("dragleave", () => zone.classList.remove("over"));
  panel.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    if (isShown()) take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
    if (!isShown() || !files.length) return;
    event.preventDefault();
    take(files);
  });
  return zone;
}

/** A colour of the page now, such as `colour("--accent")`, for a canvas. */
export function colour(name) {
  const probe = el("span", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Whether the user asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A number in few digits: 0.00312, 12.3, 1,234. */
export function short(value) {
  if (!Number.isFinite(value)) return "infinite";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}
