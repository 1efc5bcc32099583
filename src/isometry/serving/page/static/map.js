// The map tab: asks how the map stands, fetches points, colours and hits, and keeps a table of what is seen.

import * as api from "./api.js";
import { element, recordAddress, titleOf } from "./cards.js";
import { coloursOf, css } from "./palette.js";
import { Plane } from "./plane.js";
import { filterOf } from "./state.js";

const MOST_ROWS = 50;
const at = (id) => document.getElementById(id);
const number = (value) => Number(value).toLocaleString("en");
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function bytes(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

function bits(text, count) {
  const packed = bytes(text);
  return Uint8Array.from({ length: count }, (_, place) => (packed[place >> 3] >> (7 - (place & 7))) & 1);
}

export class MapTab {
  // `change(changes, step)` changes the state of the page.
  constructor(settings, change) {
    this.settings = settings;
    this.change = change;
    this.open = false;
    this.key = null;
    this.colours = null;
    this.coloured = "";
    this.found = null;
    this.asked = null;
    this.known = new Map(); // records by place
    this.timer = 0;
    this.plane = new Plane(at("map"), {
      hover: (place) => {
        at("map-tip").classList.remove("touch");
        this.mark(place);
      },
      pick: (place, event) => this.pick(place, event),
      moved: () => this.moved(),
    });
    this.controls();
    this.theme();
    new MutationObserver(() => this.theme()).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.theme());
  }

  async show(state) {
    this.state = state;
    if (!this.open) {
      this.open = true;
      this.look(state.at);
    } else if (state.at !== this.written) this.look(state.at);
    at("colour-by").value = state.colour;
    await this.refresh();
  }

  hide() {
    this.open = false;
    clearTimeout(this.timer);
    this.running?.abort();
    this.mark(-1);
  }

  look(text) {
    const [x, y, zoom] = (text || "0.5,0.5,1").split(",").map(Number);
    this.written = text;
    this.plane.view = [x, y, zoom].every(Number.isFinite) && zoom > 0 ? { x, y, zoom } : { x: 0.5, y: 0.5, zoom: 1 };
    this.plane.draw();
  }

  async refresh() {
    this.running?.abort();
    const own = (this.running = new AbortController());
    clearTimeout(this.timer);
    try {
      const standing = await api.map(this.settings.name, own.signal);
      if (own !== this.running) return;
      this.said(standing);
      if (standing.key !== null && standing.key !== this.key) await this.load(standing, own.signal);
      if (this.key !== null) await this.fill(own.signal);
      if (own === this.running && this.open && standing.state === "working") this.timer = setTimeout(() => this.refresh(), 1200);
    } catch (error) {
      if (error.name === "AbortError" || own !== this.running) return;
      at("map-note").textContent = error.message;
      at("map-note").classList.add("error");
    }
  }

  said(standing) {
    const note = at("map-note");
    note.classList.remove("error");
    const made = { umap: "UMAP", pca: "PCA" };
    const parts = [];
    if (standing.key === null) parts.push(standing.problem ? `The map could not be made: ${standing.problem}` : "Reading the vectors…");
    else if (standing.points === 0) parts.push("There is nothing to show yet.");
    else {
      parts.push(`${number(standing.points)} ${standing.points === 1 ? "record" : "records"}, placed by ${made[standing.method]}`);
      if (standing.arranged < standing.points) parts.push(`${number(standing.arranged)} of them arranged, the others at their nearest ones`);
      if (!standing.current && standing.state !== "working") parts.push("of an earlier version");
    }
    const working = standing.state === "working";
    if (working && standing.key !== null) parts.push(standing.method === standing.making ? "a newer map is being made" : `${made[standing.making]} is on its way`);
    if (standing.problem && standing.key !== null) parts.push(standing.problem);
    note.textContent = parts.join(" · ");
    const bar = at("map-progress");
    bar.hidden = !working;
    if (standing.percent > 0) bar.value = standing.percent; else bar.removeAttribute("value");
  }

  async load(standing, signal) {
    const buffer = await api.mapPoints(this.settings.name, standing.key, signal);
    const whole = new Uint16Array(buffer);
    const points = Float32Array.from(whole, (value) => value / 65535);
    this.known.clear();
    this.colours = null;
    this.asked = null;
    this.plane.codes = null;
    this.plane.shown = null;
    this.plane.hits = [];
    this.mark(-1);
    const again = this.key !== null;
    this.key = standing.key;
    this.plane.setPoints(points, again && !calm());
  }

  async fill(signal) {
    const { state, settings } = this;
    const where = filterOf(state, settings);
    const query = state.query.trim();
    const asked = JSON.stringify([this.key, query, query ? state.mode : "", query ? "" : state.like, where]);
    const wanted = settings.colours.find((one) => one.key === state.colour);
    const fetched = await Promise.all([
      this.coloured === this.key + state.colour && this.colours ? this.colours
        : wanted ? api.mapColours(settings.name, this.key, wanted, signal) : { kind: null, categories: [] },
      this.asked === asked ? this.found : api.mapFound(settings.name, this.key, { query, mode: state.mode, like: query ? "" : state.like, where }, signal),
    ]);
    [this.colours, this.found] = fetched;
    this.coloured = this.key + state.colour;
    this.asked = asked;
    this.apply();
    await this.table(signal);
  }

  // Colours, what is in the background, and hits, onto the plane.
  apply() {
    const { plane, colours, found, state } = this;
    plane.codes = colours.kind ? bytes(colours.codes) : null;
    plane.colours = coloursOf(colours.kind);
    const code = this.onlyCode();
    let shown = found.passing === null ? null : bits(found.passing, plane.count);
    if (code !== null && plane.codes) shown = Uint8Array.from(plane.codes, (one, place) => (one === code && (!shown || shown[place]) ? 1 : 0));
    plane.shown = shown;
    plane.hits = found.hits.map((hit) => hit.place).filter((place) => !shown || shown[place]);
    plane.labels = colours.kind === "category" ? this.regions() : [];
    plane.draw();
    this.legend(state);
  }

  // A name for each category where its points are densest; a category that lies all over has no such place.
  regions() {
    const { points, codes } = this.plane;
    const cells = 24;
    return this.colours.categories.flatMap(({ value, count }, code) => {
      const held = new Float32Array(3 * cells * cells);
      for (let place = 0; place < codes.length; place += 1) {
        if (codes[place] !== code) continue;
        const [x, y] = [points[2 * place], points[2 * place + 1]];
        const cell = 3 * (Math.min(cells - 1, Math.floor(x * cells)) + cells * Math.min(cells - 1, Math.floor(y * cells)));
        held[cell] += 1; held[cell + 1] += x; held[cell + 2] += y;
      }
      let best = [0, 0, 0];
      for (let row = 0; row < cells; row += 1) {
        for (let column = 0; column < cells; column += 1) {
          const sum = [0, 0, 0];
          for (let down = Math.max(0, row - 1); down <= Math.min(cells - 1, row + 1); down += 1) {
            for (let right = Math.max(0, column - 1); right <= Math.min(cells - 1, column + 1); right += 1) {
              for (let part = 0; part < 3; part += 1) sum[part] += held[3 * (down * cells + right) + part];
            }
          }
          if (sum[0] > best[0]) best = sum;
        }
      }
      return best[0] >= Math.max(3, 0.06 * count) ? [{ x: best[1] / best[0], y: best[2] / best[0], text: String(value).slice(0, 28) }] : [];
    });
  }

  onlyCode() {
    if (!this.state.only || this.colours.kind !== "category") return null;
    const place = this.colours.categories.findIndex((one) => String(one.value) === this.state.only);
    return place < 0 ? null : place;
  }

  legend(state) {
    const { colours } = this;
    const palette = this.plane.colours;
    const box = at("legend");
    if (!colours.kind) { box.replaceChildren(); return; }
    if (colours.kind === "category") {
      const swatch = (code) => { const made = element("i", { className: "swatch" }); made.style.background = css(palette[code]); return made; };
      const entries = colours.categories.map((one, code) => {
        const value = String(one.value);
        const button = element("button", { type: "button", className: "key", title: `Show only ${value}` }, swatch(code), value, " ", element("span", { className: "count", textContent: number(one.count) }));
        button.setAttribute("aria-pressed", String(state.only === value));
        button.addEventListener("click", () => this.change({ only: state.only === value ? "" : value }));
        return button;
      });
      const rest = [[254, colours.other, "other"], [255, colours.missing, "no value"]].filter(([, count]) => count)
        .map(([code, count, name]) => element("span", { className: "key" }, swatch(code), name, " ", element("span", { className: "count", textContent: number(count) })));
      box.replaceChildren(...entries, ...rest);
      return;
    }
    const bar = element("i", { className: "scale" });
    bar.style.background = `linear-gradient(to right, ${[0, 63, 126, 190, 253].map((code) => css(palette[code])).join(", ")})`;
    const end = (value) => (value === null ? "–" : typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(3) : String(value));
    box.replaceChildren(element("span", { className: "key" }, end(colours.low), bar, end(colours.high)),
      ...(colours.missing ? [element("span", { className: "key", textContent: `${number(colours.missing)} without a value` })] : []));
  }

  async records(places, signal) {
    const missing = places.filter((place) => !this.known.has(place));
    if (missing.length) {
      for (const one of await api.mapRecords(this.settings.name, this.key, missing, signal)) this.known.set(one.place, one);
      if (this.known.size > 4000) this.known = new Map([...this.known].slice(-2000));
    }
    return places.map((place) => this.known.get(place)).filter(Boolean);
  }

  async table(signal) {
    const { plane, settings } = this;
    const ranked = plane.hits.length > 0;
    const view = ranked ? { places: plane.hits.slice(0, MOST_ROWS), total: plane.hits.length } : plane.inView(MOST_ROWS);
    const records = await this.records(view.places, signal);
    at("map-table-title").textContent = ranked ? `The ${number(view.places.length)} best on the map`
      : view.total > view.places.length ? `${number(view.places.length)} of the ${number(view.total)} in view, the nearest to its middle` : `${number(view.total)} in view`;
    at("map-rows").classList.toggle("unranked", !ranked);
    const focused = document.activeElement?.closest?.("#map-rows a")?.href;
    at("map-rows").replaceChildren(...records.map((one, place) => {
      const link = element("a", { href: recordAddress(settings.name, one.id), textContent: titleOf(settings, one) });
      const row = element("tr", {}, element("td", { className: "rank", textContent: ranked ? String(place + 1) : "" }), element("td", {}, link),
        element("td", { className: "when", textContent: settings.date ? String(one.record[settings.date] ?? "").slice(0, 10) : "" }));
      if (plane.codes) row.firstChild.style.boxShadow = `inset 4px 0 ${css(plane.colours[plane.codes[one.place]])}`;
      const mark = () => { plane.marked = one.place; plane.draw(); };
      row.addEventListener("pointerenter", mark);
      row.addEventListener("pointerleave", () => { plane.marked = -1; plane.draw(); });
      link.addEventListener("focus", mark);
      return row;
    }));
    if (focused) [...at("map-rows").querySelectorAll("a")].find((link) => link.href === focused)?.focus();
  }

  // A ring around a point and its title beside it; -1 for none.
  async mark(place) {
    const tip = at("map-tip");
    if (place < 0) {
      this.plane.marked = -1;
      this.plane.draw();
      tip.hidden = true;
      this.plane.canvas.classList.remove("over");
      return;
    }
    const fresh = this.plane.marked !== place;
    this.plane.marked = place;
    this.plane.canvas.classList.add("over");
    this.plane.draw();
    if (!fresh && !tip.hidden) return;
    let one;
    try {
      if (!this.known.has(place)) await new Promise((done) => { setTimeout(done, 40); });
      if (this.plane.marked !== place) return;
      [one] = await this.records([place]);
    } catch { return; }
    if (this.plane.marked !== place || !one) return;
    const { settings } = this;
    const about = [settings.date ? String(one.record[settings.date] ?? "").slice(0, 10) : "", ...settings.chips.flatMap((column) => one.record[column] ?? [])].filter(Boolean).join(" · ");
    const link = element("a", { href: recordAddress(settings.name, one.id), textContent: titleOf(settings, one), tabIndex: -1 });
    tip.replaceChildren(link, ...(about ? [element("span", { textContent: about })] : []));
    tip.hidden = false;
    const [x, y] = this.plane.screen(place);
    const box = this.plane.canvas.getBoundingClientRect();
    const width = Math.min(tip.offsetWidth, box.width - 8);
    tip.style.left = `${Math.max(4, Math.min(box.width - width - 4, x - width / 2))}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight < box.height ? y + 16 : Math.max(4, y - 14 - tip.offsetHeight)}px`;
  }

  // A click opens the record; a finger first shows what it is, then opens it by the link in the tip.
  async pick(place, event) {
    if (place >= 0 && event.pointerType === "mouse") this.openRecord(place, event.ctrlKey || event.metaKey);
    else {
      at("map-tip").classList.toggle("touch", event.pointerType !== "mouse");
      await this.mark(place);
    }
  }

  async openRecord(place, apart) {
    const [one] = await this.records([place]);
    if (!one) return;
    const address = recordAddress(this.settings.name, one.id);
    if (apart) window.open(address, "_blank", "noopener"); else location.href = address;
  }

  moved() {
    if (!this.open) return;
    clearTimeout(this.settle);
    at("map-tip").hidden = true;
    this.settle = setTimeout(() => {
      const { x, y, zoom } = this.plane.view;
      const home = Math.abs(x - 0.5) < 1e-3 && Math.abs(y - 0.5) < 1e-3 && Math.abs(zoom - 1) < 1e-3;
      this.written = home ? "" : [x.toFixed(4), y.toFixed(4), zoom.toPrecision(3)].join(",");
      this.change({ at: this.written }, "quiet");
      this.state = { ...this.state, at: this.written };
      if (this.key !== null && this.found) this.table().catch(() => {});
      if (document.activeElement === this.plane.canvas && this.plane.canvas.matches(":focus-visible")) this.aim();
    }, 250);
  }

  // With the keyboard the point nearest the middle is the chosen one.
  aim() {
    const box = this.plane.canvas.getBoundingClientRect();
    this.mark(this.plane.nearest(box.width / 2, box.height / 2, Math.max(box.width, box.height)));
  }

  home() { this.plane.look({ x: 0.5, y: 0.5, zoom: 1 }); }

  theme() {
    const style = getComputedStyle(document.documentElement);
    const rgb = (name) => [1, 3, 5].map((place) => Number.parseInt(style.getPropertyValue(name).trim().slice(place, place + 2), 16));
    this.plane.ground = rgb("--raised");
    this.plane.faint = rgb("--faint");
    this.plane.ink = style.getPropertyValue("--ink").trim();
    if (this.colours) { this.plane.colours = coloursOf(this.colours.kind); this.legend(this.state); }
    this.plane.draw();
  }

  controls() {
    at("colour-by").addEventListener("change", (event) => this.change({ colour: event.target.value, only: "" }));
    at("zoom-in").addEventListener("click", () => this.plane.zoomMiddle(1.6));
    at("zoom-out").addEventListener("click", () => this.plane.zoomMiddle(1 / 1.6));
    at("zoom-home").addEventListener("click", () => this.home());
    const { canvas } = this.plane;
    canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible") && this.key !== null) this.aim(); });
    canvas.addEventListener("blur", (event) => { if (!at("map-tip").contains(event.relatedTarget)) this.mark(-1); });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = 0.18 * Math.min(canvas.clientWidth, canvas.clientHeight);
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) this.plane.pan(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.plane.zoomMiddle(1.6);
      else if (event.key === "-") this.plane.zoomMiddle(1 / 1.6);
      else if (event.key === "0") this.home();
      else if (event.key === "Enter" && this.plane.marked >= 0) this.openRecord(this.plane.marked, false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
}
