// Points on a canvas: drawn pixel by pixel from flat arrays, so that 120,000 of them follow the finger without a GPU.
// Coordinates of points and of the view are those of the unit square; places are numbers of points.

const CELLS = 128;
const MOST_ZOOM = 400;
const MANY = 20_000; // above this many points they are squares while the view moves, and discs when it rests
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Places by cell of a grid, so that the nearest one is found without looking at all.
function gridOf(points) {
  const count = points.length / 2;
  const cell = (place) => clamp(Math.floor(points[2 * place] * CELLS), 0, CELLS - 1) + CELLS * clamp(Math.floor(points[2 * place + 1] * CELLS), 0, CELLS - 1);
  const starts = new Uint32Array(CELLS * CELLS + 1);
  for (let place = 0; place < count; place += 1) starts[cell(place) + 1] += 1;
  for (let at = 0; at < CELLS * CELLS; at += 1) starts[at + 1] += starts[at];
  const next = starts.slice();
  const order = new Uint32Array(count);
  for (let place = 0; place < count; place += 1) order[next[cell(place)]++] = place;
  return { starts, order };
}

// Width and height of what the points cover; they lie around the middle of the square.
function extentOf(points) {
  let wide = 0;
  let tall = 0;
  for (let at = 0; at < points.length; at += 2) {
    wide = Math.max(wide, 2 * Math.abs(points[at] - 0.5));
    tall = Math.max(tall, 2 * Math.abs(points[at + 1] - 0.5));
  }
  return [Math.max(0.2, wide), Math.max(0.2, tall)];
}

// A disc of coverage, as offsets and weights of 256.
function disc(radius, width, opacity) {
  const reach = Math.ceil(radius + 0.5);
  const offsets = [];
  const weights = [];
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const weight = Math.round(256 * opacity * clamp(radius + 0.5 - Math.hypot(x, y), 0, 1));
      if (weight > 0) { offsets.push(4 * (y * width + x)); weights.push(weight); }
    }
  }
  return { reach, offsets: Int32Array.from(offsets), weights: Int32Array.from(weights) };
}

