"use strict";
// Lists the operations of /openapi.json, with nothing from elsewhere.

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function resolve(document_, schema) {
  if (!schema || !schema.$ref) return schema;
  return document_.components.schemas[schema.$ref.split("/").pop()];
}

function schemaOf(document_, part) {
  const content = Object.values((part && part.content) || {})[0];
  return content && resolve(document_, content.schema);
}

function parameterLine(parameter) {
  const need = parameter.required ? "required" : "optional";
  return `${parameter.name} (${parameter.in}, ${need}) ${parameter.description || ""}`;
}

function show(document_, path, method, operation) {
  const details = element("details");
  const summary = element("summary");
  summary.append(element("span", method.toUpperCase(), "method"), element("code", path));
  details.append(summary, element("p", operation.description || ""));
  for (const parameter of operation.parameters || []) details.append(element("div", parameterLine(parameter)));
  const body = schemaOf(document_, operation.requestBody);
  if (body) details.append(element("h3", "Body"), element("pre", JSON.stringify(body, null, 2)));
  details.append(element("h3", "Answers"));
  for (const [status, response] of Object.entries(operation.responses)) {
    details.append(element("div", `${status}: ${response.description}`));
    if (status.startsWith("2")) {
      details.append(element("pre", JSON.stringify(schemaOf(document_, response), null, 2)));
    }
  }
  return details;
}

async function main() {
  const document_ = await (await fetch("/openapi.json")).json();
  const list = document.getElementById("operations");
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const [method, operation] of Object.entries(operations)) list.append(show(document_, path, method, operation));
  }
}

main().catch((error) => { document.getElementById("notice").textContent = error.message; });
