// The page of keys.
import { BASE } from "./base.js";
import { secret } from "./secret.js";

document.getElementById("try-secret")?.addEventListener("click", () => {
  sessionStorage.setItem("rerankd-key", secret.textContent);
  location.assign(`${BASE}/`);
});
