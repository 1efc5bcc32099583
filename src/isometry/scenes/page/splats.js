// Draws Gaussians that follow a cage: cage texture -> own small tetrahedron -> F -> F Sigma F^T -> ellipse on the screen.

import * as THREE from "/vendor/three/three.module.min.js";

const WIDTH = 1024;

const SHARED = `
precision highp float;
precision highp int;
precision highp usampler2D;
uniform highp sampler2D tStill;      // 3 texels a splat: mean + moving, covariance xx xy xz yy, covariance yz zz + colour + exposure
uniform highp sampler2D tColour;     // rgb + opacity
uniform highp sampler2D tHarmonics;
uniform highp sampler2D tWeights;    // 8 texels a moving splat: 4 corners, centre, 3 rows of the inverse
uniform highp usampler2D tIndices;   // 5 texels a moving splat: vertices of 4 corners and of the centre
uniform highp sampler2D tCage;
uniform vec2 viewport;
uniform float reachCap;
in vec2 corner;
in float number;

vec4 still(int i) { return texelFetch(tStill, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0); }
vec4 weight(int i) { return texelFetch(tWeights, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0); }
uvec4 index4(int i) { return texelFetch(tIndices, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0); }
vec3 cage(uint v) { int i = int(v); return texelFetch(tCage, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0).xyz; }
vec3 mix4(uvec4 v, vec4 w) { return w.x * cage(v.x) + w.y * cage(v.y) + w.z * cage(v.z) + w.w * cage(v.w); }

// where splat i is, its covariance, and how far F stands from a rotation
void place(int i, out vec3 mean, out mat3 sigma, out mat3 F, out bool moves) {
  vec4 a = still(3 * i), b = still(3 * i + 1), c = still(3 * i + 2);
  mean = a.xyz;
  sigma = mat3(b.x, b.y, b.z, b.y, b.w, c.x, b.z, c.x, c.y);
  F = mat3(1.0);
  moves = a.w >= 0.0;
  if (moves) {
    int m = int(a.w + 0.5);
    vec3 v0 = mix4(index4(5 * m), weight(8 * m));
    vec3 e1 = mix4(index4(5 * m + 1), weight(8 * m + 1)) - v0;
    vec3 e2 = mix4(index4(5 * m + 2), weight(8 * m + 2)) - v0;
    vec3 e3 = mix4(index4(5 * m + 3), weight(8 * m + 3)) - v0;
    F = outerProduct(e1, weight(8 * m + 5).xyz) + outerProduct(e2, weight(8 * m + 6).xyz) + outerProduct(e3, weight(8 * m + 7).xyz);
    float size = dot(F[0], F[0]) + dot(F[1], F[1]) + dot(F[2], F[2]);
    if (size > 192.0) F *= sqrt(192.0 / size);
    mean = mix4(index4(5 * m + 4), weight(8 * m + 4));
    sigma = F * sigma * transpose(F);
  }
}

// the ellipse on the screen; gives clip position and the place inside the ellipse in standard deviations
bool project(vec3 mean, mat3 sigma, float opacity, mat4 view, mat4 projection, out vec4 clip, out vec2 inside) {
  vec4 p = view * vec4(mean, 1.0);
  clip = vec4(0.0, 0.0, 2.0, 1.0);
  if (p.z > -0.05 || opacity * 255.0 <= 1.0) return false;
  float fx = projection[0][0] * viewport.x * 0.5, fy = projection[1][1] * viewport.y * 0.5;
  vec4 at = projection * p;
  if (abs(at.x) > 1.6 * at.w || abs(at.y) > 1.6 * at.w) return false;
  float z = p.z;
  vec2 limit = 1.3 / vec2(projection[0][0], projection[1][1]) + 0.2;
  vec2 t = clamp(p.xy / -z, -limit, limit) * -z;
  mat3 J = mat3(fx / -z, 0.0, 0.0, 0.0, fy / -z, 0.0, fx * t.x / (z * z), fy * t.y / (z * z), 0.0);
  mat3 W = mat3(view);
  mat3 M = J * W;
  mat3 c = M * sigma * transpose(M);
  float p00 = c[0][0] + 0.3, p11 = c[1][1] + 0.3, p01 = c[0][1];
  float middle = 0.5 * (p00 + p11), spread = length(vec2(0.5 * (p00 - p11), p01));
  float l1 = middle + spread, l2 = max(middle - spread, 0.1);
  vec2 axis = abs(p01) < 1e-6 ? (p00 >= p11 ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(p01, l1 - p00));
  float reach = sqrt(2.0 * log(255.0 * opacity));
  vec2 r = min(vec2(reachCap), reach * sqrt(vec2(l1, l2)));
  inside = corner * r / sqrt(vec2(l1, l2));
  vec2 offset = axis * (corner.x * r.x) + vec2(-axis.y, axis.x) * (corner.y * r.y);
  clip = at + vec4(offset / viewport * 2.0 * at.w, 0.0, 0.0);
  return true;
}
`;

