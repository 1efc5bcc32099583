// The page: joins the line to the server, the splats, the hands and the panel.

import * as THREE from "/vendor/three/three.module.min.js";
import { Controllers, Hands, Orbit, Pointer } from "/hands.js";
import { Link } from "/link.js";
import { Selection } from "/select.js";
import { Splats } from "/splats.js";

const $ = (id) => document.getElementById(id);
const many = (count) => count.toLocaleString("en");
const say = (sentence) => { $("sentence").textContent = sentence; };
const query = location.search;
const state = { tick: -1, frames: 0, hello: null, splats: null, hands: null, link: null, chosen: -1, status: {}, xr: false, errors: [], heard: Promise.resolve() };
window.isometry = state;

const TYPES = { "<f4": Float32Array, "<i4": Int32Array, "<u4": Uint32Array, "<f2": Uint16Array, "|u1": Uint8Array };

function start() {
  const canvas = $("view");
  const context = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "high-performance" });
  if (!context) {
    say("This browser has no WebGL 2, so the scene cannot be drawn here; 'isometry scene simulate' makes a video without it.");
    return;
  }
  const renderer = new THREE.WebGLRenderer({ canvas, context, antialias: false });
  renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
  renderer.xr.enabled = true;
  renderer.autoClear = false;
  Object.assign(state, { renderer, scene: new THREE.Scene(), rig: new THREE.Group() });
  state.camera = new THREE.PerspectiveCamera(45, 1, 0.05, 200);
  state.rig.add(state.camera);
  state.scene.add(state.rig);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  state.link = new Link(`${scheme}//${location.host}/session${query}`, {
    // one after the other: loading takes a while
    text: (message) => { state.heard = state.heard.then(() => hear(message)).catch((error) => console.error(error)); },
    frame: receive,
    lost: (wait) => {
      if (state.hands) state.hands.drop();
      say(`The connection is lost; trying again in ${(wait / 1000).toFixed(1)} s.`);
    },
  });
  offerHeadset();
}

async function hear(message) {
  if (message.type === "hello") {
    state.status = message;
    const known = state.hello;
    if (!known || known.scene !== message.scene || known.bytes !== message.bytes || known.edition !== message.edition) await load(message);
    if (message.may_act) say(state.hello && !state.hello.objects.length ? "Nothing here is an object yet: choose Select… and drag a box around a thing." : message.warnings.join(" "));
    else say("Four people are acting already: you can watch.");
    showStatus();
  } else if (message.type === "status") {
    Object.assign(state.status, message);
    showStatus();
  } else if (message.type === "grabbed" && state.hands) {
    state.hands.grabbed(message);
    if (message.object !== null) choose(message.object);
  } else if (message.type === "busy") {
    say(message.message);
  } else if (message.type === "selected") {
    say("");
    if (message.object !== null) choose(message.object);
  } else if (message.type === "error") {
    state.errors.push(message.message);
    say(message.message);
  }
}

async function load(hello) {
  const answer = await fetch(`/binding${query}`);
  const buffer = await answer.arrayBuffer();
  if (buffer.byteLength !== hello.bytes) return; // a newer division is on its way, with a hello of its own
  const arrays = {};
  for (const { name, type, shape, offset } of hello.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = count * TYPES[type].BYTES_PER_ELEMENT;
    arrays[name] = new TYPES[type](buffer.slice(offset, offset + bytes));
  }
  if (state.splats) {
    state.scene.remove(state.splats.mesh);
    state.splats.dispose();
    state.hands.drop();
  }
  state.hello = hello;
  state.splats = new Splats(hello, arrays, state.renderer);
  state.splats.shadows = $("shadows").checked;
  state.scene.add(state.splats.mesh);
  state.hands = new Hands(state.link, state.splats);
  state.before = null;
  state.after = null;
  state.chosen = -1;
  if (state.pointer) {
    Object.assign(state.pointer, { hands: state.hands, splats: state.splats });
    state.controllers.hands = state.hands;
  } else {
    const { position, target, field_of_view: field } = hello.view;
    state.camera.fov = field;
    state.orbit = new Orbit(state.camera, position, target);
    state.selection = new Selection($("view"), state.camera, showSelection);
    state.pointer = new Pointer($("view"), state.camera, state.orbit, state.hands, state.splats);
    state.pointer.chosen = choose;
    state.controllers = new Controllers(state.renderer, state.rig, state.camera, state.hands, choose);
  }
  fillPanel(hello);
  await showCages();
  state.renderer.setAnimationLoop(draw);
}

