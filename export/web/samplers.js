// Sampling runs as tables: runtime/diffusion/samplers.py has the same, with their sources.

export const SAMPLERS = ["ddim", "dpmpp_2m", "euler", "ddpm"];

/** Half to even, as NumPy rounds. */
function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Timesteps of a run, evenly spaced from T-1 downwards. */
export function trailingTimesteps(total, steps) {
  if (!Number.isInteger(steps) || steps < 1 || steps > total) throw new Error(`Steps are whole, 1 to ${total}, not ${steps}.`);
  // As NumPy's arange counts: by the difference of its first two numbers.
  const step = total - total / steps - total;
  return Array.from({ length: steps }, (_, index) => rounded(total + index * step) - 1);
}

/** Rows of timestep, alpha, sigma, a, b, c and d: x' = a x + b x0 + c x0_before + d noise. */
export function samplerTable(sampler, schedule, steps) {
  if (!SAMPLERS.includes(sampler)) throw new Error(`There is no sampler ${sampler}; there are ${SAMPLERS.join(", ")}.`);
  const times = trailingTimesteps(schedule.alpha.length, steps);
  const alpha = [...times.map((t) => schedule.alpha[t]), 1], sigma = [...times.map((t) => schedule.sigma[t]), 0];
  const level = (i) => Math.log(alpha[i]) - Math.log(sigma[i]);
  return times.map((time, i) => {
    let a = sigma[i + 1] / sigma[i], d = 0, c = 0;
    if (sampler === "ddpm") {
      const ratio = alpha[i] / alpha[i + 1];
      d = (sigma[i + 1] / sigma[i]) * Math.sqrt(Math.max(1 - ratio * ratio, 0));
      a = Math.sqrt(Math.max(sigma[i + 1] ** 2 - d * d, 0)) / sigma[i];
    }
    let b = alpha[i + 1] - a * alpha[i];
    if (sampler === "dpmpp_2m" && i > 0 && i < steps - 1) {
      const correction = (b * (level(i + 1) - level(i))) / (2 * (level(i) - level(i - 1)));
      b += correction;
      c = -correction;
    }
    return [time, alpha[i], sigma[i], a, b, c, d];
  });
}
