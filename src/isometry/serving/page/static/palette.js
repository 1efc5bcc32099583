// Colours of points: twelve that differ for most eyes on either ground, and a scale from low to high.

const LIGHT = ["#3b6fb6", "#d9772b", "#3f9a62", "#c2463f", "#7d5fb0", "#8c6248", "#d167a7", "#5d7c8c", "#a39a1f", "#2f9fb3", "#1f4f3f", "#e0a53a"];
const DARK = ["#7fb0ec", "#f2a25f", "#72c998", "#ef857d", "#b79ce6", "#c69c80", "#ee9cc9", "#9db8c6", "#d3cb5c", "#6fcfe0", "#4fa58a", "#f4cd7c"];
const OTHER = { light: "#9aa2a8", dark: "#6d767e" };
const NONE = { light: "#c9cdd0", dark: "#474f57" };
// Stops of a scale whose lightness goes one way: dark violet to yellow, turned round on a light ground's far end.
const SCALE = { light: ["#3b2a78", "#31619b", "#2b8f91", "#58b36b", "#c4bd33"], dark: ["#6a5bd0", "#4f8fd0", "#45b8b0", "#8bd67f", "#f3e66a"] };

const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

export const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

// 256 colours by code: the categories or the scale, 254 other, 255 no value.
export function coloursOf(kind) {
  const theme = isDark() ? "dark" : "light";
  const out = new Array(256).fill(rgb(OTHER[theme]));
  if (kind === "category") (theme === "dark" ? DARK : LIGHT).forEach((hex, place) => { out[place] = rgb(hex); });
  else if (kind) {
    const stops = SCALE[theme].map(rgb);
    for (let code = 0; code <= 253; code += 1) {
      const at = (code / 253) * (stops.length - 1);
      const low = Math.min(stops.length - 2, Math.floor(at));
      out[code] = stops[low].map((value, channel) => Math.round(value + (stops[low + 1][channel] - value) * (at - low)));
    }
  } else out.fill(rgb((theme === "dark" ? DARK : LIGHT)[0]));
  out[255] = rgb(NONE[theme]);
  if (!kind) out[255] = out[0];
  return out;
}

export const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
