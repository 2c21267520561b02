// Service worker: the site's own files are there without a network. A new site has another name for its cache, and takes
// over when no page of the old one is open: modules, weights and manifest of two sites do not mix.

const SCOPE = new URL("./", self.location).href, NAME = `wavelet-triplane ${SCOPE}`, CACHE = `${NAME} VERSION`;
// The page itself, which was loaded before this could keep it; the rest is kept when it is asked for.
const PAGE = ["FILES"], REST = ["bundle/", "ort/"];

const isOurs = (address) => {
  if (!address.startsWith(SCOPE)) return false;
  const path = address.slice(SCOPE.length).split(/[?#]/)[0];
  return PAGE.includes(path || "./") || REST.some((folder) => path.startsWith(folder));
};

self.addEventListener("install", (event) => event.waitUntil((async () => {
  const cache = await caches.open(CACHE);
  // Not what the browser kept of an older site under the same names.
  await cache.addAll(PAGE.map((file) => new Request(file, { cache: "reload" })));
  if (!self.registration.active) await self.skipWaiting();
})()));

self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith(NAME) && name !== CACHE) await caches.delete(name);
  await self.clients.claim();
})()));

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || !isOurs(event.request.url)) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    // The page is asked for first, so that another one in its place is seen.
    if (event.request.mode === "navigate") return fetch(event.request).catch(() => cache.match("./"));
    const kept = await cache.match(event.request);
    if (kept) return kept;
    const answer = await fetch(event.request);
    // Where there is no room, the site works without.
    if (answer.ok) event.waitUntil(cache.put(event.request, answer.clone()).catch(() => {}));
    return answer;
  })());
});