export class Plane {
  // `on` has hover(place, x, y), pick(place, event kind) and moved(); places are -1 for none.
  constructor(canvas, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.on = on;
    this.points = new Float32Array(0);
    this.extent = [1, 1];
    this.codes = null; // a colour number per point
    this.colours = [[0, 0, 0]];
    this.shown = null; // Uint8Array: 1 as usual, 0 in the background
    this.hits = []; // places, best first
    this.labels = []; // {x, y, text}, the most important first
    this.marked = -1;
    this.ground = [255, 255, 255];
    this.faint = [200, 200, 200];
    this.ink = "#000";
    this.view = { x: 0.5, y: 0.5, zoom: 1 };
    this.pointers = new Map();
    this.pending = 0;
    this.moving = false;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get count() { return this.points.length / 2; }

  setPoints(points, animate) {
    const before = this.points;
    this.points = points;
    this.grid = gridOf(points);
    this.extent = extentOf(points);
    cancelAnimationFrame(this.gliding);
    if (!animate || before.length !== points.length) { this.draw(); return; }
    const start = performance.now();
    const between = new Float32Array(points.length);
    const step = (now) => {
      const t = clamp((now - start) / 900, 0, 1);
      const share = t * t * (3 - 2 * t);
      for (let at = 0; at < between.length; at += 1) between[at] = before[at] + (points[at] - before[at]) * share;
      this.points = t < 1 ? between : points;
      this.paint(t < 1);
      if (t < 1) this.gliding = requestAnimationFrame(step);
    };
    this.gliding = requestAnimationFrame(step);
  }

  // Draws at the next frame, however often it is asked for.
  draw() {
    if (!this.pending) this.pending = requestAnimationFrame(() => { this.pending = 0; this.paint(this.moving); });
  }

  measure() {
    const box = this.canvas.getBoundingClientRect();
    const ratio = Math.min(this.count > MANY ? 1.5 : 2, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(box.width * ratio));
    const height = Math.max(1, Math.round(box.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height || !this.image) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
    }
    const fitting = Math.min(width / this.extent[0], height / this.extent[1]);
    return { width, height, ratio, scale: 0.94 * fitting * this.view.zoom };
  }

  // Unit square to device pixels.
  place(place, frame) {
    return [
      (this.points[2 * place] - this.view.x) * frame.scale + frame.width / 2,
      (this.points[2 * place + 1] - this.view.y) * frame.scale + frame.height / 2,
    ];
  }

  radius(frame) {
    const area = (frame.width * frame.height) / (frame.ratio * frame.ratio);
    const alone = 0.72 * Math.sqrt((0.25 * area) / (Math.PI * Math.max(1, this.count)));
    return clamp(alone * this.view.zoom ** 0.5, 0.9, 6) * frame.ratio;
  }

  paint(moving = false) {
    const frame = this.measure();
    const pixels = new Uint32Array(this.image.data.buffer);
    const pack = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    pixels.fill(pack(this.ground));
    const radius = this.radius(frame);
    const opacity = this.hits.length ? 0.3 : 0.82;
    if (moving && this.count > MANY) {
      const mixed = (colour, share) => colour.map((value, channel) => value * share + this.ground[channel] * (1 - share));
      const side = Math.max(1, Math.round(1.5 * radius));
      if (this.shown) this.squares(frame, pixels, side, new Uint32Array(256).fill(pack(mixed(this.faint, 0.4))), 0);
      this.squares(frame, pixels, side, Uint32Array.from({ length: 256 }, (_, code) => pack(mixed(this.colours[code] ?? this.colours[0], opacity))), 1);
    } else {
      if (this.shown) this.discs(frame, disc(Math.max(0.7 * frame.ratio, 0.8 * radius), frame.width, 0.3), [this.faint], 0);
      this.discs(frame, disc(radius, frame.width, opacity), this.colours, 1);
    }
    this.context.putImageData(this.image, 0, 0);
    this.overlay(frame, radius);
  }

  // Points that are shown (`shown` 1) or in the background (0), each as a square of one packed colour.
  squares(frame, pixels, side, packed, shown) {
    const { points, codes, view } = this;
    const { width, height, scale } = frame;
    const right = width / 2 - view.x * scale - side / 2;
    const down = height / 2 - view.y * scale - side / 2;
    for (let place = 0; place < points.length / 2; place += 1) {
      if (this.shown !== null && this.shown[place] !== shown) continue;
      const x = Math.round(points[2 * place] * scale + right);
      const y = Math.round(points[2 * place + 1] * scale + down);
      if (x < 0 || y < 0 || x >= width - side || y >= height - side) continue;
      const colour = packed[codes ? codes[place] : 0];
      for (let row = y * width + x, end = row + side * width; row < end; row += width) {
        for (let at = row; at < row + side; at += 1) pixels[at] = colour;
      }
    }
  }

  // The same as discs with soft edges, mixed with what lies below them.
  discs(frame, kernel, colours, shown) {
    const { points, codes, view } = this;
    const data = new Uint8Array(this.image.data.buffer);
    const { offsets, weights, reach } = kernel;
    const { width, height, scale } = frame;
    const right = width / 2 - view.x * scale;
    const down = height / 2 - view.y * scale;
    const several = codes !== null && colours.length > 1;
    for (let place = 0; place < points.length / 2; place += 1) {
      if (this.shown !== null && this.shown[place] !== shown) continue;
      const x = Math.round(points[2 * place] * scale + right);
      const y = Math.round(points[2 * place + 1] * scale + down);
      if (x < reach || y < reach || x >= width - reach || y >= height - reach) continue;
      const [red, green, blue] = colours[several ? codes[place] : 0];
      const start = 4 * (y * width + x);
      for (let at = 0; at < offsets.length; at += 1) {
        const here = start + offsets[at];
        const weight = weights[at];
        data[here] += ((red - data[here]) * weight) >> 8;
        data[here + 1] += ((green - data[here + 1]) * weight) >> 8;
        data[here + 2] += ((blue - data[here + 2]) * weight) >> 8;
      }
    }
  }

  overlay(frame, radius) {
    const pen = this.context;
    const ring = (place, size, width) => {
      const [x, y] = this.place(place, frame);
      pen.beginPath();
      pen.arc(x, y, size, 0, 2 * Math.PI);
      pen.fillStyle = `rgb(${this.colours[this.codes ? this.codes[place] : 0].join(",")})`;
      pen.fill();
      pen.lineWidth = width * frame.ratio;
      pen.strokeStyle = this.ink;
      pen.stroke();
      return [x, y];
    };
    if (!this.hits.length) this.name(frame);
    for (let at = this.hits.length - 1; at >= 0; at -= 1) ring(this.hits[at], Math.max(radius, 3.4 * frame.ratio), 1.1);
    pen.font = `600 ${11 * frame.ratio}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let at = Math.min(10, this.hits.length) - 1; at >= 0; at -= 1) {
      const [x, y] = this.place(this.hits[at], frame);
      pen.beginPath();
      pen.arc(x, y, 8.5 * frame.ratio, 0, 2 * Math.PI);
      pen.fillStyle = this.ink;
      pen.fill();
      pen.fillStyle = `rgb(${this.ground.join(",")})`;
      pen.fillText(String(at + 1), x, y + 0.5 * frame.ratio);
    }
    if (this.marked >= 0 && this.marked < this.count) {
      const [x, y] = this.place(this.marked, frame);
      pen.beginPath();
      pen.arc(x, y, Math.max(radius, 4 * frame.ratio) + 4 * frame.ratio, 0, 2 * Math.PI);
      pen.lineWidth = 2 * frame.ratio;
      pen.strokeStyle = this.ink;
      pen.stroke();
    }
  }

  // Names of regions, each where it does not cover a more important one.
  name(frame) {
    const pen = this.context;
    const size = 13 * frame.ratio;
    const taken = [];
    pen.font = `600 ${size}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 4 * frame.ratio;
    pen.strokeStyle = `rgba(${this.ground.join(",")}, .85)`;
    pen.fillStyle = this.ink;
    for (const { x, y, text } of this.labels) {
      const half = pen.measureText(text).width / 2 + 4 * frame.ratio;
      const right = (x - this.view.x) * frame.scale + frame.width / 2;
      const down = (y - this.view.y) * frame.scale + frame.height / 2;
      if (right < half || right > frame.width - half || down < size || down > frame.height - size) continue;
      if (taken.some((one) => Math.abs(one[0] - right) < one[2] + half && Math.abs(one[1] - down) < 1.4 * size)) continue;
      taken.push([right, down, half]);
      pen.strokeText(text, right, down);
      pen.fillText(text, right, down);
    }
  }

  // The nearest visible place within `reach` pixels of a point of the canvas, or -1.
  nearest(x, y, reach) {
    if (!this.count) return -1;
    const frame = this.measure();
    const ux = (x * frame.ratio - frame.width / 2) / frame.scale + this.view.x;
    const uy = (y * frame.ratio - frame.height / 2) / frame.scale + this.view.y;
    const wide = (reach * frame.ratio) / frame.scale;
    let best = -1;
    let least = wide * wide;
    const consider = (place, favour) => {
      const far = ((this.points[2 * place] - ux) ** 2 + (this.points[2 * place + 1] - uy) ** 2) * favour;
      if (far <= least && (!this.shown || this.shown[place])) { least = far; best = place; }
    };
    const low = (value) => clamp(Math.floor((value - wide) * CELLS), 0, CELLS - 1);
    const high = (value) => clamp(Math.floor((value + wide) * CELLS), 0, CELLS - 1);
    for (let row = low(uy); row <= high(uy); row += 1) {
      for (let column = low(ux); column <= high(ux); column += 1) {
        const cell = row * CELLS + column;
        for (let at = this.grid.starts[cell]; at < this.grid.starts[cell + 1]; at += 1) consider(this.grid.order[at], 1);
      }
    }
    for (const place of this.hits) consider(place, 0.25);
    return best;
  }

  // Up to `most` shown places in view, the nearest to its middle first, and how many there are.
  inView(most) {
    const frame = this.measure();
    const wide = frame.width / 2 / frame.scale;
    const tall = frame.height / 2 / frame.scale;
    const found = [];
    for (let place = 0; place < this.count; place += 1) {
      const x = Math.abs(this.points[2 * place] - this.view.x);
      const y = Math.abs(this.points[2 * place + 1] - this.view.y);
      if (x <= wide && y <= tall && (!this.shown || this.shown[place])) found.push([x * x + y * y, place]);
    }
    const total = found.length;
    found.sort((one, other) => one[0] - other[0]);
    return { places: found.slice(0, most).map(([, place]) => place), total };
  }

  screen(place) {
    const frame = this.measure();
    return this.place(place, frame).map((value) => value / frame.ratio);
  }

  look(view) {
    this.view = { x: clamp(view.x, -0.1, 1.1), y: clamp(view.y, -0.1, 1.1), zoom: clamp(view.zoom, 0.5, MOST_ZOOM) };
    this.moving = true;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => { this.moving = false; this.draw(); }, 140);
    this.draw();
    this.on.moved();
  }

