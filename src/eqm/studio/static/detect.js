import { el } from "./elements.js";

export const title = "Detect";

export function mount(element, context) {
  element.append(el("p", {}, "This panel is empty so far."));
}