// outlines of the cages and dots in the cells that were filled inside, on top of the splats
async function showCages() {
  if (state.cages) {
    state.scene.remove(state.cages.lines, state.cages.dots);
    for (const part of [state.cages.lines, state.cages.dots]) { part.geometry.dispose(); part.material.dispose(); }
    state.cages = null;
  }
  if (!$("cages").checked || !state.hello.vertices) return;
  const { edges, filled } = await (await fetch(`/cages${query}`)).json();
  const lines = new THREE.LineSegments(new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ color: 0x0b57d0, transparent: true, opacity: 0.35, depthTest: false }));
  lines.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(3 * state.hello.vertices), 3));
  lines.geometry.setIndex(edges);
  const dots = new THREE.Points(new THREE.BufferGeometry(), new THREE.PointsMaterial({ color: 0xd05a2c, size: 0.006, transparent: true, depthTest: false }));
  dots.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array((3 * filled.length) / 2), 3));
  for (const part of [lines, dots]) {
    part.frustumCulled = false;
    part.renderOrder = 1;
    state.scene.add(part);
  }
  state.cages = { lines, dots, filled };
}

function moveCages() {
  if (!state.cages) return;
  const { lines, dots, filled } = state.cages;
  const cage = state.splats.cage;
  const vertices = lines.geometry.attributes.position;
  for (let v = 0; v < vertices.count; v++) vertices.setXYZ(v, cage[4 * v], cage[4 * v + 1], cage[4 * v + 2]);
  vertices.needsUpdate = true;
  const middles = dots.geometry.attributes.position;
  for (let k = 0; k < middles.count; k++) {
    const [a, b] = [4 * filled[2 * k], 4 * filled[2 * k + 1]];
    middles.setXYZ(k, (cage[a] + cage[b]) / 2, (cage[a + 1] + cage[b + 1]) / 2, (cage[a + 2] + cage[b + 2]) / 2);
  }
  middles.needsUpdate = true;
}

function showSelection() {
  const { on, strokes } = state.selection || { on: false, strokes: [] };
  const ready = on ? state.selection.usable().length : 0;
  $("select").setAttribute("aria-pressed", String(on));
  $("select").textContent = on ? "Stop selecting" : "Select…";
  $("naming").hidden = !on;
  $("make").disabled = !ready;
  $("selected").textContent = strokes.length
    ? `Marked in ${strokes.length} ${strokes.length === 1 ? "view" : "views"}. More marks make it surer; Shift-click what is not part of it.`
    : "Drag a box around one thing, or click on it; Shift-click what is not part of it. Arrow keys turn the view.";
}

function receive(tick, milliseconds, values) {
  if (!state.hello || values.length !== 3 * state.hello.vertices) return; // of cages that are gone or not here yet
  state.tick = tick;
  state.frames += 1;
  state.before = state.after;
  const { lower, step } = state.hello;
  const cage = new Float32Array((values.length / 3) * 4);
  for (let v = 0; v < values.length / 3; v++) {
    for (let a = 0; a < 3; a++) cage[4 * v + a] = lower[a] + (values[3 * v + a] + 32768) * step;
  }
  state.after = { cage, milliseconds, at: performance.now() };
}