const VERTEX = `${SHARED}
uniform mat4 viewMatrix;
uniform mat4 projectionMatrix;
uniform vec3 eye;
uniform highp sampler2D tShadow;
uniform mat4 lightView;
uniform mat4 lightProjection;
uniform float lightBias;
uniform int shadowSize;
uniform float chosen;
uniform float glow;
uniform int degree;
out vec2 vInside;
out vec4 vColour;

float harmonic(int i, int k) {
  int texels = (((degree + 1) * (degree + 1) - 1) * 3 + 3) / 4;
  int at = i * texels + k / 4;
  vec4 t = texelFetch(tHarmonics, ivec2(at % ${WIDTH}, at / ${WIDTH}), 0);
  return k % 4 == 0 ? t.x : k % 4 == 1 ? t.y : k % 4 == 2 ? t.z : t.w;
}
vec3 coefficient(int i, int k) { return vec3(harmonic(i, 3 * k), harmonic(i, 3 * k + 1), harmonic(i, 3 * k + 2)); }

mat3 polar(mat3 F) {
  mat3 R = F;
  for (int n = 0; n < 5; n++) {
    if (determinant(R) < 1e-6) return mat3(1.0);
    R = 0.5 * (R + transpose(inverse(R)));
  }
  return R;
}

vec3 shine(int i, vec3 d) {
  vec3 c = vec3(0.0);
  float x = d.x, y = d.y, z = d.z;
  c += 0.4886025119029199 * (-y * coefficient(i, 0) + z * coefficient(i, 1) - x * coefficient(i, 2));
  if (degree > 1) {
    float xx = x * x, yy = y * y, zz = z * z;
    c += 1.0925484305920792 * (x * y * coefficient(i, 3) - y * z * coefficient(i, 4) - x * z * coefficient(i, 6));
    c += 0.31539156525252005 * (2.0 * zz - xx - yy) * coefficient(i, 5) + 0.5462742152960396 * (xx - yy) * coefficient(i, 7);
    if (degree > 2) {
      c += -0.5900435899266435 * y * (3.0 * xx - yy) * coefficient(i, 8) + 2.890611442640554 * x * y * z * coefficient(i, 9);
      c += -0.4570457994644658 * y * (4.0 * zz - xx - yy) * coefficient(i, 10);
      c += 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * coefficient(i, 11);
      c += -0.4570457994644658 * x * (4.0 * zz - xx - yy) * coefficient(i, 12) + 1.445305721320277 * z * (xx - yy) * coefficient(i, 13);
      c += -0.5900435899266435 * x * (xx - 3.0 * yy) * coefficient(i, 14);
    }
  }
  return c;
}

float lit(vec3 mean) {
  if (shadowSize == 0) return 1.0;
  vec4 p = lightView * vec4(mean, 1.0);
  vec4 c = lightProjection * p;
  if (c.w <= 0.0) return 1.0;
  vec2 at = (c.xy / c.w * 0.5 + 0.5) * float(shadowSize);
  float dark = 0.0;
  for (int dy = -1; dy <= 1; dy++) {
    for (int dx = -1; dx <= 1; dx++) {
      ivec2 texel = ivec2(floor(at)) + ivec2(dx, dy);
      if (texel.x < 0 || texel.y < 0 || texel.x >= shadowSize || texel.y >= shadowSize) continue;
      vec4 s = texelFetch(tShadow, texel, 0);
      if (s.a > 0.02 && -p.z > s.r / s.a + lightBias) dark += s.a / 9.0;
    }
  }
  return 1.0 - dark;
}

void main() {
  int i = int(number + 0.5);
  vec3 mean; mat3 sigma, F; bool moves;
  place(i, mean, sigma, F, moves);
  vec4 colour = texelFetch(tColour, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0);
  vColour = vec4(0.0);
  vInside = vec2(9.0);
  if (!project(mean, sigma, colour.a, viewMatrix, projectionMatrix, gl_Position, vInside)) return;
  vec4 last = still(3 * i + 2);
  vec3 rgb = colour.rgb;
  if (degree > 0) {
    vec3 d = normalize(mean - eye);
    if (moves) d = transpose(polar(F)) * d;
    rgb += shine(i, d);
  }
  rgb = max(rgb, 0.0) * (1.0 - 0.5 * (1.0 - lit(mean)) * last.w);
  if (chosen >= 0.0 && abs(last.z - chosen) < 0.5) rgb = mix(rgb, vec3(1.0, 0.95, 0.4), glow);
  vColour = vec4(rgb, colour.a);
}
`;

