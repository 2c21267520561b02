// A mesh as a binary glTF file with colours at its vertices, which glTF wants linear.

const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);

/** @returns {Uint8Array} */
export function glb({ vertices, faces, colours, normals }) {
  const count = vertices.length / 3, colour = new Uint8Array(4 * count);
  for (let v = 0; v < count; v++) {
    for (let c = 0; c < 3; c++) colour[4 * v + c] = Math.round(255 * linear(Math.min(1, Math.max(0, colours[3 * v + c]))));
    colour[4 * v + 3] = 255;
  }
  const parts = [vertices, normals, colour, faces].map((array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part.length, 0));
  const total = parts.reduce((sum, part) => sum + part.length, 0), low = [0, 1, 2].map(() => Infinity), high = [0, 1, 2].map(() => -Infinity);
  vertices.forEach((value, i) => { low[i % 3] = Math.min(low[i % 3], value); high[i % 3] = Math.max(high[i % 3], value); });
  const accessor = (view, componentType, number, type, more) => ({ bufferView: view, componentType, count: number, type, ...more });
  const tree = {
    asset: { version: "2.0", generator: "wavelet-triplane-diffusion" },
    scene: 0, scenes: [{ nodes: [0] }], nodes: [{ mesh: 0, name: "object" }],
    meshes: [{ primitives: [{ attributes: { POSITION: 0, NORMAL: 1, COLOR_0: 2 }, indices: 3, material: 0 }] }],
    materials: [{ pbrMetallicRoughness: { metallicFactor: 0, roughnessFactor: 1 } }],
    accessors: [
      accessor(0, 5126, count, "VEC3", { min: low, max: high }), accessor(1, 5126, count, "VEC3"),
      accessor(2, 5121, count, "VEC4", { normalized: true }), accessor(3, 5125, faces.length, "SCALAR"),
    ],
    bufferViews: parts.map((part, i) => ({ buffer: 0, byteOffset: starts[i], byteLength: part.length, target: i === 3 ? 34963 : 34962 })),
    buffers: [{ byteLength: total }],
  };
  let json = new TextEncoder().encode(JSON.stringify(tree));
  if (json.length % 4) json = Uint8Array.from([...json, ...Array(4 - (json.length % 4)).fill(32)]);
  const file = new Uint8Array(28 + json.length + total), head = new DataView(file.buffer);
  [0x46546c67, 2, file.length, json.length, 0x4e4f534a].forEach((value, i) => head.setUint32(4 * i, value, true));
  file.set(json, 20);
  head.setUint32(20 + json.length, total, true);
  head.setUint32(24 + json.length, 0x004e4942, true);
  parts.forEach((part, i) => file.set(part, 28 + json.length + starts[i]));
  return file;
}
