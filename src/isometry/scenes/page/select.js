// Selecting: boxes and clicks on the flat view, from as many sides as a person likes; the server makes an object of them.

export class Selection {
  constructor(canvas, camera, changed) {
    Object.assign(this, { canvas, camera, changed });
    this.on = false;
    this.strokes = [];
    this.marks = document.getElementById("marks");
    this.from = null;
    // before the pointer that pulls and turns
    canvas.addEventListener("pointerdown", (event) => this.press(event), true);
    canvas.addEventListener("pointermove", (event) => this.drag(event), true);
    canvas.addEventListener("pointerup", (event) => this.lift(event), true);
    canvas.addEventListener("pointercancel", () => { this.from = null; this.draw(); }, true);
    canvas.addEventListener("keydown", (event) => {
      if (this.on && event.key === "Enter") this.click([0.5, 0.5], event.shiftKey);
    });
  }

  start() {
    this.on = true;
    this.clear();
  }

  stop() {
    this.on = false;
    this.clear();
  }

  clear() {
    this.strokes = [];
    this.from = null;
    this.draw();
    this.changed();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const part = (value, low, size) => Math.min(1, Math.max(0, (value - low) / size));
    return [part(event.clientX, box.left, box.width), part(event.clientY, box.top, box.height)];
  }

  // what was drawn on the present view; another view begins another stroke
  stroke() {
    const p = this.camera.position;
    const q = this.camera.quaternion;
    const now = { position: p.toArray(), quaternion: [q.w, q.x, q.y, q.z], field_of_view: this.camera.fov, aspect: this.camera.aspect };
    const last = this.strokes[this.strokes.length - 1];
    if (last && this.same(last, now)) return last;
    const fresh = { ...now, box: null, inside: [], outside: [] };
    this.strokes.push(fresh);
    return fresh;
  }

  same(a, b) {
    return a.aspect === b.aspect && [...a.position, ...a.quaternion].every((v, k) => v === [...b.position, ...b.quaternion][k]);
  }

  press(event) {
    if (!this.on || event.button !== 0) return;
    event.stopImmediatePropagation();
    this.canvas.setPointerCapture(event.pointerId);
    this.from = this.place(event);
    this.to = this.from;
  }

  drag(event) {
    if (!this.on || !this.from) return;
    event.stopImmediatePropagation();
    this.to = this.place(event);
    this.draw();
  }

  lift(event) {
    if (!this.on || !this.from) return;
    event.stopImmediatePropagation();
    const [a, b] = [this.from, this.place(event)];
    this.from = null;
    if (Math.abs(a[0] - b[0]) > 0.02 && Math.abs(a[1] - b[1]) > 0.02) {
      this.stroke().box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
      this.draw();
      this.changed();
    } else {
      this.click(b, event.shiftKey);
    }
  }

  click(place, outside) {
    const stroke = this.stroke();
    const list = outside ? stroke.outside : stroke.inside;
    if (list.length < 32) list.push(place);
    this.draw();
    this.changed();
  }

  // those that say something; the server takes eight
  usable() {
    const short = (key, value) => (typeof value === "number" ? Number(value.toFixed(5)) : value);
    const marked = this.strokes.filter((stroke) => stroke.box || stroke.inside.length).slice(-8);
    return JSON.parse(JSON.stringify(marked, short));
  }

  mark(kind, left, top, right, bottom) {
    const made = document.createElement("div");
    made.className = kind;
    const box = this.canvas.getBoundingClientRect();
    made.style.left = `${box.left + left * box.width}px`;
    made.style.top = `${box.top + top * box.height}px`;
    if (right !== undefined) {
      made.style.width = `${(right - left) * box.width}px`;
      made.style.height = `${(bottom - top) * box.height}px`;
    }
    this.marks.append(made);
  }

  draw() {
    this.marks.replaceChildren();
    this.shown = this.camera.matrixWorld.toArray().join();
    if (this.from) {
      const [a, b] = [this.from, this.to];
      this.mark("box", Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1]));
    }
    const last = this.strokes[this.strokes.length - 1];
    if (!last) return;
    if (last.box) this.mark("box", ...last.box);
    last.inside.forEach((place) => this.mark("inside", ...place));
    last.outside.forEach((place) => this.mark("outside", ...place));
  }

  // marks belong to the view they were drawn on
  update() {
    if (this.on && this.marks.childElementCount && this.shown !== this.camera.matrixWorld.toArray().join()) this.marks.replaceChildren();
  }
}
