// Shows the API. `none`: nothing is sent to the validator of Swagger's makers.
SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#manual",
  deepLinking: true,
  filter: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: "none",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
