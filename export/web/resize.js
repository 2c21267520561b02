// Resampling of float images as Pillow does it, so that the model is given the same pixels as by the Python runtime.

const cubic = (x) => {
  x = Math.abs(x);
  if (x < 1) return ((1.5 * x - 2.5) * x) * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
};
const triangle = (x) => Math.max(0, 1 - Math.abs(x));
const box = (x) => (x > -0.5 && x <= 0.5 ? 1 : 0);
const FILTERS = { bicubic: [cubic, 2], bilinear: [triangle, 1], box: [box, 0.5] };

/** Where each output pixel begins to read, and its weights. */
function coefficients(inside, from, to, outside, [filter, reach]) {
  const scale = (to - from) / outside, stretch = Math.max(scale, 1), support = reach * stretch;
  return Array.from({ length: outside }, (_, index) => {
    const centre = from + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5)), last = Math.min(inside, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: last - first }, (_, i) => filter((i + first - centre + 0.5) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return [first, total === 0 ? weights : weights.map((weight) => weight / total)];
  });
}

/**
 * Resizes planes.
 * @param {{planes: Float32Array[], height: number, width: number}} image
 * @param {number} height of the result. @param {number} width of the result.
 * @param {number[]} [area] left, top, right and bottom of what is resized, in pixels.
 * @param {"bicubic"|"bilinear"|"box"} [name] of the filter.
 */
export function resize(image, height, width, area = [0, 0, image.width, image.height], name = "bicubic") {
  const columns = coefficients(image.width, area[0], area[2], width, FILTERS[name]);
  const rows = coefficients(image.height, area[1], area[3], height, FILTERS[name]);
  // Pillow leaves a pass out where it would change nothing.
  const wide = width !== image.width || area[0] !== 0 || area[2] !== width;
  const tall = height !== image.height || area[1] !== 0 || area[3] !== height;
  const planes = image.planes.map((plane) => {
    let across = plane;
    if (wide) {
      across = new Float32Array(image.height * width);
      for (let y = 0; y < image.height; y++)
        for (let x = 0; x < width; x++) {
          const [first, weights] = columns[x];
          let sum = 0;
          for (let i = 0; i < weights.length; i++) sum += plane[y * image.width + first + i] * weights[i];
          across[y * width + x] = sum;
        }
    }
    if (!tall) return across;
    const result = new Float32Array(height * width);
    for (let y = 0; y < height; y++) {
      const [first, weights] = rows[y];
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += across[(first + i) * width + x] * weights[i];
        result[y * width + x] = sum;
      }
    }
    return result;
  });
  return { planes, height, width };
}