const FRAGMENT = `
precision highp float;
in vec2 vInside;
in vec4 vColour;
out vec4 pixel;
void main() {
  float alpha = min(0.99, vColour.a * exp(-0.5 * dot(vInside, vInside)));
  if (alpha < 0.00392) discard;
  pixel = vec4(vColour.rgb * alpha, alpha);
}
`;

const DEPTH_VERTEX = `${SHARED}
uniform mat4 lightView;
uniform mat4 lightProjection;
out vec2 vInside;
out vec2 vDepth;
void main() {
  int i = int(number + 0.5);
  vec3 mean; mat3 sigma, F; bool moves;
  place(i, mean, sigma, F, moves);
  float opacity = texelFetch(tColour, ivec2(i % ${WIDTH}, i / ${WIDTH}), 0).a;
  vDepth = vec2(0.0);
  vInside = vec2(9.0);
  if (!project(mean, sigma, opacity, lightView, lightProjection, gl_Position, vInside)) return;
  vDepth = vec2(-(lightView * vec4(mean, 1.0)).z, opacity);
}
`;

const DEPTH_FRAGMENT = `
precision highp float;
in vec2 vInside;
in vec2 vDepth;
out vec4 pixel;
void main() {
  float alpha = min(0.99, vDepth.y * exp(-0.5 * dot(vInside, vInside)));
  if (alpha < 0.00392) discard;
  pixel = vec4(vDepth.x * alpha, 0.0, 0.0, alpha);
}
`;

function texture(data, perItem, format, type, internal) {
  const channels = format === THREE.RGBAIntegerFormat || format === THREE.RGBAFormat ? 4 : 1;
  const texels = Math.max(1, data.length / channels);
  const height = Math.ceil(texels / WIDTH);
  const padded = new data.constructor(WIDTH * height * channels);
  padded.set(data);
  const made = new THREE.DataTexture(padded, WIDTH, height, format, type);
  made.internalFormat = internal;
  made.minFilter = made.magFilter = THREE.NearestFilter;
  made.generateMipmaps = false;
  made.needsUpdate = true;
  return made;
}

