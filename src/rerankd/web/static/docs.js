// Shows the API description with Swagger UI.
const domNode = document.getElementById("swagger-ui");
const { SwaggerUIBundle } = /** @type {any} */ (window);
SwaggerUIBundle({
  url: domNode.dataset.url,
  domNode,
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});

/**
 * Swagger UI nests links in buttons, begins with headings of the third level, and its code cannot be scrolled with the
 * keyboard.
 */
function mend() {
  for (const link of domNode.querySelectorAll("button a[href]")) link.removeAttribute("href");
  for (const heading of domNode.querySelectorAll(":is(h3, h4, h5):not([aria-level])")) {
    heading.setAttribute("aria-level", String(Number(heading.tagName[1]) - 1));
  }
  for (const code of domNode.querySelectorAll("pre:not([tabindex])")) code.setAttribute("tabindex", "0");
}

new MutationObserver(mend).observe(domNode, { childList: true, subtree: true });