// between the last two ticks by display time, then what hands hold on top
function pose() {
  const { before, after, splats } = state;
  if (!after) return;
  let share = 1;
  if (before) {
    const gap = Math.max(1, after.milliseconds - before.milliseconds);
    share = gap > 250 ? 1 : Math.min(1, (performance.now() - after.at) / gap);
  }
  for (let k = 0; k < splats.cage.length; k++) {
    splats.cage[k] = before ? before.cage[k] + share * (after.cage[k] - before.cage[k]) : after.cage[k];
  }
  state.hands.predict(splats.cage);
  splats.update();
  moveCages();
}

function draw() {
  const { renderer, splats, camera } = state;
  const canvas = renderer.domElement;
  if (!renderer.xr.isPresenting && (canvas.width !== Math.floor(canvas.clientWidth * renderer.getPixelRatio()) || canvas.height !== Math.floor(canvas.clientHeight * renderer.getPixelRatio()))) {
    renderer.setSize(canvas.clientWidth, canvas.clientHeight, false);
    camera.aspect = canvas.clientWidth / Math.max(1, canvas.clientHeight);
    camera.updateProjectionMatrix();
  }
  state.controllers.update();
  state.selection.update();
  pose();
  splats.sort(renderer.xr.isPresenting ? renderer.xr.getCamera() : camera);
  splats.shade(renderer);
  renderer.setClearColor(0xedf0f5, 1);
  renderer.clear();
  renderer.render(state.scene, camera);
  state.drawn = (state.drawn || 0) + 1;
}

function choose(object) {
  state.chosen = object;
  state.splats.material.uniforms.chosen.value = object;
  clearTimeout(state.fade);
  state.splats.material.uniforms.glow.value = 0.35;
  state.fade = setTimeout(() => { state.splats.material.uniforms.glow.value = 0; }, 1200);
  document.querySelectorAll("#objects button").forEach((button, number) => button.setAttribute("aria-pressed", String(number === object)));
  const item = state.hello.objects[object];
  $("made-of").disabled = !item;
  $("chosen").textContent = item ? item.name : "nothing";
  if (!item) return;
  const r = item.report;
  $("bound").textContent = `${many(r.splats)} splats on ${many(r.vertices)} vertices and ${many(r.tets)} tetrahedra, bound in ${r.bind_seconds.toFixed(2)} s, ${(r.bind_bytes / 1e6).toFixed(1)} MB; ${(100 * r.fallback_share).toFixed(1)} % on one level.`;
  $("young").value = Math.log10(item.material.young);
  sayYoung();
}

function sayYoung() {
  const pascal = 10 ** Number($("young").value);
  const used = state.status.softened ? state.status.softened[state.chosen] : 1;
  const limit = used !== undefined && used < 0.99 ? ` (the steps bear ${Math.round(100 * used)} %)` : "";
  $("young-said").textContent = (pascal >= 1e6 ? `${(pascal / 1e6).toFixed(1)} MPa` : `${(pascal / 1e3).toFixed(1)} kPa`) + limit;
}