  pan(dx, dy) {
    const frame = this.measure();
    this.look({ ...this.view, x: this.view.x - (dx * frame.ratio) / frame.scale, y: this.view.y - (dy * frame.ratio) / frame.scale });
  }

  // Zoom so that the point (x, y) of the canvas stays where it is.
  zoomAt(x, y, factor) {
    const frame = this.measure();
    const zoom = clamp(this.view.zoom * factor, 0.5, MOST_ZOOM);
    const share = (1 - this.view.zoom / zoom) / frame.scale;
    this.look({ x: this.view.x + (x * frame.ratio - frame.width / 2) * share, y: this.view.y + (y * frame.ratio - frame.height / 2) * share, zoom });
  }

  zoomMiddle(factor) {
    this.look({ ...this.view, zoom: this.view.zoom * factor });
  }

  listen() {
    const canvas = this.canvas;
    const here = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(...here(event), Math.exp(-clamp(event.deltaY * (event.deltaMode ? 30 : 1), -300, 300) / 300));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, here(event));
      this.moved = this.pointers.size > 1;
      this.travel = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = here(event);
      const before = this.pointers.get(event.pointerId);
      if (!before) {
        if (event.pointerType === "mouse") this.on.hover(this.nearest(...now, 14));
        return;
      }
      this.pointers.set(event.pointerId, now);
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const factor = Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1]));
        this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
        this.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, factor);
        return;
      }
      this.travel += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (this.travel > 4) this.moved = true;
      if (this.moved) { this.on.hover(-1); this.pan(now[0] - before[0], now[1] - before[1]); }
    });
    const end = (event) => {
      if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
      if (!this.moved) this.on.pick(this.nearest(...here(event), event.pointerType === "mouse" ? 14 : 24), event);
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.on.hover(-1); });
  }
}
