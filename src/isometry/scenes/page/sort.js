// Orders splats far to near by counting 16-bit depths; runs beside the page so that drawing never waits.

let means, moving, centres, weights, depths, keys, counts;

onmessage = (event) => {
  const data = event.data;
  if (data.means) {
    ({ means, moving, centres, weights } = data);
    const n = moving.length;
    depths = new Float32Array(n);
    keys = new Uint16Array(n);
    counts = new Uint32Array(65537);
    return;
  }
  const x = data.cage;
  const answer = { number: data.number, cage: x };
  for (const [name, row] of Object.entries(data.rows)) {
    answer[name] = order(x, row, name === "light");
  }
  postMessage(answer, [x.buffer, ...Object.keys(data.rows).map((name) => answer[name].buffer)]);
};

function order(x, row, onlyMoving) {
  const n = moving.length;
  let low = Infinity;
  let high = -Infinity;
  let used = 0;
  for (let i = 0; i < n; i++) {
    const m = moving[i];
    let a, b, c;
    if (m < 0) {
      if (onlyMoving) continue;
      a = means[3 * i];
      b = means[3 * i + 1];
      c = means[3 * i + 2];
    } else {
      a = b = c = 0;
      for (let k = 0; k < 4; k++) {
        const v = 4 * centres[4 * m + k];
        const w = weights[4 * m + k];
        a += w * x[v];
        b += w * x[v + 1];
        c += w * x[v + 2];
      }
    }
    const d = row[0] * a + row[1] * b + row[2] * c + row[3];
    depths[i] = d;
    if (d < low) low = d;
    if (d > high) high = d;
    used += 1;
  }
  const scale = 65535 / Math.max(1e-9, high - low);
  counts.fill(0);
  for (let i = 0; i < n; i++) {
    if (onlyMoving && moving[i] < 0) continue;
    const key = 65535 - ((depths[i] - low) * scale) | 0; // far first
    keys[i] = key;
    counts[key + 1] += 1;
  }
  for (let k = 0; k < 65536; k++) counts[k + 1] += counts[k];
  const out = new Float32Array(used);
  for (let i = 0; i < n; i++) {
    if (onlyMoving && moving[i] < 0) continue;
    out[counts[keys[i]]++] = i;
  }
  return out;
}
