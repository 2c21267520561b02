// The inverse Haar transform: runtime/wavelet.py has the conventions.

/** Joins four bands of one plane (Float32Arrays of side x side) into `out` (2 side x 2 side). */
export function idwt2d(ll, lh, hl, hh, side, out) {
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++) {
      const i = row * side + column, o = 4 * row * side + 2 * column;
      const low = ll[i] + hl[i], high = lh[i] + hh[i], below = ll[i] - hl[i], across = lh[i] - hh[i];
      out[o] = (low + high) / 2;
      out[o + 1] = (low - high) / 2;
      out[o + 2 * side] = (below + across) / 2;
      out[o + 2 * side + 1] = (below - across) / 2;
    }
}
