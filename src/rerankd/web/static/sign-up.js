// Reads the invitation from the URL fragment, which browsers never send to a server.
const field = /** @type {HTMLInputElement | null} */ (document.getElementById("invite"));
if (field && location.hash.length > 1 && !field.value) {
  field.value = decodeURIComponent(location.hash.slice(1));
  field.closest("details")?.setAttribute("open", "");
  history.replaceState(null, "", location.pathname);
}
