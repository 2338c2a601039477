// Shows the API description with Swagger UI.
const domNode = document.getElementById("swagger-ui");
const { SwaggerUIBundle } = /** @type {any} */ (window);
SwaggerUIBundle({
  url: domNode.dataset.url,
  domNode,
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});
