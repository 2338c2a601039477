// Shows the API description with Swagger UI.
/* global SwaggerUIBundle */
const domNode = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: domNode.dataset.url,
  domNode,
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});