export class Splats {
  constructor(hello, arrays, renderer) {
    this.hello = hello;
    this.arrays = arrays;
    const n = hello.splats;
    const still = new Float32Array(12 * n);
    for (let i = 0; i < n; i++) {
      const c = arrays.covariances;
      still.set([arrays.means[3 * i], arrays.means[3 * i + 1], arrays.means[3 * i + 2], arrays.moving[i]], 12 * i);
      still.set([c[6 * i], c[6 * i + 1], c[6 * i + 2], c[6 * i + 3], c[6 * i + 4], c[6 * i + 5]], 12 * i + 4);
      still.set([arrays.owner[i], arrays.exposure[i]], 12 * i + 10);
    }
    const colour = new Float32Array(4 * n);
    for (let i = 0; i < n; i++) {
      colour.set([arrays.colours[3 * i], arrays.colours[3 * i + 1], arrays.colours[3 * i + 2], arrays.opacities[i]], 4 * i);
    }
    const moving = arrays.moving.reduce((count, m) => count + (m >= 0 ? 1 : 0), 0);
    this.movingCount = moving;
    this.cage = new Float32Array(4 * hello.vertices);
    const cageTexture = texture(this.cage, 4, THREE.RGBAFormat, THREE.FloatType, "RGBA32F");
    this.cageTexture = cageTexture;
    const half = arrays.harmonics.length ? arrays.harmonics : new Uint16Array(4);
    const textures = {
      tStill: texture(still, 12, THREE.RGBAFormat, THREE.FloatType, "RGBA32F"),
      tColour: texture(colour, 4, THREE.RGBAFormat, THREE.FloatType, "RGBA32F"),
      tHarmonics: texture(half, 4, THREE.RGBAFormat, THREE.HalfFloatType, "RGBA16F"),
      tWeights: texture(arrays.weights, 32, THREE.RGBAFormat, THREE.FloatType, "RGBA32F"),
      tIndices: texture(arrays.indices, 20, THREE.RGBAIntegerFormat, THREE.UnsignedIntType, "RGBA32UI"),
      tCage: cageTexture,
    };
    this.canShade = renderer.extensions.has("EXT_color_buffer_float") || renderer.extensions.has("EXT_color_buffer_half_float");
    this.shadowSize = 512;
    this.target = new THREE.WebGLRenderTarget(this.shadowSize, this.shadowSize, {
      type: THREE.HalfFloatType, format: THREE.RGBAFormat, minFilter: THREE.NearestFilter, magFilter: THREE.NearestFilter, depthBuffer: false,
    });
    const uniforms = () => Object.fromEntries(Object.entries(textures).map(([name, value]) => [name, { value }]));
    const blending = {
      glslVersion: THREE.GLSL3, transparent: true, depthTest: false, depthWrite: false, blending: THREE.CustomBlending, blendEquation: THREE.AddEquation,
      blendSrc: THREE.OneFactor, blendDst: THREE.OneMinusSrcAlphaFactor, blendSrcAlpha: THREE.OneFactor, blendDstAlpha: THREE.OneMinusSrcAlphaFactor,
    };
    const light = { lightView: { value: new THREE.Matrix4() }, lightProjection: { value: new THREE.Matrix4() } };
    this.material = new THREE.RawShaderMaterial({
      vertexShader: VERTEX, fragmentShader: FRAGMENT, ...blending,
      uniforms: {
        ...uniforms(), ...light, viewport: { value: new THREE.Vector2(1, 1) }, reachCap: { value: 1024 }, eye: { value: new THREE.Vector3() },
        tShadow: { value: this.target.texture }, lightBias: { value: 0.01 }, shadowSize: { value: 0 }, chosen: { value: -1 }, glow: { value: 0.35 }, degree: { value: hello.degree },
      },
    });
    this.depthMaterial = new THREE.RawShaderMaterial({
      vertexShader: DEPTH_VERTEX, fragmentShader: DEPTH_FRAGMENT, ...blending,
      uniforms: { ...uniforms(), ...light, viewport: { value: new THREE.Vector2(this.shadowSize, this.shadowSize) }, reachCap: { value: 256 } },
    });
    this.mesh = this.instances(n, this.material);
    this.casters = this.instances(moving, this.depthMaterial);
    this.mesh.onBeforeRender = (r, scene, camera) => this.look(r, camera);
    this.lightScene = new THREE.Scene();
    this.lightScene.add(this.casters);
    this.lightCamera = new THREE.PerspectiveCamera(60, 1, 0.05, 100);
    this.sorter = new Worker("/sort.js");
    const centres = new Uint32Array(4 * moving);
    const weights = new Float32Array(4 * moving);
    for (let m = 0; m < moving; m++) {
      for (let k = 0; k < 4; k++) {
        centres[4 * m + k] = arrays.indices[20 * m + 16 + k];
        weights[4 * m + k] = arrays.weights[32 * m + 16 + k];
      }
    }
    this.centres = centres;
    this.centreWeights = weights;
    this.rows = new Int32Array(moving);
    arrays.moving.forEach((m, i) => { if (m >= 0) this.rows[m] = i; });
    this.sizes = Float32Array.from(this.rows, (i) => {
      const c = arrays.covariances;
      return Math.sqrt(Math.max(c[6 * i], c[6 * i + 3], c[6 * i + 5]));
    });
    this.sorter.postMessage({ means: arrays.means, moving: arrays.moving, centres, weights });
    this.sorting = false;
    this.sorted = 0;
    this.sorter.onmessage = (event) => {
      this.sorting = false;
      this.sorted += 1;
      this.fill(this.mesh, event.data.eye);
      if (event.data.light) this.fill(this.casters, event.data.light);
    };
    this.shadows = true;
  }

  dispose() {
    this.sorter.terminate();
    for (const mesh of [this.mesh, this.casters]) {
      mesh.geometry.dispose();
      for (const { value } of Object.values(mesh.material.uniforms)) {
        if (value && value.isTexture && value !== this.target.texture) value.dispose();
      }
      mesh.material.dispose();
    }
    this.target.dispose();
  }

  instances(count, material) {
    const geometry = new THREE.InstancedBufferGeometry();
    geometry.setAttribute("corner", new THREE.BufferAttribute(new Float32Array([-1, -1, 1, -1, 1, 1, -1, 1]), 2));
    geometry.setIndex([0, 1, 2, 0, 2, 3]);
    const number = new THREE.InstancedBufferAttribute(new Float32Array(Math.max(1, count)), 1);
    number.setUsage(THREE.DynamicDrawUsage);
    geometry.setAttribute("number", number);
    geometry.instanceCount = 0;
    const mesh = new THREE.Mesh(geometry, material);
    mesh.frustumCulled = false;
    return mesh;
  }

