// Connected regions, growing, shrinking and blurring of masks: runtime/preprocessing/regions.py in JavaScript.
// A mask is a Uint8Array of height x width with 0 and 1.

/** Labels regions that hang together along rows and columns. Returns labels (-1 outside) and each one's pixel count. */
export function components(mask, height, width) {
  const labels = new Int32Array(mask.length).fill(-1), counts = [], stack = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start] >= 0) continue;
    const label = counts.length;
    let count = 0;
    stack.push(start);
    labels[start] = label;
    while (stack.length) {
      const at = stack.pop(), column = at % width;
      count++;
      for (const [next, there] of [[at - 1, column > 0], [at + 1, column < width - 1], [at - width, at >= width], [at + width, at < mask.length - width]])
        if (there && mask[next] && labels[next] < 0) {
          labels[next] = label;
          stack.push(next);
        }
    }
    counts.push(count);
  }
  return { labels, counts };
}

/** The regions of a mask that reach the image's border. */
export function touchingBorder(mask, height, width) {
  const { labels, counts } = components(mask, height, width), reached = new Uint8Array(counts.length);
  const look = (at) => { if (labels[at] >= 0) reached[labels[at]] = 1; };
  for (let column = 0; column < width; column++) { look(column); look((height - 1) * width + column); }
  for (let row = 0; row < height; row++) { look(row * width); look(row * width + width - 1); }
  return labels.map((label) => (label >= 0 ? reached[label] : 0));
}

/** A mask grown by a square of this radius. */
export function dilated(mask, height, width, radius) {
  const across = new Uint8Array(mask.length), result = new Uint8Array(mask.length);
  run(mask, across, height, width, width, 1, radius);
  run(across, result, width, height, 1, width, radius);
  return result;
}

function run(from, to, lines, length, next, step, radius) {
  for (let line = 0; line < lines; line++) {
    let count = 0;
    const start = line * next;
    for (let i = 0; i < Math.min(radius, length); i++) count += from[start + i * step];
    for (let i = 0; i < length; i++) {
      if (i + radius < length) count += from[start + (i + radius) * step];
      if (i - radius - 1 >= 0) count -= from[start + (i - radius - 1) * step];
      to[start + i * step] = count > 0 ? 1 : 0;
    }
  }
}

export const inverted = (mask) => mask.map((value) => 1 - value);

/** A mask shrunk by a square of this radius; what is outside the image counts as inside. */
export const eroded = (mask, height, width, radius) => inverted(dilated(inverted(mask), height, width, radius));

/** Means over squares of this radius, `times` over; edges repeated. */
export function blurred(values, height, width, radius, times = 1) {
  let result = Float64Array.from(values);
  for (let time = 0; time < times; time++) {
    result = means(result, height, width, width, 1, radius, new Float64Array(values.length));
    result = means(result, width, height, 1, width, radius, new Float64Array(values.length));
  }
  return Float32Array.from(result);
}

// Rows first or columns first is the same up to rounding: the runtime takes columns first.
function means(from, lines, length, next, step, radius, to) {
  for (let line = 0; line < lines; line++) {
    const start = line * next, at = (i) => from[start + Math.min(Math.max(i, 0), length - 1) * step];
    let total = 0;
    for (let i = -radius; i <= radius; i++) total += at(i);
    for (let i = 0; i < length; i++) {
      to[start + i * step] = total / (2 * radius + 1);
      total += at(i + radius + 1) - at(i - radius);
    }
  }
  return to;
}
