// Circles on the landscape that can be dragged, or moved with the arrow keys.

import { el } from "./elements.js";
import { EXTENT } from "./plane.js";

export const clamp = (coordinate) => Math.min(Math.max(coordinate, -EXTENT), EXTENT);

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/**
 * A button on the picture `scene`; `put(x, y)` moves it. `kind` is its class, `name` is for screen readers.
 * `move(x, y)` is called when the user moves it, and `remove()`, if given, when the user presses Delete.
 */
export function handle(scene, { kind, name, move, remove = null }) {
  const node = el("button", { type: "button", class: `handle ${kind}` });
  const to = (x, y) => move(clamp(x), clamp(y));
  let at = [0, 0];
  node.put = (x, y) => {
    at = [x, y];
    scene.place(node, x, y);
    const how = `Drag it or press the arrow keys${remove ? "; Delete removes it" : ""}.`;
    node.setAttribute("aria-label", `${name} at ${x.toFixed(1)}, ${y.toFixed(1)}. ${how}`);
  };
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    node.onpointermove = (moved) => to(...scene.toPlane(moved));
  });
  const release = () => { node.onpointermove = null; };
  node.addEventListener("pointerup", release);
  node.addEventListener("pointercancel", release);
  node.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    const removes = remove && (event.key === "Delete" || event.key === "Backspace");
    if (!arrow && !removes) return;
    event.preventDefault();
    if (removes) return remove();
    const by = event.shiftKey ? 0.5 : 0.1;
    to(at[0] + by * arrow[0], at[1] + by * arrow[1]);
  });
  return node;
}
