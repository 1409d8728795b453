// What makes a page hard to use, as sentences. The tests call it in the browser.
() => {
  const found = [];
  const name = (element) => {
    const id = element.id ? `#${element.id}` : "";
    const text = (element.getAttribute("aria-label") ?? element.textContent).trim().slice(0, 30);
    return `${element.localName}${id}.${element.getAttribute("class") ?? ""} "${text}"`;
  };
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

  // Colours, as the browser paints them.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, k) => value * a + below[k] * (1 - a));
  const backdrop = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null; // text on a picture is not measured
      layers.unshift(rgba(style.backgroundColor));
    }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const brightness = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, two) => {
    const [low, high] = [brightness(one), brightness(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const opacity = (element) => {
    let product = 1;
    for (let at = element; at; at = at.parentElement) product *= Number(getComputedStyle(at).opacity);
    return product;
  };

  // Text: 4.5 to 1, large text 3 to 1 (WCAG 2.2, 1.4.3). Disabled controls are exempt.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !seen(element) || element.closest("script, style, option, .unseen, .skip, :disabled")) continue;
    const style = getComputedStyle(element);
    const below = backdrop(element);
    if (!below) continue;
    const [r, g, b, a] = rgba(element instanceof SVGElement ? style.fill : style.color);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = contrast(over([r, g, b, a * opacity(element)], below), below);
    if (ratio < (large ? 3 : 4.5)) found.push(`${name(element)}: the contrast of its text is ${ratio.toFixed(2)}`);
  }

  // Controls: an edge or a face that stands out 3 to 1, unless their text alone makes them (1.4.11); 24 pixels (2.5.8).
  const pictured = (control) => control.querySelector("img, canvas") || getComputedStyle(control, "::before").content !== "none";
  for (const control of document.querySelectorAll("input, select, textarea, button:not([role=tab], .quiet)")) {
    if (!seen(control) || control.disabled || pictured(control) || ["range", "checkbox", "radio", "file"].includes(control.type)) continue;
    const style = getComputedStyle(control), around = backdrop(control.parentElement);
    if (!around) continue;
    const border = parseFloat(style.borderTopWidth) >= 1 ? style.borderTopColor : "transparent";
    const [edge, face] = [border, style.backgroundColor].map((colour) => contrast(over(rgba(colour), around), around));
    if (Math.max(edge, face) < 3) found.push(`${name(control)}: its edge has a contrast of ${edge.toFixed(2)}`);
  }
  for (const control of document.querySelectorAll("input, select, textarea, button, summary")) {
    if (!seen(control)) continue;
    const label = control.closest("label") ?? control.labels?.[0];
    const boxes = [control, label].filter(Boolean).map((each) => each.getBoundingClientRect());
    if (!boxes.some(({ width, height }) => width >= 24 && height >= 24)) {
      if (!["checkbox", "radio"].includes(control.type)) found.push(`${name(control)}: it is smaller than 24 pixels`);
    }
  }

  // Structure: one heading of each level after the other, ids that are there once, references that lead somewhere.
  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((each) => Number(each.localName[1]));
  if (headings.filter((level) => level === 1).length !== 1) found.push(`there must be one h1: ${headings}`);
  headings.forEach((level, k) => { if (k && level > headings[k - 1] + 1) found.push(`a heading leaves out a level: ${headings}`); });
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of new Set(ids.filter((each, k) => ids.indexOf(each) !== k))) found.push(`the id ${id} is there twice`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(/\s+/)) {
        if (!document.getElementById(id)) found.push(`${name(element)}: ${attribute} names ${id}, which is missing`);
      }
    }
  }

  // Width: nothing sticks out to the right.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll("#panels *")].filter((each) => seen(each) && each.getBoundingClientRect().right > width + 1);
    found.push(`the page scrolls to the side, because of ${wide.slice(0, 3).map(name).join("; ") || "the frame"}`);
  }
  return [...new Set(found)];
}
