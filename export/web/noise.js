// The diffusion's noise: float32 normals of a seed, the same numbers as NumPy's Philox gives the Python runtime.
// The tables of the ziggurat (Marsaglia and Tsang 2000, 256 layers) are computed, as they were for NumPy.

const LAYERS = 256, RIGHT = 3.6541528853610088, AREA = 0.00492867323399;
const MULTIPLIERS = [[0xd2e7470e, 0xe14c6c93], [0xca5a8263, 0x95121157]];
const WEYL = [[0x9e3779b9, 0x7f4a7c15], [0xbb67ae85, 0x84caa73b]];

const limits = new Uint32Array(LAYERS), widths = new Float32Array(LAYERS), heights = new Float32Array(LAYERS);
{
  const steps = 2 ** 23, density = (x) => Math.exp(-0.5 * x * x), base = AREA / density(RIGHT);
  let x = RIGHT, previous = RIGHT;
  limits[0] = (x / base) * steps;
  widths[0] = base / steps;
  widths[LAYERS - 1] = x / steps;
  heights[0] = 1;
  heights[LAYERS - 1] = density(x);
  for (let layer = LAYERS - 2; layer > 0; layer--) {
    x = Math.sqrt(-2 * Math.log(AREA / x + density(x)));
    limits[layer + 1] = (x / previous) * steps;
    previous = x;
    heights[layer] = density(x);
    widths[layer] = x / steps;
  }
}

/** The key that NumPy's SeedSequence makes of a seed: four 32-bit words, the low one of each pair first. */
function keyOf(seed) {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new Error(`A seed is a whole number of 0 or more, not ${seed}.`);
  const entropy = seed < 2 ** 32 ? [seed] : [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const mix = (a, b) => {
    const value = (Math.imul(0xca01f9dd, a) - Math.imul(0x4973f715, b)) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map((index) => hash(entropy[index] ?? 0));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  constant = 0x8b51f9dd;
  return pool.map((value) => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x58f38ded) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  });
}

/** Philox 4x64 with ten rounds (Salmon et al. 2011), as a stream of 32-bit words, the low one of each pair first. */
class Philox {
  constructor(seed) {
    this.key = keyOf(seed);
    this.counter = 0;
    this.words = new Uint32Array(8);
    this.used = 8;
  }

  next() {
    if (this.used === 8) this.refill();
    return this.words[this.used++];
  }

  refill() {
    this.used = 0;
    this.counter++;
    // Each 64-bit number as its high and low word.
    let c0h = Math.floor(this.counter / 2 ** 32), c0l = this.counter >>> 0, c1h = 0, c1l = 0, c2h = 0, c2l = 0, c3h = 0, c3l = 0;
    let [k0l, k0h, k1l, k1h] = this.key;
    for (let round = 0; round < 10; round++) {
      if (round) {
        [k0h, k0l] = sum(k0h, k0l, WEYL[0]);
        [k1h, k1l] = sum(k1h, k1l, WEYL[1]);
      }
      product(MULTIPLIERS[0], c0h, c0l);
      const ah = high1, al = high0, bh = low1, bl = low0;
      product(MULTIPLIERS[1], c2h, c2l);
      c0h = (high1 ^ c1h ^ k0h) >>> 0; c0l = (high0 ^ c1l ^ k0l) >>> 0;
      c1h = low1; c1l = low0;
      c2h = (ah ^ c3h ^ k1h) >>> 0; c2l = (al ^ c3l ^ k1l) >>> 0;
      c3h = bh; c3l = bl;
    }
    this.words.set([c0l, c0h, c1l, c1h, c2l, c2h, c3l, c3h]);
  }
}

function sum(high, low, [otherHigh, otherLow]) {
  const total = low + otherLow;
  return [(high + otherHigh + (total >= 2 ** 32 ? 1 : 0)) >>> 0, total >>> 0];
}

// What `product` leaves: a 128-bit number as four words, from low0 to high1.
let low0 = 0, low1 = 0, high0 = 0, high1 = 0, half = 0;

/** 32 x 32 bits: returns the low word and leaves the high one in `half`. */
function multiply(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const first = a0 * b0, second = a1 * b0 + (first >>> 16), third = a0 * b1 + (second % 65536);
  half = a1 * b1 + Math.floor(second / 65536) + Math.floor(third / 65536);
  return Math.imul(a, b) >>> 0;
}

function product([ah, al], bh, bl) {
  low0 = multiply(al, bl);
  const p0 = half, p1 = multiply(al, bh), p1h = half, p2 = multiply(ah, bl), p2h = half, p3 = multiply(ah, bh);
  const p3h = half, middle = p0 + p1 + p2;
  low1 = middle >>> 0;
  const upper = p1h + p2h + p3 + Math.floor(middle / 2 ** 32);
  high0 = upper >>> 0;
  high1 = (p3h + Math.floor(upper / 2 ** 32)) >>> 0;
}

/** Returns a Float32Array of `count` standard normals of a seed. */
export function normals(seed, count) {
  const stream = new Philox(seed), result = new Float32Array(count), round = Math.fround;
  const uniform = () => (stream.next() >>> 8) / 16777216;
  for (let index = 0; index < count; index++) {
    for (;;) {
      const word = stream.next(), layer = word & 0xff, steps = (word >>> 9) & 0x7fffff, negative = (word >>> 8) & 1;
      let x = round(steps * widths[layer]);
      if (negative) x = -x;
      if (steps >= limits[layer]) {
        if (layer === 0) x = tail(uniform, (steps >>> 8) & 1);
        else {
          const height = round(round(round(heights[layer - 1] - heights[layer]) * uniform()) + heights[layer]);
          if (height >= Math.exp(-0.5 * x * x)) continue;
        }
      }
      result[index] = x;
      break;
    }
  }
  return result;
}

function tail(uniform, negative) {
  const round = Math.fround;
  for (;;) {
    const beyond = round(round(-0.27366123732975828) * round(Math.log1p(-uniform())));
    const height = round(-Math.log1p(-uniform()));
    if (round(height + height) > round(beyond * beyond)) {
      const x = round(round(RIGHT) + beyond);
      return negative ? -x : x;
    }
  }
}
