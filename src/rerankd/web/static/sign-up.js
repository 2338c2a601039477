// An invitation stands after the # of its link, which browsers keep to themselves.
const field = document.getElementById("invite");
if (field && location.hash.length > 1 && !field.value) {
  field.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
