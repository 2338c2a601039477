// The API's description, drawn by Swagger UI.
/* global SwaggerUIBundle */
const domNode = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: domNode.dataset.url,
  domNode,
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});
