// An image as the model wants it: decoded, cut out, framed, over white. runtime/preprocessing has the same.

import { cutOut } from "./background.js";
import { objectWindow, resample } from "./framing.js";

const LARGEST = 2048, LEAST_SIDE = 16, MOST_OBLONG = 32, FULL = 0.995, SURE = 0.5;
const REMEDY = "Give an image with transparency, or photograph the object before an even background.";

/** Decodes an image file to planes of red, green, blue and alpha in [0, 1]; alpha is not multiplied in. */
export async function decode(blob) {
  const options = { premultiplyAlpha: "none", imageOrientation: "from-image" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new Error("This cannot be read as an image. Give a PNG, JPEG, WebP or another that this browser shows.");
  }
  const { width, height } = bitmap;
  if (Math.min(width, height) < LEAST_SIDE || Math.max(width, height) > MOST_OBLONG * Math.min(width, height))
    throw new Error(`The image is ${width}x${height} pixels; at least ${LEAST_SIDE} on each side are needed, and no side more than ${MOST_OBLONG} times the other.`);
  if (Math.max(width, height) > LARGEST) {
    const shrink = LARGEST / Math.max(width, height);
    bitmap = await createImageBitmap(bitmap, { premultiplyAlpha: "none", resizeWidth: Math.round(width * shrink), resizeHeight: Math.round(height * shrink), resizeQuality: "high" });
  }
  const bytes = pixelsOf(bitmap), count = bitmap.width * bitmap.height;
  const planes = [0, 1, 2, 3].map(() => new Float32Array(count));
  for (let i = 0; i < count; i++) for (let c = 0; c < 4; c++) planes[c][i] = bytes[4 * i + c] / 255;
  return { planes, height: bitmap.height, width: bitmap.width };
}

function drawn(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  return canvas.getImageData(0, 0, bitmap.width, bitmap.height).data;
}

/** Bytes of a bitmap. By WebGL, since a 2-D canvas multiplies alpha in and loses what it cannot divide out again. */
function pixelsOf(bitmap) {
  const { width, height } = bitmap, gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return drawn(bitmap);
  const bytes = new Uint8Array(4 * width * height);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  const lost = gl.isContextLost();
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return lost ? drawn(bitmap) : bytes;
}

/**
 * Brings an image into the model's form.
 * @param image as `decode` gives it. @param {number} size of the result. @param {number} ratio foreground ratio.
 * @param {"auto"|"plain"|"keep"} background as in the Python runtime.
 * @returns pixels (3 x size x size, in [-1, 1]), alpha (size x size), and notes for the user.
 */
export function prepare(image, size, ratio, background) {
  const notes = [];
  let alpha = image.planes[3], window = null, kept = false;
  if (alpha.reduce((sum, value) => sum + (value > 0.5), 0) / alpha.length > FULL) {
    const cut = background === "keep" ? null : cutOut(image);
    if (background === "plain" && !cut.image.planes[3].some((value) => value >= 0.5))
      throw new Error(`No object stands out from the background. ${REMEDY}`);
    if (cut && (background === "plain" || cut.confidence >= SURE)) {
      image = cut.image;
      alpha = image.planes[3];
      if (cut.confidence < SURE) notes.push(`The background is hardly even: the cut may be wrong. ${REMEDY}`);
    } else {
      const side = Math.max(image.height, image.width);
      window = [(image.width - side) / 2, (image.height - side) / 2, side];
      kept = true;
      if (background === "auto") notes.push(`The background was not removed: it is not even, and there is no mask. ${REMEDY}`);
    }
  }
  if (!window) {
    const framed = objectWindow(alpha, image.height, image.width, ratio);
    ({ window, alpha } = framed);
    if (framed.note) notes.push(framed.note);
  }
  const multiplied = [0, 1, 2].map((c) => image.planes[c].map((value, i) => value * alpha[i]));
  const framed = resample({ planes: [...multiplied, alpha], height: image.height, width: image.width }, window, size);
  const pixels = new Float32Array(3 * size * size);
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < size * size; i++)
      pixels[c * size * size + i] = Math.min(1, Math.max(0, framed.planes[c][i] + (1 - framed.planes[3][i]))) * 2 - 1;
  // What pads a kept background to a square is no mask.
  return { pixels, alpha: kept ? framed.planes[3].map(() => 1) : framed.planes[3], size, notes };
}
