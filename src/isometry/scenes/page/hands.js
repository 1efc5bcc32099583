// Hands: mouse, touch and headset controllers grab with the same messages; what they hold moves at display rate.

import * as THREE from "/vendor/three/three.module.min.js";

const REACH = 0.06;

export class Hands {
  constructor(link, splats) {
    this.link = link;
    this.splats = splats;
    this.held = [null, null];
  }

  grab(hand, position, quaternion, object, radius = REACH) {
    const message = { do: "grab", hand, position: position.toArray(), radius };
    if (quaternion) message.quaternion = [quaternion.w, quaternion.x, quaternion.y, quaternion.z];
    if (object !== undefined) message.object = object;
    this.held[hand] = { position: position.clone(), quaternion: quaternion ? quaternion.clone() : new THREE.Quaternion(), vertices: [], offsets: [], sent: 0, object: null };
    this.link.send(message);
  }

  // the server's answer: which vertices the hand holds, and where they lie in it
  grabbed(answer) {
    const held = this.held[answer.hand];
    if (!held) return;
    if (answer.object === null) {
      this.held[answer.hand] = null;
      return;
    }
    held.object = answer.object;
    held.vertices = answer.vertices;
    // as they lay in the hand when the server closed it: by now the hand may have moved on
    held.offsets = answer.offsets.map((offset) => new THREE.Vector3(...offset));
  }

  move(hand, position, quaternion) {
    const held = this.held[hand];
    if (!held) return;
    held.position.copy(position);
    if (quaternion) held.quaternion.copy(quaternion);
    const now = performance.now();
    if (now - held.sent < 8) return;
    held.sent = now;
    const q = held.quaternion;
    this.link.send({ do: "move", hand, position: position.toArray(), quaternion: [q.w, q.x, q.y, q.z] });
  }

  release(hand) {
    if (!this.held[hand]) return;
    this.held[hand] = null;
    this.link.send({ do: "release", hand });
  }

  // what the hand holds stays where it is, also when it lets go
  pin(hand) {
    if (this.held[hand] && this.held[hand].vertices.length) this.link.send({ do: "pin", hand });
  }

  drop() {
    this.held = [null, null];
  }

  // writes the predicted vertices over the received ones
  predict(cage) {
    const p = new THREE.Vector3();
    for (const held of this.held) {
      if (!held) continue;
      held.vertices.forEach((v, k) => {
        p.copy(held.offsets[k]).applyQuaternion(held.quaternion).add(held.position).toArray(cage, 4 * v);
      });
    }
  }
}

