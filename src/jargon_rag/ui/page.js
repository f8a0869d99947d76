// What the page does in the browser: a marker opens its source, a dot on the map is asked about, links are copied.
// Runs once, when the element that carries it is loaded; `trigger` is that element's way to the server.
document.addEventListener("click", (event) => {
  const chip = event.target.closest("a.chip");
  if (!chip) return;
  const card = document.getElementById(chip.getAttribute("href").slice(1));
  if (!card) return;
  event.preventDefault();
  card.open = true;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const mark = card.querySelector("mark") || card;
  mark.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
  card.querySelector("summary").focus({ preventScroll: true });
});

// Plotly draws after the page is there, and again with each question: a new drawing is listened to when it is first seen.
new MutationObserver(() => {
  // Gradio names each message by its source text, which is HTML here and nothing to be read aloud
  document.querySelectorAll("#chat [data-testid=bot][aria-label]").forEach((part) => part.removeAttribute("aria-label"));
  const map = document.querySelector("#map .js-plotly-plot");
  if (!map || map.dataset.heard || !map.on) return;
  map.dataset.heard = "yes";
  map.on("plotly_click", ({ points }) => points[0].customdata && trigger("click", { term: points[0].customdata }));
}).observe(document.body, { childList: true, subtree: true });

// A server that is killed leaves an answer unfinished and says nothing: the page asks whether it is there, tells when it is
// not, and begins anew with another one.
let served;
setInterval(async () => {
  if (document.hidden) return;
  const reply = await fetch("gradio_api/app_id", { cache: "no-store" }).catch(() => null);
  const app = reply && reply.ok ? (await reply.json()).app_id : undefined;
  served ??= app;
  if (app !== undefined && app !== served) return location.reload();
  const lost = document.getElementById("lost");
  if (app !== undefined) lost?.remove();
  else if (!lost) {
    const note = Object.assign(document.createElement("p"), { id: "lost", role: "alert" });
    note.textContent = "The server is gone. This page goes on when it is back.";
    document.body.append(note);
  }
}, 2500);
