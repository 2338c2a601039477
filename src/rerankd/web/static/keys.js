// The page of keys.
import { secret } from "./secret.js";

document.getElementById("try-secret")?.addEventListener("click", () => {
  sessionStorage.setItem("rerankd-key", secret.textContent);
  location.assign("/");
});
