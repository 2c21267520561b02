// Service worker: what was loaded once is there without a network. A new site has another name for its cache.

const CACHE = "VERSION";
// The page itself, which was loaded before this could keep it.
const PAGE = ["FILES"];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(PAGE)));
});
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name !== CACHE && name !== "gpu-verdicts") await caches.delete(name);
  await self.clients.claim();
})()));
self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE), kept = await cache.match(event.request);
    if (kept) return kept;
    const answer = await fetch(event.request);
    if (answer.ok && !/\/v1\/|\/readyz|\/healthz|\/metrics/.test(event.request.url)) await cache.put(event.request, answer.clone());
    return answer;
  })());
});
