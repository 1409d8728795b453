// The frame of the page: tabs, the choice of the model, light and dark, messages.

import * as api from "./api.js";
import { el } from "./elements.js";

export * from "./elements.js";

// name in the address, text of the tab, module; a panel exports `title` and `mount(element, context)`
const PANELS = [
  ["landscape", "Landscape", () => import("./landscape.js")],
  ["draw", "Draw", () => import("./draw.js")],
  ["compose", "Compose", () => import("./compose.js")],
  ["repair", "Repair", () => import("./repair.js")],
  ["detect", "Detect", () => import("./detect.js")],
  ["train", "Train", () => import("./train.js")],
];

const $ = (id) => document.getElementById(id);
let models = [];
let chosen = null;
const watchers = new Set();

/** What a panel gets. */
const context = {
  api,
  /** The chosen model, an item of GET /v1/models, or null. */
  get model() { return chosen; },
  /** All models. */
  get models() { return models; },
  /** Calls `watcher(model)` now and on each change; returns a function that ends it. */
  onModel(watcher) {
    watchers.add(watcher);
    watcher(chosen);
    return () => watchers.delete(watcher);
  },
  /** Says a short sentence to screen readers, such as "4 pictures are ready." */
  say(sentence) { $("status").textContent = sentence; },
  /** Shows an error (or a sentence) above the panel; an AbortError shows nothing. */
  alert(error) {
    if (api.wasStopped(error)) return;
    const sentence = typeof error === "string" ? error : error.message;
    $("alert").replaceChildren(
      el("span", {}, sentence),
      el("button", { type: "button", class: "quiet", onclick: context.clear, "aria-label": "Close this message" }, "×"),
    );
    $("alert").hidden = false;
  },
  /** Removes the shown error. */
  clear() { $("alert").hidden = true; $("alert").replaceChildren(); },
};

// A panel has another id than its address, so that the browser does not jump to it.
function buildTabs() {
  const list = document.querySelector(".tabs");
  for (const [name, text] of PANELS) {
    list.append(el("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "aria-selected": "false",
      tabindex: "-1", onclick: () => (location.hash === `#${name}` ? route() : (location.hash = name)),
    }, text));
    $("panels").append(el("div", {
      role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, class: "panel", hidden: true,
    }));
  }
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.children];
    const here = tabs.indexOf(document.activeElement);
    const to = {
      ArrowRight: (here + 1) % tabs.length,
      ArrowLeft: (here - 1 + tabs.length) % tabs.length,
      Home: 0,
      End: tabs.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[to].focus();
    tabs[to].click();
  });
}

const mounted = new Map();

/** Shows the panel of the address; its module is loaded the first time. */
async function route() {
  const asked = location.hash.slice(1);
  const [name, text, load] = PANELS.find(([known]) => known === asked) ?? PANELS[0];
  for (const [other] of PANELS) {
    const tab = $(`tab-${other}`);
    const here = other === name;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    const panel = $(`panel-${other}`);
    if (panel.hidden !== here) continue;
    panel.hidden = !here;
    panel.dispatchEvent(new CustomEvent(here ? "show" : "hide"));
  }
  $(`tab-${name}`).scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `${text} · eqm studio`;
  context.clear();
  if (!mounted.has(name)) mounted.set(name, mount(name, load));
  await mounted.get(name);
}

async function mount(name, load) {
  const panel = $(`panel-${name}`);
  panel.setAttribute("aria-busy", "true");
  try {
    const module = await load();
    panel.replaceChildren(el("h1", {}, module.title));
    await module.mount(panel, context);
  } catch (error) {
    console.error(error);
    context.alert("This panel could not be loaded. Is the server still running? Reload the page to try again.");
    mounted.delete(name);
  }
  panel.removeAttribute("aria-busy");
}

async function loadModels() {
  try {
    models = (await api.get("/v1/models")).data;
  } catch (error) {
    context.alert(error);
    return;
  }
  const select = $("model");
  select.replaceChildren(...models.map(({ id }) => el("option", { value: id }, id)));
  select.disabled = models.length === 0;
  const kept = sessionStorage.getItem("eqm-model");
  if (models.some(({ id }) => id === kept)) select.value = kept;
  const choose = () => {
    chosen = models.find(({ id }) => id === select.value) ?? null;
    if (chosen) sessionStorage.setItem("eqm-model", chosen.id);
    $("model-facts").textContent = chosen ? facts(chosen) : "";
    for (const watcher of watchers) watcher(chosen);
  };
  select.addEventListener("change", choose);
  choose();
}

function facts({ eqm }) {
  const shape = eqm?.shape ?? [];
  const kind = { 1: "grey ", 3: "colour " }[shape[0]] ?? "";
  const parts = shape.length === 3 ? [`${kind}pictures of ${shape[2]} × ${shape[1]} pixels`] : [];
  if (eqm?.num_classes) parts.push(`${eqm.num_classes} classes`);
  return parts.join(", ");
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Shows the page in light or dark; panels that draw on a canvas hear the event "theme". */
function showTheme() {
  const kept = localStorage.getItem("eqm-theme");
  const dark = kept ? kept === "dark" : DARK.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", dark ? "Switch to light colours" : "Switch to dark colours");
  document.dispatchEvent(new CustomEvent("theme"));
}

function start() {
  showTheme();
  DARK.addEventListener("change", showTheme);
  $("theme").addEventListener("click", () => {
    localStorage.setItem("eqm-theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    showTheme();
  });
  buildTabs();
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says which panel is shown
    $("panels").focus();
  });
  window.addEventListener("hashchange", route);
  // otherwise the browser leaves the page for a file that is dropped on it
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  route();
  loadModels();
}

start();
