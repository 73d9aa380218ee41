"use strict";
// Shows nodes and newest tasks. Everything that comes from the cluster is set as text, never as markup. The
// token stays in this tab.

const REFRESH_MS = 2000;
const TOKEN_WANTED = "Give a token to see the cluster. The administrator's is in ~/.kohakuriver/admin_token.json on the host's machine.";
const notice = document.getElementById("notice");

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function fetchJson(path) {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  const body = await response.json();
  if (response.status === 401) throw new Error(TOKEN_WANTED);
  if (!response.ok) throw new Error(body.detail || `the host answered ${response.status}`);
  return body;
}

function cell(text) {
  const element = document.createElement("td");
  element.textContent = text;
  return element;
}

function stateCell(state) {
  const element = document.createElement("td");
  const mark = document.createElement("span");
  mark.className = "state";
  if (/^[a-z_]+$/.test(state)) mark.classList.add(state);
  mark.textContent = state;
  element.append(mark);
  return element;
}

function percent(value) {
  return value === null ? "" : `${Math.round(value)} %`;
}

function gibibytes(value) {
  return value ? (value / 2 ** 30).toFixed(1) : "?";
}

function nodeRow(node) {
  const row = document.createElement("tr");
  const notes = [...node.faults];
  if (node.fingerprint) notes.push(`waits for approval, ${node.fingerprint}`);
  row.append(
    cell(node.hostname),
    stateCell(node.status),
    cell(`${node.cores_used} of ${node.total_cores}`),
    cell(percent(node.cpu_percent)),
    cell(`${gibibytes(node.memory_used_bytes)} of ${gibibytes(node.memory_total_bytes)} GiB`),
    cell(node.gpu_info.length ? `${node.gpus_used.length} of ${node.gpu_info.length}` : ""),
    cell(notes.join("; ")),
  );
  return row;
}

function taskRow(task) {
  const row = document.createElement("tr");
  const command = [task.command, ...task.arguments].join(" ");
  row.append(
    cell(task.name ? `${task.name} (${task.task_id})` : task.task_id),
    stateCell(task.status),
    cell(task.assigned_node || task.target || ""),
    cell(task.owner),
    cell(command.length > 120 ? `${command.slice(0, 120)}…` : command),
    cell(new Date(task.submitted_at).toLocaleString()),
    cell(task.exit_code === null ? "" : String(task.exit_code)),
  );
  return row;
}

async function refresh() {
  try {
    const [nodes, tasks] = await Promise.all([fetchJson("/api/nodes"), fetchJson("/api/tasks?limit=50")]);
    document.getElementById("nodes").replaceChildren(...nodes.map(nodeRow));
    document.getElementById("tasks").replaceChildren(...tasks.map(taskRow));
    notice.textContent = "";
  } catch (error) {
    notice.textContent = error.message;
  }
}

async function refreshForEver() {
  if (!document.hidden) await refresh();
  setTimeout(refreshForEver, REFRESH_MS);
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.getElementById("token");
  sessionStorage.setItem("token", field.value.trim());
  field.value = "";
  refresh();
});

refreshForEver();
