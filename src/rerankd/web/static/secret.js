// Copies secrets that are shown once, and confirms actions that cannot be undone.

export const secret = document.getElementById("secret");

document.getElementById("copy-secret")?.addEventListener("click", async (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  try {
    await navigator.clipboard.writeText(secret.textContent);
    target.textContent = "Copied";
  } catch { // not on https or this machine
    getSelection().selectAllChildren(secret);
    target.textContent = "Press Ctrl+C";
  }
});

for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll("form[data-ask]"))) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.ask)) event.preventDefault();
  });
}
