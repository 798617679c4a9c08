/** A drawing as a list of shapes, to be written as SVG or drawn on a canvas. */

const escaped = (text) =>
  String(text)
    .replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)
    .replace(/[\u0000-\u0008\u000b-\u001f\ufffe\uffff]/g, '\ufffd');
const PIXELS = { preserveAspectRatio: 'none', style: 'image-rendering:pixelated' };

/** A 2d context's words that exports use, recorded: the same code draws the screen and the file. */
export function createRecorder() {
  const shapes = [];
  const stack = [];
  let matrix = [1, 0, 0, 1, 0, 0];
  let path = null;
  let clip = '';
  const g = {
    font: '',
    fillStyle: '#000',
    strokeStyle: '#000',
    lineWidth: 1,
    textAlign: 'left',
    textBaseline: 'alphabetic',
    globalAlpha: 1,
    direction: 'ltr',
  };
  const moved = () => (matrix.join() === '1,0,0,1,0,0' ? '' : ` transform="matrix(${matrix.map((x) => +x.toFixed(4)).join(' ')})"`);
  const add = (markup) => shapes.push(clip ? `<g clip-path="url(#${clip})">${markup}</g>` : markup);
  const tag = (name, attributes, content = '') => {
    const written = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(value)}"`);
    return `<${name}${written.join('')}${moved()}>${content}</${name}>`;
  };
  const near = (x) => +x.toFixed(2);
  const box = (x, y, w, h) => ({ x: near(x), y: near(y), width: near(Math.max(0, w)), height: near(Math.max(0, h)) });
  const side = () => (g.direction === 'rtl' ? flipped : anchors)[g.textAlign];
  const anchors = { left: 'start', center: 'middle', right: 'end' };
  const flipped = { left: 'end', center: 'middle', right: 'start' };
  const bases = { middle: 'central', alphabetic: 'alphabetic' };
  const times = ([a, b, c, d, e, f], [k, l, m, n, o, p]) => [
    a * k + c * l,
    b * k + d * l,
    a * m + c * n,
    b * m + d * n,
    a * o + c * p + e,
    b * o + d * p + f,
  ];

  Object.assign(g, {
    save: () => stack.push([matrix, clip, g.fillStyle, g.strokeStyle, g.textAlign]),
    restore: () => ([matrix, clip, g.fillStyle, g.strokeStyle, g.textAlign] = stack.pop()),
    translate: (x, y) => (matrix = times(matrix, [1, 0, 0, 1, x, y])),
    rotate: (t) => (matrix = times(matrix, [Math.cos(t), Math.sin(t), -Math.sin(t), Math.cos(t), 0, 0])),
    beginPath: () => (path = null),
    rect: (...sides) => (path = sides),
    clip: () => {
      clip = `clip${shapes.length}`;
      shapes.push(`<clipPath id="${clip}">${tag('rect', box(...path))}</clipPath>`);
    },
    clearRect: () => {},
    setLineDash: () => {},
    fillRect: (...sides) => add(tag('rect', { ...box(...sides), fill: g.fillStyle })),
    strokeRect: (...sides) =>
      add(tag('rect', { ...box(...sides), fill: 'none', stroke: g.strokeStyle, 'stroke-width': g.lineWidth })),
    drawImage: (image, ...sides) => add(tag('image', { ...box(...sides), ...PIXELS, href: image.toDataURL() })),
    fillText: (text, x, y) => {
      const style = { style: `font:${g.font};white-space:pre`, fill: g.fillStyle, direction: g.direction };
      const place = { x: near(x), y: near(y), 'text-anchor': side(), 'dominant-baseline': bases[g.textBaseline] };
      add(tag('text', { ...place, ...style }, escaped(text)));
    },
  });
  const svg = (width, height, paper) => {
    const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
    const ground = `<rect width="100%" height="100%" fill="${escaped(paper)}"/>`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${ground}${shapes.join('')}</svg>`;
  };
  return { g, svg };
}

/** Draw on a canvas of twice the size; gives a PNG as a Blob. */
export function png(width, height, paper, draw) {
  const canvas = Object.assign(document.createElement('canvas'), { width: width * 2, height: height * 2 });
  const g = canvas.getContext('2d');
  g.scale(2, 2);
  const layer = Object.assign(document.createElement('canvas'), { width: width * 2, height: height * 2 });
  const over = layer.getContext('2d');
  over.scale(2, 2);
  draw(over);
  g.fillStyle = paper;
  g.fillRect(0, 0, width, height);
  g.drawImage(layer, 0, 0, width, height);
  return new Promise((keep) => canvas.toBlob(keep, 'image/png'));
}
