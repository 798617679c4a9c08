/** Sequential colours: own anchor points, monotone in lightness, blue to yellow: told apart by every kind of sight. */

/** Anchors in OKLCH: lightness, chroma, hue in degrees; evenly spaced. */
const ANCHORS = [
  [0.22, 0.05, 275],
  [0.34, 0.1, 268],
  [0.46, 0.11, 248],
  [0.57, 0.09, 220],
  [0.67, 0.09, 190],
  [0.77, 0.1, 155],
  [0.86, 0.12, 118],
  [0.95, 0.11, 102],
];

const gamma = (x) => (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
const byte = (x) => Math.round(255 * Math.min(1, Math.max(0, gamma(x))));

/** OKLab to sRGB bytes. */
function rgb(L, a, b) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const k = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    byte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * k),
    byte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * k),
    byte(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * k),
  ];
}

function anchor(i) {
  const [L, chroma, hue] = ANCHORS[i];
  const angle = (hue * Math.PI) / 180;
  return [L, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

function colour(t) {
  const at = Math.min(t * (ANCHORS.length - 1), ANCHORS.length - 1.000001);
  const [low, high] = [anchor(Math.floor(at)), anchor(Math.floor(at) + 1)];
  const part = at % 1;
  return rgb(...low.map((x, i) => x + (high[i] - x) * part));
}

function table(dark) {
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const [r, g, b] = colour(dark ? 0.06 + 0.94 * (i / 255) : 1 - i / 255);
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
}

const TABLES = { dark: table(true), light: table(false) };

/** 256 colours as ABGR words, little-endian RGBA in memory. Low values are near the page's background. */
export const colours = (theme) => TABLES[theme] ?? TABLES.light;

/** The colour of a level in 0..1, as CSS. */
export function css(level, theme) {
  const word = colours(theme)[Math.round(255 * Math.min(1, Math.max(0, level || 0)))];
  return `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
}

/** The whole scale, from left to right, as CSS. */
export const gradient = (theme) =>
  `linear-gradient(to right, ${Array.from({ length: 17 }, (_, i) => css(i / 16, theme)).join(', ')})`;

/** Shades behind text, by direction: their own hue, so that the switch is seen. [r, g, b], strongest opacity. */
const SHADES = {
  light: { reads: [[0, 132, 156], 0.5], readers: [[222, 140, 20], 0.52], received: [[92, 104, 170], 0.42] },
  dark: { reads: [[46, 178, 190], 0.5], readers: [[214, 140, 40], 0.48], received: [[126, 140, 220], 0.44] },
};

/** The shade of a level in 0..1 behind text, as CSS; empty where there is nothing to see. */
export function shade(level, show, theme) {
  if (!(level > 0.02)) return '';
  const [[r, g, b], most] = SHADES[theme][show];
  return `rgba(${r},${g},${b},${(most * Math.min(1, level)).toFixed(3)})`;
}

/** The full colour of a direction. */
export const hue = (show, theme) => `rgb(${SHADES[theme][show][0].join(' ')})`;
