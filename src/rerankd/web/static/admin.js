// The administrators' pages: refreshes the server's figures every few seconds while the page is visible.
import { BASE } from "./base.js";
import "./secret.js";

const EVERY_MS = 3000;

async function refresh() {
  if (document.hidden) return;
  const response = await fetch(`${BASE}/admin/status`, { cache: "no-store" }).catch(() => null);
  if (!response?.ok || response.redirected) return;
  for (const [name, value] of Object.entries(await response.json())) {
    const tile = document.querySelector(`[data-tile="${CSS.escape(name)}"]`);
    if (tile && tile.textContent !== value) tile.textContent = value;
  }
}

if (document.getElementById("tiles")) setInterval(refresh, EVERY_MS);