// Mouse and touch on the flat canvas: drag an object to pull it, drag beside it to look around, wheel or pinch to come near.
export class Pointer {
  constructor(canvas, camera, orbit, hands, splats) {
    Object.assign(this, { canvas, camera, orbit, hands, splats });
    this.down = new Map();
    this.chosen = () => {};
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.lift(event));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.orbit.zoom(Math.exp(0.001 * event.deltaY));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    // also while the mouse drags and another element has the focus
    window.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() === "p") this.down.forEach((entry) => { if (entry.hand !== null) this.hands.pin(entry.hand); });
    });
  }

  ray(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = new THREE.Vector2(((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2);
    const caster = new THREE.Raycaster();
    caster.setFromCamera(at, this.camera);
    return caster.ray;
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const ray = this.ray(event);
    const found = this.down.size === 0 ? this.splats.pick(ray) : null;
    const entry = { x: event.clientX, y: event.clientY, hand: null };
    if (found) {
      entry.hand = 0;
      const normal = this.camera.getWorldDirection(new THREE.Vector3());
      entry.plane = new THREE.Plane().setFromNormalAndCoplanarPoint(normal, found.point);
      this.hands.grab(0, found.point, null, found.object);
      this.chosen(found.object);
    }
    this.down.set(event.pointerId, entry);
  }

  drag(event) {
    const entry = this.down.get(event.pointerId);
    if (!entry) return;
    if (entry.hand !== null) {
      const point = this.ray(event).intersectPlane(entry.plane, new THREE.Vector3());
      if (point) this.hands.move(entry.hand, point, null);
    } else if (this.down.size === 2) {
      const [a, b] = [...this.down.values()];
      const before = Math.hypot(a.x - b.x, a.y - b.y);
      entry.x = event.clientX;
      entry.y = event.clientY;
      const after = Math.hypot(a.x - b.x, a.y - b.y);
      if (after > 1) this.orbit.zoom(before / after);
      return;
    } else {
      this.orbit.turn((event.clientX - entry.x) * -0.006, (event.clientY - entry.y) * 0.006);
    }
    entry.x = event.clientX;
    entry.y = event.clientY;
  }

  lift(event) {
    const entry = this.down.get(event.pointerId);
    this.down.delete(event.pointerId);
    if (entry && entry.hand !== null) this.hands.release(entry.hand);
  }

  key(event) {
    const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (turns[event.key]) this.orbit.turn(...turns[event.key]);
    else if (event.key === "+") this.orbit.zoom(0.9);
    else if (event.key === "-") this.orbit.zoom(1.1);
    else return;
    event.preventDefault();
  }
}

// A camera on a sphere around a target.
export class Orbit {
  constructor(camera, position, target) {
    this.camera = camera;
    this.target = new THREE.Vector3(...target);
    this.spherical = new THREE.Spherical().setFromVector3(new THREE.Vector3(...position).sub(this.target));
    this.apply();
  }

  turn(around, up) {
    this.spherical.theta += around;
    this.spherical.phi = Math.min(Math.PI - 0.05, Math.max(0.05, this.spherical.phi - up));
    this.apply();
  }

  zoom(factor) {
    this.spherical.radius = Math.min(50, Math.max(0.2, this.spherical.radius * factor));
    this.apply();
  }

  apply() {
    this.camera.position.setFromSpherical(this.spherical).add(this.target);
    this.camera.lookAt(this.target);
    this.camera.updateMatrixWorld();
  }
}

// Headset controllers: trigger grabs, release throws, squeezing while holding pins, stick left or right snaps the turn, stick up or down scales the world.
export class Controllers {
  constructor(renderer, rig, camera, hands, chosen) {
    Object.assign(this, { renderer, rig, camera, hands, chosen });
    this.snapped = false;
    this.grips = [0, 1].map((hand) => {
      const controller = renderer.xr.getController(hand);
      const grip = renderer.xr.getControllerGrip(hand);
      grip.add(...this.wand(hand ? 0xd05a2c : 0x2f9e44));
      rig.add(grip);
      rig.add(controller);
      controller.addEventListener("selectstart", () => {
        const pose = this.pose(grip);
        this.hands.grab(hand, pose.position, pose.quaternion, undefined, 2 * REACH * rig.scale.x);
      });
      controller.addEventListener("selectend", () => this.hands.release(hand));
      controller.addEventListener("squeezestart", () => this.hands.pin(hand));
      return grip;
    });
  }

  // what a person sees of a hand: a handle in the fist, and a pale ball as far as it grabs
  wand(color) {
    const handle = new THREE.Mesh(new THREE.CapsuleGeometry(0.013, 0.09, 6, 16), new THREE.MeshBasicMaterial({ color: 0x30343c, transparent: true }));
    handle.rotateX(Math.PI / 2);
    handle.position.z = 0.05;
    const knob = new THREE.Mesh(new THREE.SphereGeometry(0.017, 20, 14), new THREE.MeshBasicMaterial({ color, transparent: true }));
    const reach = new THREE.Mesh(new THREE.SphereGeometry(2 * REACH, 32, 20), new THREE.MeshBasicMaterial({ color, transparent: true, opacity: 0.1, depthWrite: false }));
    for (const part of [handle, knob, reach]) part.renderOrder = 2;
    return [reach, handle, knob];
  }

  pose(grip) {
    grip.updateMatrixWorld(true);
    return { position: grip.getWorldPosition(new THREE.Vector3()), quaternion: grip.getWorldQuaternion(new THREE.Quaternion()) };
  }

  update() {
    const session = this.renderer.xr.getSession();
    if (!session) return;
    this.grips.forEach((grip, hand) => {
      if (this.hands.held[hand]) {
        const pose = this.pose(grip);
        this.hands.move(hand, pose.position, pose.quaternion);
      }
    });
    let turn = 0;
    let grow = 0;
    for (const source of session.inputSources) {
      const axes = source.gamepad ? source.gamepad.axes : [];
      if (axes.length >= 4) {
        if (Math.abs(axes[2]) > 0.7) turn = -Math.sign(axes[2]);
        if (Math.abs(axes[3]) > 0.7) grow = Math.sign(axes[3]);
      }
    }
    if (turn && !this.snapped) this.snap((turn * Math.PI) / 6);
    this.snapped = turn !== 0;
    if (grow) this.rig.scale.setScalar(Math.min(4, Math.max(0.25, this.rig.scale.x * (1 + 0.01 * grow))));
    this.rig.updateMatrixWorld(true);
  }

  // turn the rig about the head, so that the person stays in place
  snap(angle) {
    const head = this.camera.getWorldPosition(new THREE.Vector3());
    const offset = this.rig.position.clone().sub(head);
    offset.y = 0;
    offset.applyAxisAngle(new THREE.Vector3(0, 1, 0), angle);
    this.rig.position.set(head.x + offset.x, this.rig.position.y, head.z + offset.z);
    this.rig.rotateY(angle);
  }
}