function fillPanel(hello) {
  $("title").textContent = hello.scene;
  document.title = `${hello.scene} · Isometry`;
  $("size").textContent = `${many(hello.splats)} splats, ${many(hello.vertices)} cage vertices`;
  $("objects").replaceChildren(...hello.objects.map((item, number) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = item.name;
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => choose(number);
    row.append(button);
    return row;
  }));
  $("made-of").disabled = true;
  $("chosen").textContent = "nothing";
  if (state.filled) return;
  state.filled = true;
  const act = (message) => state.link.send(message);
  $("pause").onclick = () => act({ do: "pause", on: !state.status.paused });
  $("undo").onclick = () => act({ do: "undo" });
  $("reset").onclick = () => act({ do: "reset" });
  $("shadows").onchange = () => { state.splats.shadows = $("shadows").checked; };
  $("gravity").oninput = () => {
    const size = Number($("gravity").value);
    $("gravity-said").textContent = `${size.toFixed(1)} m/s²`;
    const up = new THREE.Vector3(...state.hello.up).normalize();
    act({ do: "gravity", value: up.multiplyScalar(-size).toArray() });
  };
  $("preset").onchange = () => {
    if ($("preset").value && state.chosen >= 0) act({ do: "material", object: state.chosen, name: $("preset").value });
    $("preset").value = "";
  };
  $("young").oninput = () => {
    if (state.chosen >= 0) {
      act({ do: "material", object: state.chosen, young: 10 ** Number($("young").value) });
      state.hello.objects[state.chosen].material.young = 10 ** Number($("young").value);
    }
    sayYoung();
  };
  $("cages").onchange = () => { state.heard = state.heard.then(showCages); };
  $("unpin").onclick = () => { if (state.chosen >= 0) act({ do: "unpin", object: state.chosen }); };
  $("dissolve").onclick = () => { if (state.chosen >= 0) act({ do: "dissolve", object: state.chosen }); };
  $("select").onclick = () => {
    if (state.selection.on) state.selection.stop();
    else state.selection.start();
  };
  $("again").onclick = () => state.selection.clear();
  $("make").onclick = () => {
    act({ do: "select", name: $("name").value, strokes: state.selection.usable() });
    state.selection.stop();
    $("name").value = "";
  };
  $("shot").onclick = () => {
    draw();
    $("view").toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `scene-${state.tick}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 5000);
    });
  };
  $("find").onsubmit = async (event) => {
    event.preventDefault();
    const address = new URL("/search", location.href);
    address.search = query;
    address.searchParams.set("q", $("query").value);
    const answer = await fetch(address);
    if (!answer.ok) { say((await answer.text()).trim()); return; }
    const found = await answer.json();
    document.querySelectorAll("#objects button").forEach((button, number) =>
      button.classList.toggle("found", found.some((row) => row.object === number)));
    if (found.length) choose(found[0].object);
    const nothing = `Nothing in this scene is called '${$("query").value}'`;
    say(!found.length ? `${nothing}.` : found[0].by === "meaning" ? `${nothing}; closest in meaning is '${found[0].name}'.` : "");
  };
}

function showStatus() {
  const s = state.status;
  $("pause").setAttribute("aria-pressed", String(Boolean(s.paused)));
  const fewer = s.substeps < s.wanted_substeps ? ` of ${s.wanted_substeps} (this machine is too slow for all)` : "";
  const late = state.link.late ? `, ${state.link.late} late frames dropped` : "";
  $("status").textContent = `Tick ${s.tick}: ${s.tick_ms} ms, ${s.substeps} substeps${fewer}, ${s.viewers} ${s.viewers === 1 ? "viewer" : "viewers"}${late}.`;
  if (state.chosen >= 0) sayYoung();
}

async function offerHeadset() {
  const able = navigator.xr ? await navigator.xr.isSessionSupported("immersive-vr").catch(() => false) : false;
  state.xr = able;
  $("vr").hidden = false;
  $("vr").disabled = !able;
  if (!able) {
    $("vr").textContent = "No headset here";
    $("headset").textContent = navigator.xr || window.isSecureContext
      ? "This browser finds no WebXR headset, so the view is flat."
      : "Browsers give headsets to https pages and this same machine only, so the view is flat.";
  }
  $("vr").onclick = async () => {
    const session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor"] });
    state.renderer.xr.setReferenceSpaceType("local-floor");
    const [x, , z] = state.hello.view.position;
    state.rig.position.set(x, 0, z);
    session.addEventListener("end", () => {
      state.rig.position.set(0, 0, 0);
      state.rig.rotation.set(0, 0, 0);
      state.rig.scale.setScalar(1);
      state.orbit.apply();
    });
    await state.renderer.xr.setSession(session);
    state.session = session;
  };
}

start();