  fill(mesh, order) {
    mesh.geometry.attributes.number.array.set(order);
    mesh.geometry.attributes.number.needsUpdate = true;
    mesh.geometry.instanceCount = order.length;
  }

  look(renderer, camera) {
    const viewport = camera.viewport;
    const size = this.material.uniforms.viewport.value;
    if (viewport) size.set(viewport.z, viewport.w);
    else renderer.getDrawingBufferSize(size);
    this.material.uniforms.reachCap.value = 0.75 * Math.max(size.x, size.y);
    this.material.uniforms.eye.value.setFromMatrixPosition(camera.matrixWorld);
    this.material.uniformsNeedUpdate = true;
  }

  // cage: 4 floats a vertex
  update() {
    this.cageTexture.image.data.set(this.cage);
    this.cageTexture.needsUpdate = true;
  }

  sort(camera) {
    if (this.sorting) return;
    this.sorting = true;
    const row = (view) => [-view.elements[2], -view.elements[6], -view.elements[10], -view.elements[14]];
    const rows = { eye: row(camera.matrixWorldInverse) };
    if (this.shadows && this.canShade && this.movingCount) {
      this.aimLight();
      rows.light = row(this.lightCamera.matrixWorldInverse);
    }
    const cage = this.cage.slice();
    this.sorter.postMessage({ cage, rows, number: this.sorted }, [cage.buffer]);
  }

  aimLight() {
    const low = new THREE.Vector3(Infinity, Infinity, Infinity);
    const high = low.clone().negate();
    const p = new THREE.Vector3();
    for (let v = 0; v < this.hello.vertices; v++) {
      p.fromArray(this.cage, 4 * v);
      low.min(p);
      high.max(p);
    }
    const centre = low.clone().add(high).multiplyScalar(0.5);
    const reach = low.distanceTo(high) / 2 + 1e-6;
    const camera = this.lightCamera;
    camera.position.fromArray(this.hello.light);
    const distance = camera.position.distanceTo(centre);
    const ahead = centre.clone().sub(camera.position).normalize();
    camera.up.set(Math.abs(ahead.y) > 0.9 ? 1 : 0, Math.abs(ahead.y) > 0.9 ? 0 : 1, 0);
    camera.fov = distance > 1.01 * reach ? (2 * Math.asin(reach / distance) * 180) / Math.PI : 150;
    camera.lookAt(centre);
    camera.updateMatrixWorld();
    camera.updateProjectionMatrix();
    this.material.uniforms.lightView.value.copy(camera.matrixWorldInverse);
    this.material.uniforms.lightProjection.value.copy(camera.projectionMatrix);
    this.material.uniforms.lightBias.value = 0.01 * reach * 2;
  }

  shade(renderer) {
    const on = this.shadows && this.canShade && this.casters.geometry.instanceCount > 0;
    this.material.uniforms.shadowSize.value = on ? this.shadowSize : 0;
    if (!on) return;
    const xr = renderer.xr.enabled;
    const before = renderer.getRenderTarget();
    renderer.xr.enabled = false;
    renderer.setRenderTarget(this.target);
    renderer.setClearColor(0x000000, 0);
    renderer.clear();
    renderer.render(this.lightScene, this.lightCamera);
    renderer.setRenderTarget(before);
    renderer.xr.enabled = xr;
  }

  // centre of moving splat m
  centre(m, out) {
    out.set(0, 0, 0);
    for (let k = 0; k < 4; k++) {
      const v = 4 * this.centres[4 * m + k];
      const w = this.centreWeights[4 * m + k];
      out.x += w * this.cage[v];
      out.y += w * this.cage[v + 1];
      out.z += w * this.cage[v + 2];
    }
    return out;
  }

  // nearest object whose splats a ray passes within 1.5 standard deviations, or null
  pick(ray) {
    const p = new THREE.Vector3();
    let best = null;
    for (let m = 0; m < this.movingCount; m++) {
      this.centre(m, p);
      const along = p.clone().sub(ray.origin).dot(ray.direction);
      if (along < 0.05 || (best && along >= best.along)) continue;
      const slack = Math.max(0.015, 1.5 * this.sizes[m]);
      if (ray.distanceSqToPoint(p) < slack * slack) best = { along, object: this.arrays.owner[this.rows[m]], point: p.clone() };
    }
    return best;
  }
}
